package wal

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// keeper does what the writer must not wait for: it makes the next segment, seals the last one and
// deletes old ones. Jobs run one at a time, in order, on one goroutine; in a stepped log at the end of
// the step that asked for them.
type keeper struct {
	sync.Mutex
	work    sync.Cond // there are jobs, or closed is set
	jobs    []func() error
	closed  bool
	stopped chan struct{}
}

// later hands a job to the keeper. A job that fails stops the log.
func (l *Log) later(job func() error) {
	k := &l.keeper
	k.Lock()
	k.jobs = append(k.jobs, job)
	k.work.Signal()
	k.Unlock()
}

func (l *Log) runJobs(jobs []func() error) {
	for _, job := range jobs {
		if l.Err() != nil {
			return // Nothing is written any more.
		}
		if err := job(); err != nil {
			_ = l.fail(err)
		}
	}
}

// runPending runs the jobs of a stepped log.
func (l *Log) runPending() {
	for len(l.keeper.jobs) > 0 {
		jobs := l.keeper.jobs
		l.keeper.jobs = nil
		l.runJobs(jobs)
	}
}

func (l *Log) stopKeeper() {
	if l.o.Stepped {
		l.runPending()
		return
	}
	l.keeper.Lock()
	l.keeper.closed = true
	l.keeper.work.Signal()
	l.keeper.Unlock()
	<-l.keeper.stopped
}

// segmentSize is the size of the segment that follows one of size previous.
func (l *Log) segmentSize(previous int64) int64 {
	most := l.o.SegmentBytes
	if du, err := l.o.FS.GetDiskUsage(l.o.Dir); err == nil {
		most = min(most, max(int64(du.TotalBytes/segmentShare), segmentBytesLeast))
	}
	return min(most, max(2*previous, segmentBytesFirst)) / sectorSize * sectorSize
}

// createFitting creates a segment of that size, or on a disk without room for it of the largest
// half, quarter and so on that fits, but not below least.
func (l *Log) createFitting(number uint64, size, least int64) (*segment, error) {
	for {
		s, err := l.createSegment(number, size)
		if half := size / 2 / sectorSize * sectorSize; vfs.IsNoSpaceError(err) && half >= least {
			size = half
			continue
		}
		return s, err
	}
}

// prepare makes the segment that follows s, unless one is ready or being made.
func (l *Log) prepare(s *segment) {
	f := &l.files
	f.Lock()
	defer f.Unlock()
	if f.spare == nil && !f.making {
		l.make(s.number+1, s.size)
	}
}

// make has the keeper make a segment to follow one of size previous. Lack of space is not an error yet:
// the writer still has the rest of its segment, see NoSpace. The caller holds l.files.
func (l *Log) make(number uint64, previous int64) {
	f := &l.files
	f.making = true
	l.later(func() error {
		spare, err := l.createFitting(number, l.segmentSize(previous), segmentBytesLeast)
		f.Lock()
		defer f.Unlock()
		f.making = false
		f.made.Broadcast()
		if f.full = vfs.IsNoSpaceError(err); f.full {
			f.missing, f.previous = number, previous
			return nil
		}
		f.spare = spare
		return err
	})
}

// NoSpace tells whether the disk had no room for the next segment. The log still takes updates, up to
// the end of the segment that it has; the owner should refuse new work and let logs be compacted. Once
// that segment is full, updates wait until there is room.
func (l *Log) NoSpace() bool {
	l.files.Lock()
	defer l.files.Unlock()
	return l.files.full
}

// LookForSpace has the log try again, if NoSpace. Nothing else does while no updates come.
func (l *Log) LookForSpace() {
	f := &l.files
	f.Lock()
	defer f.Unlock()
	if f.full && !f.making {
		l.make(f.missing, f.previous)
	}
}

// successor returns a new segment behind s with room for a batch of this many sectors.
func (l *Log) successor(s *segment, sectors int) (*segment, error) {
	f := &l.files
	f.Lock()
	if l.o.Stepped {
		f.Unlock()
		l.runPending()
		f.Lock()
	}
	for f.making {
		f.made.Wait()
	}
	spare := f.spare
	f.spare = nil
	f.Unlock()
	if spare != nil && int(spare.end())-1 >= sectors {
		return spare, nil
	}
	if spare != nil {
		_ = spare.f.Close()
		if err := l.o.FS.Remove(l.path(segmentName(spare.number))); err != nil {
			return nil, err
		}
	}
	least := int64(sectors+2) * sectorSize
	spare, err := l.createFitting(s.number+1, max(l.segmentSize(s.size), least), max(least, segmentBytesLeast))
	f.Lock()
	f.full, f.missing, f.previous = vfs.IsNoSpaceError(err), s.number+1, s.size
	f.Unlock()
	return spare, err
}

// seal writes the footer of a full segment and its index file.
func (l *Log) seal(s *segment, at uint32, footer []byte) {
	l.later(func() error {
		if l.released(s) {
			return nil
		}
		s.stamp.seal(footer, at, true)
		if _, err := s.f.WriteAt(footer, int64(at)*sectorSize); err != nil {
			return fmt.Errorf("seal %s: %w", segmentName(s.number), err)
		}
		if err := s.f.SyncData(); err != nil {
			return fmt.Errorf("seal %s: %w", segmentName(s.number), err)
		}
		l.files.Lock()
		s.sealed = true
		l.files.Unlock()
		// The index is a second chance for the day when the segment is gone; a full disk is
		// no reason to stop for it.
		if err := l.writeIndex(s.number, footer); err != nil && !vfs.IsNoSpaceError(err) {
			return err
		}
		return nil
	})
}

func (l *Log) released(s *segment) bool {
	l.files.Lock()
	defer l.files.Unlock()
	return l.files.open[s.number] != s
}

// release deletes the segments below first. A batch on disk says that they are not needed.
func (l *Log) release(first uint64) {
	l.later(func() error {
		for _, n := range l.files.takeBelow(first) {
			if err := l.removeSegment(n); err != nil {
				return err
			}
		}
		l.files.Lock()
		full := l.files.full
		l.files.Unlock()
		if full {
			l.signal() // The writer may be waiting for room.
		}
		return nil
	})
}

// removeSegment deletes a segment and its index, oldest knowledge last: a segment without an
// index is fine, an index without a segment below the first needed one as well.
func (l *Log) removeSegment(number uint64) error {
	for _, name := range []string{segmentName(number), indexName(number)} {
		if err := l.o.FS.Remove(l.path(name)); err != nil && !isNotExist(err) {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	return nil
}
