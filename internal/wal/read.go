package wal

import (
	"fmt"
)

// Entries appends the entries [lo, hi) to dst, as many as have payloads of maxBytes together and at
// least one. Recent ones come from memory; older ones are read from disk and verified.
func (l *Log) Entries(dst []Entry, id GroupID, lo, hi, maxBytes uint64) ([]Entry, error) {
	g := l.group(id)
	if g == nil {
		return dst, ErrUnavailable
	}
	left := budget{bytes: maxBytes, empty: true}
	for lo < hi {
		var piece run
		var done bool
		var err error
		dst, lo, piece, done, err = g.fromMemory(dst, lo, hi, &left)
		if err != nil || done {
			return dst, err
		}
		if dst, lo, done, err = l.fromDisk(dst, g, &piece, lo, hi, &left); err != nil || done {
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
		_, r := g.runOf(lo)
		if r == nil || r.lost != nil {
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

// fromDisk appends entries of one run.
func (l *Log) fromDisk(dst []Entry, g *group, r *run, lo, hi uint64, left *budget) (_ []Entry, next uint64, done bool, err error) {
	heads, err := l.readRange(r.at, r.headAt, r.headLen)
	if err != nil {
		return dst, lo, false, l.unreadable(g, r, lo, err)
	}
	// Which payloads, so that they are one read.
	d := decoder{b: heads}
	list := make([]head, 0, r.count)
	var from, to uint64
	at := uint64(0)
	hi = min(hi, r.last+1)
	end := lo
	for index := r.first; index < hi; index++ {
		h := d.head()
		if d.bad {
			return dst, lo, false, l.fail(fmt.Errorf("heads of group %d: %w", g.id, ErrInconsistent))
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
	data, err := l.readRange(r.at, r.payloadAt+uint32(from), uint32(to-from))
	if err != nil {
		return dst, lo, false, l.unreadable(g, r, lo, err)
	}
	for i, h := range list {
		e := Entry{Index: lo + uint64(i), Term: r.term, Type: h.typ, Hash: h.hash, Data: data[:h.len:h.len]}
		data = data[h.len:]
		if HashData(e.Data) != h.hash {
			return dst, lo, false, l.fail(fmt.Errorf("payload of log entry %d of group %d: %w", e.Index, g.id, ErrInconsistent))
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

// readRange reads bytes [at, at+n) of a batch.
func (l *Log) readRange(batch place, at, n uint32) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	l.files.Lock()
	s := l.files.open[batch.segment]
	l.files.Unlock()
	if s == nil {
		return nil, &sectorError{batch, "segment is not there"}
	}
	first := at / sectorData
	last := (at + n - 1) / sectorData
	buf := make([]byte, (last-first+1)*sectorSize)
	from := place{batch.segment, batch.sector + first}
	if _, err := s.f.ReadAt(buf, from.offset()); err != nil {
		return nil, &sectorError{from, err.Error()}
	}
	for i := first; i <= last; i++ {
		sector := buf[(i-first)*sectorSize:][:sectorSize]
		if st := s.stamp.check(sector, batch.sector+i); st != sectorBody && (st != sectorStart || i > 0) {
			return nil, &sectorError{place{batch.segment, batch.sector + i}, "sector damaged"}
		}
	}
	lo := int(at - first*sectorData)
	return gather(make([]byte, 0, n), buf, lo, lo+int(n)), nil
}

// unreadable makes the error for entries that could be read when the log was opened, or were
// written since, and cannot now.
func (l *Log) unreadable(g *group, r *run, lo uint64, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lo <= g.start.Index {
		return ErrCompacted // Meanwhile; the segment may be gone.
	}
	d := &DamageError{Group: g.id, Reason: err.Error(), Lost: []LostRange{{First: lo, Last: r.last, Term: r.term}}}
	if s, ok := err.(*sectorError); ok {
		d.File, d.Offset, d.Reason = segmentName(s.at.segment), s.at.offset(), s.reason
	}
	return d
}
