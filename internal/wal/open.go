package wal

import (
	"fmt"
	"slices"
)

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
	d := &directory{fs: l.o.FS, dir: l.o.Dir, cluster: l.o.ClusterID, server: l.o.ServerID}
	err = d.open()
	l.files.open = d.segments
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	for _, name := range d.temporary {
		if err := l.o.FS.Remove(l.path(name)); err != nil {
			return fmt.Errorf("wal: remove what a crash left: %w", err)
		}
	}
	j, err := d.judge()
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	l.groups.m, l.findings, l.doubt = j.groups, j.findings, j.rest
	return l.resume(j, d.numbers)
}

// resume makes the writer ready to go on behind the tail.
func (l *Log) resume(j *judge, numbers []uint64) error {
	w, t := &l.w, &j.tail
	w.seq, w.chain, w.rowsSeq = t.seq, t.chain, t.rowsSeq
	for i := range t.rows {
		w.rows = t.rows[i].append(w.rows, t.rowsSeq)
	}
	w.firstSegment = j.firstSegment
	w.footer = j.footer
	for _, it := range t.clear {
		if err := l.wipe(it); err != nil {
			return err
		}
	}
	if err := l.resumeAt(t, numbers); err != nil {
		return err
	}
	w.durable = place{w.active.number, w.next}
	l.noteSynced()
	for _, s := range l.files.open { // order: each for itself
		s.sealed = s.number < w.active.number && !slices.ContainsFunc(j.unsealed, func(u unsealed) bool { return u.segment == s.number })
	}
	for _, s := range j.unsealed {
		if f := l.files.open[s.segment]; f != nil && s.segment < w.active.number {
			l.seal(f, s.at.sector, s.footer)
		}
	}
	l.release(w.firstSegment)
	l.pinned.Store(w.firstSegment)
	l.look.Store(true)
	return nil
}

// resumeAt chooses the segment to go on in: the one with the last batch, or a new one if that one has
// damage where the next batch would be.
func (l *Log) resumeAt(t *tail, numbers []uint64) error {
	w := &l.w
	last := uint64(0)
	if len(numbers) > 0 {
		last = numbers[len(numbers)-1]
	}
	// Segments behind the tail hold nothing: one was made ahead, or its only batch was cut.
	for n := t.at.segment + 1; n <= last && t.at.segment > 0 && !t.damaged; n++ {
		s := l.files.open[n]
		delete(l.files.open, n)
		if n == t.at.segment+1 {
			l.files.spare = s
			continue
		}
		_ = s.f.Close()
		if err := l.removeSegment(n); err != nil {
			return err
		}
	}
	if s := l.files.open[t.at.segment]; s != nil && !t.damaged {
		w.start(s, t.at.sector)
		return nil
	}
	s, err := l.createSegment(last+1, l.segmentSize(0))
	if err != nil {
		return err
	}
	l.files.open[s.number] = s
	w.start(s, 1)
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
	if l.files.spare != nil {
		_ = l.files.spare.f.Close()
	}
	for _, s := range l.files.open { // order: closing has no effect on the others
		_ = s.f.Close()
	}
	clear(l.files.open)
	if l.lock != nil {
		_ = l.lock.Close()
		l.lock = nil
	}
}
