package memory

import (
	"encoding/binary"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

const (
	chunkBytesMin = 4 << 10   // of an engine's first chunk; each next one is twice as large,
	chunkBytesMax = 512 << 10 // up to this
)

// chunk is a stretch of the log. Bytes below what published indexes point to never change.
type chunk struct {
	number uint32
	buf    []byte
}

func (c *chunk) bytes(at index.Loc) []byte { return c.buf[at.Offset : at.Offset+at.Len] }

// record is what a chunk holds of a message; the rest is in the index:
//
//	| seq uv | header uv (0: nil, else length+1) ... | data uv ... |
type record struct {
	seq    uint64
	header []byte
	data   []byte
}

func recordBytes(m *storage.Message) int {
	return uvarintBytes(m.Seq) + uvarintBytes(uint64(len(m.Header))+1) + len(m.Header) +
		uvarintBytes(uint64(len(m.Data))) + len(m.Data)
}

func uvarintBytes(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func appendRecord(b []byte, m *storage.Message) []byte {
	b = binary.AppendUvarint(b, m.Seq)
	if m.Header == nil {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(m.Header))+1)
		b = append(b, m.Header...)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Data)))
	return append(b, m.Data...)
}

func decodeRecord(b []byte) record {
	r, _ := nextRecord(b)
	return r
}

// nextRecord decodes the record at the front of b and returns its length. Empty data is not nil,
// as in a message that came off the wire.
func nextRecord(b []byte) (r record, size int) {
	seq, n := binary.Uvarint(b)
	size += n
	h, n := binary.Uvarint(b[size:])
	size += n
	if h > 0 {
		end := size + int(h-1)
		r.header = b[size:end:end]
		size = end
	}
	d, n := binary.Uvarint(b[size:])
	size += n
	end := size + int(d)
	r.seq = seq
	r.data = b[size:end:end]
	return r, end
}
