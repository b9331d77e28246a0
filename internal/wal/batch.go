package wal

import (
	"encoding/binary"
	"errors"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/zeebo/xxh3"
)

// A batch is what one sync makes durable. Its bytes, spread over the data parts of its sectors:
//
//	| header 72 | rows | copy of the previous batch's rows | heads | payloads | trailer 16 |
//
// A row is one group's share: its complete hard state and log start after the batch, and the
// entries, all of one term, that the batch appends to it. An entry's head holds type, length and
// payload hash; heads and payloads stand in the order of the rows. A row lost in its own batch
// survives in the copy, so that one knows who lost what.
//
// Little-endian. In the header:
//
//	 0 magic 4           "CLB1"; a segment footer has "CLF1"
//	 4 row bytes 4
//	 8 sequence 8        of this batch; each batch has the next one
//	16 durable segment 8
//	24 durable sector 4  everything written before this position is on disk
//	28 copy bytes 4
//	32 head bytes 4
//	36 payload bytes 4
//	40 copy sequence 8   the batch whose rows are copied
//	48 first segment 8   segments below this number are not needed
//	56 first sequence 8  of the first batch in this segment
//	64 chain 8           the chain value of the batch before
//
// The trailer is the sequence again and this batch's chain value: the xxh3 of everything from
// the header to the heads. Since the heads hold the payload hashes, it covers all.
const (
	batchMagic  = 0x31424c43
	footerMagic = 0x31464c43
	headerSize  = 72
	trailerSize = 16
)

var errMalformed = errors.New("malformed")

type batchHeader struct {
	magic         uint32
	rowBytes      uint32
	seq           uint64
	durable       place
	copyBytes     uint32
	headBytes     uint32
	payloadBytes  uint32
	copySeq       uint64
	firstSegment  uint64
	segmentSeq    uint64
	previousChain uint64
}

// place is a position on disk: a sector of a segment.
type place struct {
	segment uint64
	sector  uint32
}

func (p place) less(q place) bool {
	return p.segment < q.segment || p.segment == q.segment && p.sector < q.sector
}

func (p place) offset() int64 { return int64(p.sector) * sectorSize }

func (h *batchHeader) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, h.magic)
	b = le.AppendUint32(b, h.rowBytes)
	b = le.AppendUint64(b, h.seq)
	b = le.AppendUint64(b, h.durable.segment)
	b = le.AppendUint32(b, h.durable.sector)
	b = le.AppendUint32(b, h.copyBytes)
	b = le.AppendUint32(b, h.headBytes)
	b = le.AppendUint32(b, h.payloadBytes)
	b = le.AppendUint64(b, h.copySeq)
	b = le.AppendUint64(b, h.firstSegment)
	b = le.AppendUint64(b, h.segmentSeq)
	return le.AppendUint64(b, h.previousChain)
}

func (h *batchHeader) decode(b []byte) {
	le := binary.LittleEndian
	h.magic = le.Uint32(b[0:])
	h.rowBytes = le.Uint32(b[4:])
	h.seq = le.Uint64(b[8:])
	h.durable = place{le.Uint64(b[16:]), le.Uint32(b[24:])}
	h.copyBytes = le.Uint32(b[28:])
	h.headBytes = le.Uint32(b[32:])
	h.payloadBytes = le.Uint32(b[36:])
	h.copySeq = le.Uint64(b[40:])
	h.firstSegment = le.Uint64(b[48:])
	h.segmentSeq = le.Uint64(b[56:])
	h.previousChain = le.Uint64(b[64:])
}

// prefixBytes is the length of all that comes before the payloads.
func (h *batchHeader) prefixBytes() int {
	return headerSize + int(h.rowBytes) + int(h.copyBytes) + int(h.headBytes)
}

// bytes is the length of the whole batch.
func (h *batchHeader) bytes() int {
	return h.prefixBytes() + int(h.payloadBytes) + trailerSize
}

// row is a group's share of a batch. A row without entries has count 0.
type row struct {
	flags uint8
	group GroupID
	prev  uint64 // sequence of the batch with the group's row before this one, 0 if there was none
	hard  HardState
	start Position

	first, count, term uint64
	fold               uint64 // of the entries' payload hashes
}

const (
	rowReset  = 1 << iota // the log before this row does not count
	rowRemove             // the group is gone
)

func (r *row) last() uint64 { return r.first + r.count - 1 }

// append encodes the row: flags 1, then varints group, sequence - prev, hard state, log start, count
// and, if there are entries, first, term, and fold in 8 bytes.
func (r *row) append(b []byte, seq uint64) []byte {
	b = append(b, r.flags)
	b = binary.AppendUvarint(b, uint64(r.group))
	b = binary.AppendUvarint(b, seq-r.prev)
	b = binary.AppendUvarint(b, r.hard.Term)
	b = binary.AppendUvarint(b, r.hard.Vote)
	b = binary.AppendUvarint(b, r.hard.Commit)
	b = binary.AppendUvarint(b, r.start.Index)
	b = binary.AppendUvarint(b, r.start.Term)
	b = binary.AppendUvarint(b, r.count)
	if r.count > 0 {
		b = binary.AppendUvarint(b, r.first)
		b = binary.AppendUvarint(b, r.term)
		b = binary.LittleEndian.AppendUint64(b, r.fold)
	}
	return b
}

// decodeRows decodes the rows of the batch seq, which fill b exactly.
func decodeRows(b []byte, seq uint64) ([]row, error) {
	var rows []row
	for d := (decoder{fields.Reader{B: b}}); len(d.B) > 0; {
		r := d.row(seq)
		if d.Bad {
			return nil, errMalformed
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (d *decoder) row(seq uint64) row {
	r := row{flags: d.Byte()}
	r.group = GroupID(d.Uvarint())
	r.prev = seq - d.Uvarint()
	r.hard = HardState{Term: d.Uvarint(), Vote: d.Uvarint(), Commit: d.Uvarint()}
	r.start = Position{Index: d.Uvarint(), Term: d.Uvarint()}
	r.count = d.Uvarint()
	if r.count > 0 {
		r.first, r.term, r.fold = d.Uvarint(), d.Uvarint(), d.Uint64()
	}
	// An index has room above it, so that last and next of a row never wrap.
	if r.first > 1<<62 || r.count > 1<<62 || r.start.Index > 1<<62 {
		d.Bad = true
	}
	return r
}

// head describes one entry's payload.
type head struct {
	typ  uint8
	len  uint64
	hash uint64
}

func (h head) append(b []byte) []byte {
	b = append(b, h.typ)
	b = binary.AppendUvarint(b, h.len)
	return binary.LittleEndian.AppendUint64(b, h.hash)
}

func (d *decoder) head() head {
	return head{typ: d.Byte(), len: d.Uvarint(), hash: d.Uint64()}
}

// decoder reads what batches are made of.
type decoder struct{ fields.Reader }

// HashData is the payload hash that travels with an entry.
func HashData(data []byte) uint64 { return xxh3.Hash(data) }

// FoldHash adds the payload hash of the next entry to the fold of those before it. Folds
// identify ranges of entries across servers that wrote them in different pieces.
func FoldHash(fold, hash uint64) uint64 { return fold*foldPrime + hash }

const foldPrime = 0x9e3779b97f4a7c15

// chainHash is the chain value of a batch with this prefix.
func chainHash(prefix []byte) uint64 { return xxh3.Hash(prefix) }

func appendTrailer(b []byte, seq, chain uint64) []byte {
	b = binary.LittleEndian.AppendUint64(b, seq)
	return binary.LittleEndian.AppendUint64(b, chain)
}
