package wal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestWALConcurrent has owners append, compact and replace tails, readers read anything, segments roll and
// go, and idle groups be moved, all at once.
func TestWALConcurrent(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs, func(o *Options) { o.Stepped = false; o.CacheBytes = 4000; o.SegmentBytes = 16 << 10 })
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	const groups, rounds = 6, 400
	var stop atomic.Bool
	var readers, owners sync.WaitGroup
	for g := GroupID(1); g <= groups; g++ {
		readers.Go(func() { readAnything(t, l, g, &stop) })
		owners.Go(func() {
			n := rounds
			if g == groups {
				n = 5 // Falls idle.
			}
			r := rand.New(rand.NewPCG(uint64(g), 1))
			last, start := uint64(0), uint64(0)
			var writes sync.WaitGroup
			for range n {
				next := last + 1 + r.Uint64N(4)
				writes.Add(1)
				l.Submit([]Update{{Group: g, Entries: entries(g, last+1, next+1, 1, 200)}}, func(err error) {
					if err != nil {
						t.Errorf("group %d: %v", g, err)
					}
					writes.Done()
				})
				last = next
				if r.IntN(5) == 0 {
					writes.Wait()
				}
				if last > start+20 {
					start = last - 10
					l.Submit([]Update{{Group: g, Compact: Position{start, 1}}}, nil)
				}
				if r.IntN(7) == 0 && last > start+3 {
					// The tail again, as a new leader would send it.
					l.Submit([]Update{{Group: g, Entries: entries(g, last-1, last+1, 1, 200)}}, nil)
				}
			}
			writes.Wait()
		})
	}
	owners.Wait()
	stop.Store(true)
	readers.Wait()
	// An owner that got no time to compact held segments back by itself. Now all but the idle group
	// go on and compact, one write at a time: the idle one alone must not hold back many.
	var pinned uint64
	for range 500 {
		for g := GroupID(1); g < groups; g++ {
			s, _ := l.State(g)
			written := make(chan error, 1)
			l.Submit([]Update{{Group: g, Entries: entries(g, s.Last+1, s.Last+4, 1, 200), Compact: Position{s.Last, 1}}}, func(err error) { written <- err })
			if err := <-written; err != nil {
				t.Fatal(err)
			}
		}
		if pinned = l.w.active.number - l.w.firstSegment; pinned <= segmentsPinned+2 {
			break
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if pinned > segmentsPinned+2 {
		t.Errorf("%d segments are held back", pinned)
	}
	l = testLog(t, fs, func(o *Options) { o.SegmentBytes = 16 << 10 })
	for g := GroupID(1); g <= groups; g++ {
		s, _ := l.State(g)
		wantEntries(t, l, g, entries(g, s.First, s.Last+1, 1, 200))
	}
	if len(l.Findings()) > 0 {
		t.Error(l.Findings())
	}
}

// readAnything reads random entries of g and checks them.
func readAnything(t *testing.T, l *Log, g GroupID, stop *atomic.Bool) {
	r := rand.New(rand.NewPCG(uint64(g), 2))
	var buf []Entry
	for !stop.Load() {
		s, ok := l.State(g)
		if !ok || s.First > s.Last {
			continue
		}
		lo := s.First + r.Uint64N(s.Last-s.First+1)
		var err error
		buf, err = l.Entries(buf[:0], g, lo, min(lo+1+r.Uint64N(8), s.Last+1), 1000)
		if errors.Is(err, ErrCompacted) || errors.Is(err, ErrUnavailable) {
			continue
		}
		if err != nil {
			t.Errorf("group %d at %d: %v", g, lo, err)
			return
		}
		if len(buf) == 0 {
			t.Errorf("group %d at %d: nothing", g, lo)
			return
		}
		for _, e := range buf {
			if !bytes.Equal(e.Data, payload(g, e.Index, 1, 200)) {
				t.Errorf("group %d: entry %d differs", g, e.Index)
				return
			}
		}
	}
}
