package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// open reads the directory, judges it, and makes the writer ready.
func (l *Log) open() error {
	if err := makeDir(l.o.FS, l.o.Dir); err != nil {
		return fmt.Errorf("wal: create %s: %w", l.o.Dir, err)
	}
	lock, err := l.o.FS.Lock(l.path("LOCK"))
	if err != nil {
		return fmt.Errorf("wal: lock %s: %w", l.o.Dir, err)
	}
	l.lock = lock
	l.files.open = make(map[uint64]*segment)
	numbers, err := l.list()
	if err != nil {
		return err
	}
	j := &judge{groups: l.groups.m}
	for _, n := range numbers {
		if err := l.scan(j, n); err != nil {
			return fmt.Errorf("wal: %w", err)
		}
	}
	t := j.finish()
	l.doubt = j.doubts()
	for _, g := range l.groups.m {
		j.complete(g)
	}
	l.findings = j.findings
	return l.resume(j, &t, numbers)
}

// list returns the numbers of the segments, in order, and removes leftovers of a crash.
func (l *Log) list() ([]uint64, error) {
	names, err := l.o.FS.List(l.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("wal: list %s: %w", l.o.Dir, err)
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := parseName(name, segmentSuffix); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// scan reads one segment into the judge.
func (l *Log) scan(j *judge, number uint64) error {
	s, err := l.openSegment(number)
	if err != nil {
		return err
	}
	l.files.open[number] = s
	sc := &scanner{f: s.f, stamp: s.stamp, seg: number, end: s.end()}
	for at := uint32(1); at < sc.end; {
		it, err := sc.next(at)
		if err != nil {
			return err
		}
		j.add(it)
		at += it.sectors
	}
	return nil
}

// openSegment opens a segment that is there and checks whose it is.
func (l *Log) openSegment(number uint64) (*segment, error) {
	name := l.path(segmentName(number))
	f, err := l.o.FS.OpenReadWrite(name, writeCategory)
	if err != nil {
		return nil, err
	}
	s := &segment{number: number, f: f, stamp: newStamper(l.o.ServerID, number)}
	var b [sectorSize]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return nil, err
	}
	h, version, ok := decodeSegmentHeader(b[:])
	switch {
	case !ok:
		return nil, fmt.Errorf("segment %s has no header", name)
	case version != segmentVersion:
		return nil, fmt.Errorf("segment %s has format %d, this program reads %d", name, version, segmentVersion)
	case h.server != l.o.ServerID || h.cluster != l.o.ClusterID:
		return nil, fmt.Errorf("segment %s belongs to server %x of cluster %x", name, h.server, h.cluster)
	}
	s.size = h.size
	return s, nil
}

// resume makes the writer ready to go on behind the tail.
func (l *Log) resume(j *judge, t *tail, numbers []uint64) error {
	w := &l.w
	w.seq, w.chain, w.rowsSeq = t.seq, t.chain, t.rowsSeq
	if t.skip {
		w.seq++
	}
	for i := range t.rows {
		w.rows = t.rows[i].append(w.rows, t.rowsSeq)
	}
	w.firstSegment = j.firstSegment
	for _, it := range t.clear {
		if err := l.wipe(it); err != nil {
			return err
		}
	}
	if len(numbers) == 0 {
		s, err := l.createSegment(1, min(segmentBytesFirst, l.o.SegmentBytes))
		if err != nil {
			return err
		}
		l.files.open[1] = s
		w.active, w.next = s, 1
		w.firstSegment = 1
		w.durable = place{1, 1}
		return nil
	}
	if t.at.segment == 0 {
		t.at = place{numbers[len(numbers)-1], 1}
	}
	w.active, w.next = l.files.open[t.at.segment], t.at.sector
	if t.damaged {
		w.next = w.active.end()
	}
	w.durable = t.at
	return nil
}

// wipe overwrites a torn tail with zeros, so that none of its sectors is ever taken for part of a
// later batch.
func (l *Log) wipe(it *item) error {
	s := l.files.open[it.at.segment]
	name := segmentName(it.at.segment)
	zeros := make([]byte, min(int(it.sectors)*sectorSize, zeroChunk))
	for at, end := it.at.offset(), it.next().offset(); at < end; at += int64(len(zeros)) {
		if _, err := s.f.WriteAt(zeros[:min(int64(len(zeros)), end-at)], at); err != nil {
			return fmt.Errorf("wal: cut %s at %d: %w", name, at, err)
		}
	}
	if err := s.f.SyncData(); err != nil {
		return fmt.Errorf("wal: cut %s: %w", name, err)
	}
	return nil
}

// closeFiles releases what open took.
func (l *Log) closeFiles() {
	l.files.Lock()
	defer l.files.Unlock()
	for _, s := range l.files.open {
		_ = s.f.Close()
	}
	clear(l.files.open)
	if l.lock != nil {
		_ = l.lock.Close()
		l.lock = nil
	}
}
