package wal

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options says where the log is and whose it is.
type Options struct {
	FS  vfs.FS
	Dir string

	// SegmentBytes is the size that segments grow to, 16 MiB if zero. The first ones of a new
	// log are smaller, so that a server that is hardly used takes little space.
	SegmentBytes int64

	// ServerID and ClusterID are the identity that all files carry. A directory of another
	// server is refused.
	ServerID, ClusterID uint64

	// CacheBytes bounds the payloads kept in memory for Entries, 64 MiB if zero. Entries on
	// their way to the disk are kept on top of it.
	CacheBytes int64

	// BatchBytes bounds the payloads that one sync covers, 4 MiB if zero. One submission is
	// never split.
	BatchBytes int64

	// OnError is called once, when a write or a sync failed: nothing is written any more and
	// the server must stop. It must not block.
	OnError func(error)

	// Stepped leaves the writing to the owner's calls of Step, for simulation: no goroutine
	// is started.
	Stepped bool
}

func (o *Options) setDefaults() {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 16 << 20
	}
	o.SegmentBytes = max(o.SegmentBytes, segmentBytesMin) / sectorSize * sectorSize
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 4 << 20
	}
}

// Log is the open log of one server. All methods may be called from any goroutine.
//
// Submit applies an update to memory and puts it in the queue; the writer takes the whole queue,
// writes it as one batch, syncs, and runs the callbacks. Lock order: queue before groups' table
// before one group; none is held during I/O or a callback.
type Log struct {
	o    Options
	lock io.Closer

	groups struct {
		sync.RWMutex
		m map[GroupID]*group
	}
	queue  queue
	files  segmentFiles
	keeper keeper
	w      writer

	findings []Finding
	doubt    *DamageError // of groups that are not known
	scrubs   scrubbing    // whoever calls Scrub owns it

	// See reclaim.go. pins counts the groups that need segment pinned, the oldest one; look is set
	// when none does any more.
	pinned atomic.Uint64
	pins   atomic.Int64
	look   atomic.Bool

	wake    chan struct{}
	stopped chan struct{}
	clock   clock
}

// queue is what is submitted and not yet taken by the writer.
type queue struct {
	sync.Mutex
	ops     []op
	subs    []submission
	base    int // what submission.ops counts from
	closed  bool
	err     error // nothing is accepted any more
	evict   []cached
	evicted int // entries of evict that are done
	bytes   int64
}

// submission is the ops up to ops, and whom to tell.
type submission struct {
	ops   int
	bytes int64
	done  func(error)

	firstSegment uint64 // if not 0: once this is written, segments below are not needed
}

// cached remembers in which order entries came into memory.
type cached struct {
	g     *group
	index uint64
	bytes int64
}

// Open reads the log in o.Dir, judges what it finds, and starts the writer. It fails if the
// directory cannot be used at all; what happened to single groups is in their State.
func Open(o Options) (*Log, error) {
	o.setDefaults()
	l := &Log{o: o, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	l.groups.m = make(map[GroupID]*group)
	l.w.l = l
	l.files.made.L = &l.files
	l.keeper.work.L = &l.keeper
	l.keeper.stopped = make(chan struct{})
	if err := l.open(); err != nil {
		l.closeFiles()
		return nil, err
	}
	if o.Stepped {
		close(l.stopped)
	} else {
		l.start()
	}
	return l, nil
}

// Groups lists the groups with a log, sorted.
func (l *Log) Groups() []GroupID {
	l.groups.RLock()
	defer l.groups.RUnlock()
	ids := make([]GroupID, 0, len(l.groups.m))
	for id := range l.groups.m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// State returns what the log holds of g. If ok is false it holds nothing; if then Damage is set, it
// cannot say whether it once did.
func (l *Log) State(g GroupID) (s State, ok bool) {
	if gr := l.group(g); gr != nil {
		return gr.state(), true
	}
	if l.doubt != nil {
		d := *l.doubt
		d.Group = g
		s.Damage = &d
	}
	s.First = 1
	return s, false
}

// Term returns the term of the entry at index, or of the snapshot if index lies right before the
// first entry.
func (l *Log) Term(g GroupID, index uint64) (uint64, error) {
	gr := l.group(g)
	if gr == nil {
		return 0, ErrUnavailable
	}
	gr.mu.Lock()
	defer gr.mu.Unlock()
	switch {
	case index < gr.start.Index:
		return 0, ErrCompacted
	case index > gr.last:
		return 0, ErrUnavailable
	}
	return gr.termLocked(index), nil
}

func (l *Log) group(id GroupID) *group {
	l.groups.RLock()
	defer l.groups.RUnlock()
	return l.groups.m[id]
}

// Submit applies the updates to memory at once and makes them durable, all of them or none,
// before done runs. It takes ownership of the entries and payloads, not of the slice of updates. done
// is called in the order of the submissions, by the writer; it must not block. It may be nil.
//
// After an error nothing of this or a later submission may be counted on: the server stops.
func (l *Log) Submit(updates []Update, done func(error)) {
	q := &l.queue
	q.Lock()
	if q.err != nil || q.closed {
		err := q.err
		q.Unlock()
		if err == nil {
			err = ErrClosed
		}
		if done != nil {
			done(err)
		}
		return
	}
	s := submission{done: done}
	for i := range updates {
		u := &updates[i]
		if g := l.forUpdate(u); g != nil {
			q.ops = l.apply(g, u, q.ops)
			s.bytes += l.keepCached(g, u.Entries)
		}
	}
	s.ops = q.base + len(q.ops)
	q.bytes += s.bytes
	q.subs = append(q.subs, s)
	l.trimCache()
	q.Unlock()
	l.signal()
}

// forUpdate returns the group that u is about: a new one if need be, nil if it removes what is not
// there.
func (l *Log) forUpdate(u *Update) *group {
	l.groups.Lock()
	defer l.groups.Unlock()
	g := l.groups.m[u.Group]
	switch {
	case u.Remove:
		delete(l.groups.m, u.Group)
	case g == nil:
		g = &group{id: u.Group}
		l.groups.m[u.Group] = g
	}
	return g
}

// keepCached enters entries into the order of eviction and returns their size.
func (l *Log) keepCached(g *group, entries []Entry) (bytes int64) {
	if len(entries) == 0 {
		return 0
	}
	for i := range entries {
		bytes += int64(len(entries[i].Data)) + entryOverhead
	}
	l.queue.evict = append(l.queue.evict, cached{g, entries[len(entries)-1].Index, bytes})
	return bytes
}

// entryOverhead is about what an entry costs in memory besides its payload.
const entryOverhead = 64

// trimCache forgets the oldest cached entries that are on disk, down to the bound.
func (l *Log) trimCache() {
	q := &l.queue
	for q.bytes > l.o.CacheBytes && q.evicted < len(q.evict) {
		c := &q.evict[q.evicted]
		if !c.g.evict(c.index) {
			break
		}
		q.bytes -= c.bytes
		*c = cached{}
		q.evicted++
	}
	if q.evicted > 1024 && q.evicted > len(q.evict)/2 {
		n := copy(q.evict, q.evict[q.evicted:])
		clear(q.evict[n:])
		q.evict, q.evicted = q.evict[:n], 0
	}
}

// Err is the error that stopped the log, nil while it works.
func (l *Log) Err() error {
	l.queue.Lock()
	defer l.queue.Unlock()
	return l.queue.err
}

// Close writes what is submitted, stops the writer and closes the files. If the disk has no room
// for it, what is submitted fails.
func (l *Log) Close() error {
	l.queue.Lock()
	if l.queue.closed {
		l.queue.Unlock()
		return ErrClosed
	}
	l.queue.closed = true
	l.queue.Unlock()
	l.flush()
	if l.o.Stepped {
		for l.Step() {
		}
	} else {
		l.signal()
		<-l.stopped
	}
	l.stopKeeper()
	l.closeFiles()
	return l.Err()
}

// fail stops the log for good and tells the owner once.
func (l *Log) fail(err error) error {
	l.queue.Lock()
	first := l.queue.err == nil
	if first {
		l.queue.err = fmt.Errorf("wal: stopped: %w", err)
	}
	err = l.queue.err
	l.queue.Unlock()
	if first && l.o.OnError != nil {
		l.o.OnError(err)
	}
	return err
}

// Findings lists what was found on the disk, when the log was opened, that is not as it was written;
// also what harms no group.
func (l *Log) Findings() []Finding { return l.findings }
