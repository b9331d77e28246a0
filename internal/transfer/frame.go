package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// What the two servers say to each other. All begins with the step and the number of the transfer, which
// the sender draws; integers are little endian.
//
//	from the sender:
//	  offer:  | 1 | transfer 8 | question 4 | label ... |    what it is; asks how much of it is there
//	  chunk:  | 2 | transfer 8 | offset 8 | crc32c 4 | bytes ... |
//	  end:    | 3 | transfer 8 | size 8 | sha256 32 | trailer ... |
//	  abort:  | 4 | transfer 8 |
//	from the receiver:
//	  have:   | 5 | transfer 8 | question 4 | size 8 |       answers an offer; 0: a chunk came
//	  gap:    | 6 | transfer 8 |                             what came does not follow what is there
//	  result: | 7 | transfer 8 | ok 1 | reason ... |
//
// The checksum of a chunk covers all that stands before it, too: a chunk of another transfer or of
// another place is found as surely as a flipped bit.
const (
	stepOffer = iota + 1
	stepChunk
	stepEnd
	stepAbort
	stepHave
	stepGap
	stepResult
)

const (
	headBytes  = 9
	chunkHead  = headBytes + 12
	endHead    = headBytes + 8 + sha256.Size
	chunkBytes = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errMalformed = errors.New("transfer: malformed frame")

func head(step byte, id uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{step}, id)
}

func offerFrame(id uint64, question uint32, label []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(head(stepOffer, id), question), label...)
}

// beginChunk is the beginning of a chunk's frame, behind which the bytes are put; sealChunk adds the checksum.
func beginChunk(b []byte, id uint64, offset int64) []byte {
	b = append(b, head(stepChunk, id)...)
	b = binary.LittleEndian.AppendUint64(b, uint64(offset))
	return append(b, 0, 0, 0, 0)
}

func sealChunk(frame []byte) {
	binary.LittleEndian.PutUint32(frame[chunkHead-4:], chunkSum(frame))
}

func chunkSum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:chunkHead-4], castagnoli), castagnoli, frame[chunkHead:])
}

func endFrame(id uint64, size int64, sum, trailer []byte) []byte {
	b := binary.LittleEndian.AppendUint64(head(stepEnd, id), uint64(size))
	return append(append(b, sum...), trailer...)
}

func haveFrame(id uint64, question uint32, size int64) []byte {
	b := binary.LittleEndian.AppendUint32(head(stepHave, id), question)
	return binary.LittleEndian.AppendUint64(b, uint64(size))
}

func resultFrame(id uint64, err error) []byte {
	b := head(stepResult, id)
	if err == nil {
		return append(b, 1)
	}
	return append(append(b, 0), err.Error()...)
}

// frame is one received frame, taken apart.
type frame struct {
	step     byte
	id       uint64
	question uint32
	offset   int64 // of a chunk; or the size in an end and in a have
	sum      []byte
	rest     []byte // label, bytes of a chunk, trailer, reason
	damaged  bool   // a chunk that its checksum does not fit
	ok       bool
}

func parse(b []byte) (f frame, err error) {
	if len(b) < headBytes {
		return f, errMalformed
	}
	f.step, f.id = b[0], binary.LittleEndian.Uint64(b[1:])
	body := b[headBytes:]
	need := map[byte]int{stepOffer: 4, stepChunk: 12, stepEnd: 8 + sha256.Size, stepHave: 12, stepResult: 1}[f.step]
	if len(body) < need || f.step < stepOffer || f.step > stepResult {
		return f, errMalformed
	}
	switch f.step {
	case stepOffer:
		f.question, f.rest = binary.LittleEndian.Uint32(body), body[4:]
	case stepChunk:
		f.offset, f.rest = int64(binary.LittleEndian.Uint64(body)), body[12:]
		f.damaged = chunkSum(b) != binary.LittleEndian.Uint32(body[8:])
	case stepEnd:
		f.offset, f.sum, f.rest = int64(binary.LittleEndian.Uint64(body)), body[8:8+sha256.Size], b[endHead:]
	case stepHave:
		f.question, f.offset = binary.LittleEndian.Uint32(body), int64(binary.LittleEndian.Uint64(body[4:]))
	case stepResult:
		f.ok, f.rest = body[0] == 1, body[1:]
	}
	return f, nil
}
