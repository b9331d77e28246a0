package wal

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/cleatkv/cleat/internal/invariant"
)

// errMoved says that entries were written again at the head of the log, or replaced, while they were
// being read from where they were.
var errMoved = errors.New("wal: moved")

// Entries appends the entries [lo, hi) to dst, as many as have payloads of maxBytes together and at
// least one. Recent ones come from memory; older ones are read from disk and verified.
func (l *Log) Entries(dst []Entry, id GroupID, lo, hi, maxBytes uint64) ([]Entry, error) {
	g := l.group(id)
	if g == nil {
		return dst, ErrUnavailable
	}
	left := budget{bytes: maxBytes, empty: true}
	r := diskReader{l: l}
	defer r.close()
	for lo < hi {
		var piece run
		var done bool
		var err error
		dst, lo, piece, done, err = g.fromMemory(dst, lo, hi, &left)
		if err != nil || done {
			return dst, err
		}
		before := left
		dst, lo, done, err = r.entries(dst, g, &piece, lo, hi, &left)
		if errors.Is(err, errMoved) {
			left = before
			continue
		}
		if err != nil || done {
			return dst, err
		}
	}
	return dst, nil
}

// budget counts the payload bytes that Entries may still return.
type budget struct {
	bytes uint64
	empty bool // nothing was returned yet
}

func (b *budget) take(n int) bool {
	if !b.empty && uint64(n) > b.bytes {
		return false
	}
	b.empty = false
	b.bytes -= min(uint64(n), b.bytes)
	return true
}

// fromMemory appends cached entries. If the first one is not cached, it returns the run on disk
// that has it instead.
func (g *group) fromMemory(dst []Entry, lo, hi uint64, left *budget) (_ []Entry, next uint64, onDisk run, done bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lo <= g.start.Index {
		return dst, lo, run{}, false, ErrCompacted
	}
	if hi > g.last+1 || g.removed {
		return dst, lo, run{}, false, ErrUnavailable
	}
	first := g.last + 1 - uint64(len(g.tail))
	if lo < first {
		r := g.runOf(lo)
		invariant.Assert(r != nil, "group %d: no run has entry %d", g.id, lo)
		if r.lost != nil {
			return dst, lo, run{}, false, g.damage()
		}
		return dst, lo, *r, false, nil
	}
	for _, e := range g.tail[lo-first : hi-first] {
		if !left.take(len(e.Data)) {
			break
		}
		dst = append(dst, e)
	}
	return dst, hi, run{}, true, nil
}

// entries appends entries of one run on disk.
func (d *diskReader) entries(dst []Entry, g *group, r *run, lo, hi uint64, left *budget) (_ []Entry, next uint64, done bool, err error) {
	heads, err := d.read(r.at, r.headAt, r.headLen)
	if err != nil {
		return dst, lo, false, d.l.unreadable(g, r, lo, err)
	}
	// Which payloads, so that they are one read.
	hs := decoder{fields.Reader{B: heads}}
	list := make([]head, 0, r.count)
	var from, to uint64
	at := uint64(0)
	hi = min(hi, r.last+1)
	end := lo
	for index := r.first; index < hi; index++ {
		h := hs.head()
		if hs.Bad {
			return dst, lo, false, d.l.fail(fmt.Errorf("heads of group %d: %w", g.id, ErrInconsistent))
		}
		if index == lo {
			from, to = at, at
		}
		at += h.len
		if index < lo {
			continue
		}
		if !left.take(int(h.len)) {
			done = true
			break
		}
		list = append(list, h)
		to = at
		end = index + 1
	}
	data, err := d.read(r.at, r.payloadAt+uint32(from), uint32(to-from))
	if err != nil {
		return dst, lo, false, d.l.unreadable(g, r, lo, err)
	}
	for i, h := range list {
		e := Entry{Index: lo + uint64(i), Term: r.term, Type: h.typ, Hash: h.hash, Data: data[:h.len:h.len]}
		data = data[h.len:]
		if HashData(e.Data) != h.hash {
			return dst, lo, false, d.l.fail(fmt.Errorf("payload of log entry %d of group %d: %w", e.Index, g.id, ErrInconsistent))
		}
		dst = append(dst, e)
	}
	return dst, end, done, nil
}

// sectorError is a sector that cannot be read or is not what was written.
type sectorError struct {
	at     place
	reason string
}

func (e *sectorError) Error() string {
	return fmt.Sprintf("%s at offset %d: %s", segmentName(e.at.segment), e.at.offset(), e.reason)
}

// diskReader reads parts of batches for one call of Entries. Runs that follow each other lie close
// together, so from the second read on it reads ahead.
type diskReader struct {
	l      *Log
	s      *segment
	first  uint32 // sector that buf starts with
	buf    []byte
	ahead  uint32
	stamps []bool // sectors of buf that were checked
}

const readAhead = 128 // sectors

// read returns bytes [at, at+n) of a batch.
func (d *diskReader) read(batch place, at, n uint32) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	first, last := batch.sector+at/sectorData, batch.sector+(at+n-1)/sectorData
	if err := d.fill(batch.segment, first, last); err != nil {
		return nil, err
	}
	for i := first; i <= last; i++ {
		if d.stamps[i-d.first] {
			continue
		}
		st := d.s.stamp.check(d.buf[(i-d.first)*sectorSize:][:sectorSize], i)
		if st != sectorBody && (st != sectorStart || i > batch.sector) {
			return nil, &sectorError{place{batch.segment, i}, "sector damaged"}
		}
		d.stamps[i-d.first] = true
	}
	lo := int(at % sectorData)
	return gather(make([]byte, 0, n), d.buf[(first-d.first)*sectorSize:], lo, lo+int(n)), nil
}

// fill makes sure that sectors first to last of a segment are in the buffer.
func (d *diskReader) fill(number uint64, first, last uint32) error {
	have := d.first + uint32(len(d.stamps))
	if d.s != nil && d.s.number == number && d.first <= first && last < have {
		return nil
	}
	d.close()
	if d.s = d.l.files.acquire(number); d.s == nil {
		return &sectorError{place{number, first}, "segment is not there"}
	}
	need := last + 1 - first
	n := min(max(need, d.ahead), d.s.end()-first)
	d.first, d.ahead = first, readAhead
	err := d.load(n)
	if err != nil && n > need {
		err = d.load(need) // What lies behind is nobody's concern now.
	}
	if err != nil {
		d.close()
		return &sectorError{place{number, first}, err.Error()}
	}
	return nil
}

// close gives the segment back.
func (d *diskReader) close() {
	if d.s != nil {
		d.l.files.giveBack(d.s)
		d.s = nil
	}
}

// load reads n sectors into the buffer.
func (d *diskReader) load(n uint32) error {
	d.buf = slices.Grow(d.buf[:0], int(n)*sectorSize)[:int(n)*sectorSize]
	d.stamps = append(d.stamps[:0], make([]bool, n)...)
	_, err := d.s.f.ReadAt(d.buf, int64(d.first)*sectorSize)
	return err
}

// unreadable makes the error for entries that could be read when the log was opened, or were
// written since, and cannot now.
func (l *Log) unreadable(g *group, r *run, lo uint64, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lo <= g.start.Index {
		return ErrCompacted // Meanwhile; the segment may be gone.
	}
	if now := g.runOf(lo); now == nil || now.at != r.at {
		return errMoved
	}
	d := &DamageError{Group: g.id, Reason: err.Error(), Lost: []LostRange{{First: lo, Last: r.last, Term: r.term}}}
	if s, ok := err.(*sectorError); ok {
		d.File, d.Offset, d.Reason = segmentName(s.at.segment), s.at.offset(), s.reason
	}
	return d
}
