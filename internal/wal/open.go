package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
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
	names, err := l.o.FS.List(l.o.Dir)
	if err != nil {
		return fmt.Errorf("wal: list %s: %w", l.o.Dir, err)
	}
	numbers, err := l.clean(names)
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	if err := l.openSegments(numbers); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	j, err := l.read(numbers, 0)
	if err == nil && len(numbers) > 0 && j.firstSegment != numbers[0] {
		// The log itself says where it begins: behind what a crash kept from being deleted, or
		// in a segment that is not there.
		j, err = l.read(numbers, j.firstSegment)
	}
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	l.groups.m, l.findings, l.doubt = j.groups, j.findings, j.rest
	return l.resume(j, numbers)
}

// clean returns the numbers of the segments, in order, and removes files that a crash left half made.
// A segment of which only an index file tells is among them: behind a segment with an index there is
// always another one.
func (l *Log) clean(names []string) ([]uint64, error) {
	var numbers, indexes []uint64
	for _, name := range names {
		if n, ok := parseName(name, segmentSuffix); ok {
			numbers = append(numbers, n)
		}
		if n, ok := parseName(name, indexSuffix); ok {
			indexes = append(indexes, n)
		}
		if strings.HasSuffix(name, temporarySuffix) {
			if err := l.o.FS.Remove(l.path(name)); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(numbers)
	slices.Sort(indexes)
	if n := len(indexes); n > 0 {
		if len(numbers) == 0 {
			numbers = append(numbers, indexes[0])
		}
		if next := indexes[n-1] + 1; numbers[len(numbers)-1] < next {
			numbers = append(numbers, next)
		}
	}
	return numbers, nil
}

// openSegments opens the files. One whose headers are gone is left out: it is damaged as a whole.
func (l *Log) openSegments(numbers []uint64) error {
	l.files.open = make(map[uint64]*segment)
	for _, n := range numbers {
		s, err := l.openSegment(n)
		if err != nil {
			return err
		}
		if s != nil {
			l.files.open[n] = s
		}
	}
	return nil
}

// openSegment opens a segment and checks whose it is. It returns nil if neither header can be read.
func (l *Log) openSegment(number uint64) (*segment, error) {
	name := l.path(segmentName(number))
	if _, err := l.o.FS.Stat(name); isNotExist(err) {
		return nil, nil
	}
	f, err := l.o.FS.OpenReadWrite(name, writeCategory)
	if err != nil {
		return nil, err
	}
	h, version, ok := readSegmentHeader(f)
	switch {
	case !ok || version == segmentVersion && h.number != number:
		return nil, f.Close()
	case version != segmentVersion:
		err = fmt.Errorf("segment %s has format %d, this program reads %d", name, version, segmentVersion)
	case h.server != l.o.ServerID || h.cluster != l.o.ClusterID:
		err = fmt.Errorf("segment %s belongs to server %x of cluster %x, this is server %x of cluster %x",
			name, h.server, h.cluster, l.o.ServerID, l.o.ClusterID)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &segment{number: number, size: h.size, f: f, stamp: newStamper(l.o.ServerID, number)}, nil
}

// readSegmentHeader reads the header at the start of a segment, or else the copy at its end.
func readSegmentHeader(f vfs.File) (h segmentHeader, version uint32, ok bool) {
	var b [sectorSize]byte
	if _, err := f.ReadAt(b[:], 0); err == nil {
		if h, version, ok = decodeSegmentHeader(b[:]); ok {
			return h, version, true
		}
	}
	info, err := f.Stat()
	if err != nil || info.Size() < sectorSize {
		return h, 0, false
	}
	if _, err := f.ReadAt(b[:], info.Size()-sectorSize); err != nil {
		return h, 0, false
	}
	h, version, ok = decodeSegmentHeader(b[:])
	return h, version, ok && (version != segmentVersion || h.size == info.Size())
}

// read judges the segments from number first on; first is 0 if the log begins with the first file.
func (l *Log) read(numbers []uint64, first uint64) (*judge, error) {
	j := newJudge()
	next := first
	for _, n := range numbers {
		if n < first {
			continue
		}
		// Of a long stretch of missing segments, the first ones stand for all.
		for missing := 0; next > 0 && next < n && missing < missingMax; missing++ {
			if err := l.scan(j, next); err != nil {
				return nil, err
			}
			next++
		}
		if err := l.scan(j, n); err != nil {
			return nil, err
		}
		next = n + 1
	}
	j.finish()
	return j, nil
}

const missingMax = 1000

// scan reads one segment into the judge.
func (l *Log) scan(j *judge, number uint64) error {
	index, exists := readIndex(l.o.FS, l.path(indexName(number)), l.o.ServerID, number)
	if exists && index == nil {
		j.findings = append(j.findings, Finding{indexName(number), 0, "index of a segment damaged"})
	}
	s := l.files.open[number]
	if s == nil {
		it := &item{kind: itemGone, at: place{number, 0}}
		if index != nil {
			it.head, it.footer, it.chain = index.head, index.footer, index.head.previousChain
		}
		j.add(it)
		return nil
	}
	sc := &scanner{f: s.f, stamp: s.stamp, seg: number, end: s.end() + 1}
	for _, at := range []uint32{0, s.end()} {
		if sc.ensure(at, 1); sc.state(at) != sectorBody {
			j.find(place{number, at}, "header damaged, the other copy is used")
		}
	}
	sc.end = s.end()
	for at := uint32(1); at < sc.end; {
		it, err := sc.next(at)
		if err != nil {
			return err
		}
		j.add(it)
		at += it.sectors
	}
	j.endSegment(number, index != nil)
	return nil
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
