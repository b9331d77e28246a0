package filelog

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/klauspost/compress/s2"
)

// A block file is a header and records without gaps:
//
//	header: | magic "CLEATBLK" 8 | version 4 | number 4 | engine 4 | crc32c 4 |
//	record: | length 4 | kind 1 | seq uv | time 8 | expires 8 | subject uv ... | body ... | sum 4 |
//	body:   | header uv (0: nil, else length+1) ... | data ... |
//
// engine is the CRC32C of the engine's name, length that of the whole record. A body is plain or
// one s2 block, as the kind says. sum is the CRC32C of all that precedes it in the record, changed
// by the record's place, so that a record in the wrong place is as wrong as a flipped bit. Of an
// erased record there are left the length, the kind, zeros and a good sum.
const (
	blockMagic   = "CLEATBLK"
	blockVersion = 1

	kindErased = 0
	kindPlain  = 1
	kindS2     = 2

	blockHeaderBytes = 24
	recordBytesMin   = 4 + 1 + 1 + 8 + 8 + 1 + 1 + 4
	compressBytesMin = 64 // smaller bodies are not worth the try
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// placed changes a checksum by a place in a file. Two offsets of one file never change it alike.
func placed(sum, file uint32, offset int64) uint32 {
	return sum ^ (file*0x9e3779b1 + uint32(offset)*0x85ebca6b + uint32(offset>>32)*0xc2b2ae35)
}

func appendBlockHeader(b []byte, number, engine uint32) []byte {
	at := len(b)
	b = append(b, blockMagic...)
	b = binary.LittleEndian.AppendUint32(b, blockVersion)
	b = binary.LittleEndian.AppendUint32(b, number)
	b = binary.LittleEndian.AppendUint32(b, engine)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

// checkBlockHeader says what is wrong with a header, or "".
func checkBlockHeader(b []byte, number, engine uint32) string {
	want := appendBlockHeader(nil, number, engine)
	switch {
	case string(b) == string(want):
		return ""
	case string(b[:8]) != blockMagic:
		return "not a block file"
	case crc32.Checksum(b[:20], castagnoli) != binary.LittleEndian.Uint32(b[20:]):
		return "checksum mismatch in the header"
	case binary.LittleEndian.Uint32(b[8:]) != blockVersion:
		return "unknown version"
	}
	return "the header is another block's"
}

// recordBytesMax bounds the encoded length of a message.
func recordBytesMax(m *storage.Message) int {
	return recordBytesMin + 3*binary.MaxVarintLen64 + len(m.Subject) + len(m.Header) + len(m.Data)
}

// appendRecord encodes a message for a place. scratch is memory to compress in; it is returned,
// perhaps grown.
func appendRecord(b []byte, m *storage.Message, number uint32, offset uint32, scratch []byte) (rec, scratchOut []byte) {
	at := len(b)
	b = append(b, 0, 0, 0, 0, kindPlain)
	b = binary.AppendUvarint(b, m.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Time))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Expires))
	b = binary.AppendUvarint(b, uint64(len(m.Subject)))
	b = append(b, m.Subject...)
	body := len(b)
	if m.Header == nil {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(m.Header))+1)
		b = append(b, m.Header...)
	}
	b = append(b, m.Data...)
	if scratch != nil && len(b)-body >= compressBytesMin {
		scratch = s2.Encode(scratch[:cap(scratch)], b[body:])
		if len(scratch) < len(b)-body {
			b = append(b[:body], scratch...)
			b[at+4] = kindS2
		}
	}
	b = append(b, 0, 0, 0, 0)
	sealRecord(b[at:], number, offset)
	return b, scratch
}

// sealRecord writes the length and the sum of a record that is complete but for them.
func sealRecord(rec []byte, number, offset uint32) {
	n := len(rec)
	binary.LittleEndian.PutUint32(rec, uint32(n))
	sum := crc32.Checksum(rec[:n-4], castagnoli)
	binary.LittleEndian.PutUint32(rec[n-4:], placed(sum, number, int64(offset)))
}

// eraseRecord overwrites a record in memory by an erased one.
func eraseRecord(rec []byte, number, offset uint32) {
	clear(rec)
	rec[4] = kindErased
	sealRecord(rec, number, offset)
}

// checkRecord says what is wrong with the frame of a record, or "".
func checkRecord(rec []byte, number, offset uint32) string {
	n := len(rec)
	switch {
	case n < recordBytesMin || binary.LittleEndian.Uint32(rec) != uint32(n):
		return "the length is wrong"
	case placed(crc32.Checksum(rec[:n-4], castagnoli), number, int64(offset)) != binary.LittleEndian.Uint32(rec[n-4:]):
		return "checksum mismatch"
	case rec[4] > kindS2:
		return "unknown kind of record"
	}
	return ""
}

// decodeRecord decodes a record whose frame is good. The message's slices point into rec, unless
// it was compressed. It returns false if the record was erased or does not decode.
func decodeRecord(rec []byte) (m storage.Message, ok bool) {
	d := fields.Reader{B: rec[5 : len(rec)-4]}
	m.Seq = d.Uvarint()
	m.Time = int64(d.Uint64())
	m.Expires = int64(d.Uint64())
	m.Subject = string(d.Take(d.Uvarint()))
	body := d.B
	switch {
	case d.Bad || rec[4] == kindErased:
		return m, false
	case rec[4] == kindS2:
		plain, err := s2.Decode(nil, body)
		if err != nil {
			return m, false
		}
		body = plain
	}
	d.B = body
	if n := d.Uvarint(); n > 0 {
		m.Header = d.Take(n - 1)
	}
	m.Data = d.B[:len(d.B):len(d.B)]
	return m, !d.Bad
}

// recordSeq is the sequence of a record whose frame is good; 0 if it was erased.
func recordSeq(rec []byte) uint64 {
	if rec[4] == kindErased {
		return 0
	}
	seq, _ := binary.Uvarint(rec[5 : len(rec)-4])
	return seq
}
