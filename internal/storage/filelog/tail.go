package filelog

import (
	"github.com/cleatkv/cleat/internal/storage/index"
)

const (
	chunkBytesMin = 4 << 10
	chunkBytesMax = 256 << 10
	tailBytes     = 1 << 20  // newest bytes kept in memory, written or not
	unwrittenMax  = 64 << 20 // a commit fails once so much could not be written
	flushBytes    = 64 << 10 // a commit writes once there is so much to write
)

// chunk is a stretch of a block in memory. Bytes that a published span covers never change.
type chunk struct {
	block *block
	start uint32 // offset in the block of buf[0]
	buf   []byte // of fixed length
}

// span is the part of a chunk that holds records.
type span struct {
	*chunk
	end uint32 // offset in the block
}

// bytes returns the bytes at an offset in the block, which the span has.
func (s *span) bytes(offset, length uint32) []byte {
	at := offset - s.start
	return s.buf[at : at+length : at+length]
}

// tail is the end of the log: the newest spans, oldest first, of which the first may be
// in the files already. A published tail never changes; an open change works on a copy.
type tail []span

// find returns the bytes at loc if they are in memory.
func (t tail) find(loc index.Loc) []byte {
	for i := len(t) - 1; i >= 0; i-- {
		s := &t[i]
		if s.block.number == loc.Block && loc.Offset >= s.start && loc.Offset+loc.Len <= s.end {
			return s.bytes(loc.Offset, loc.Len)
		}
	}
	return nil
}

// room returns memory for at most n bytes at offset size of the block, in a new chunk if need be.
// The caller owns the tail and moves the last span's end when it has filled the memory.
func (t tail) room(b *block, size int64, n int) (tail, []byte) {
	bytes := chunkBytesMin
	if len(t) > 0 {
		last := &t[len(t)-1]
		used := int(last.end - last.start)
		if last.block == b && used+n <= len(last.buf) {
			return t, last.buf[used:used:len(last.buf)]
		}
		bytes = min(2*len(last.buf), chunkBytesMax)
	}
	c := &chunk{block: b, start: uint32(size), buf: make([]byte, max(n, bytes))}
	return append(t, span{chunk: c, end: c.start}), c.buf[:0]
}

// unwritten is the number of bytes not in the files yet.
func (t tail) unwritten() int64 {
	n := int64(0)
	for i := range t {
		if missing := int64(t[i].end) - max(t[i].block.written.Load(), int64(t[i].start)); missing > 0 {
			n += missing
		}
	}
	return n
}

// trim leaves out the oldest spans that are in the files, as far as there are more bytes than
// keep.
func (t tail) trim(keep int) tail {
	total := 0
	for i := range t {
		total += len(t[i].buf)
	}
	drop := 0
	for drop < len(t)-1 && total > keep && t[drop].block.written.Load() >= int64(t[drop].end) {
		total -= len(t[drop].buf)
		drop++
	}
	return t[drop:]
}
