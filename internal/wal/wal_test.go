package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// testLog opens a stepped log with small segments.
func testLog(t testing.TB, fs vfs.FS, change ...func(*Options)) *Log {
	t.Helper()
	l, err := Open(testOptions(fs, change...))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func testOptions(fs vfs.FS, change ...func(*Options)) Options {
	o := Options{FS: fs, Dir: "data/wal", SegmentBytes: 64 << 10, ServerID: 7, ClusterID: 9, Stepped: true}
	for _, f := range change {
		f(&o)
	}
	return o
}

// put submits one update and steps until it is written.
func put(t testing.TB, l *Log, updates ...Update) {
	t.Helper()
	called := false
	l.Submit(updates, func(err error) {
		called = true
		if err != nil {
			t.Fatalf("write: %v", err)
		}
	})
	for l.Step() {
	}
	if !called {
		t.Fatal("callback not called")
	}
}

// entries makes entries [lo, hi) with payloads that follow from group, index and term.
func entries(g GroupID, lo, hi, term uint64, size int) []Entry {
	var es []Entry
	for i := lo; i < hi; i++ {
		es = append(es, Entry{Index: i, Term: term, Type: uint8(i % 3), Data: payload(g, i, term, size)})
	}
	return es
}

func payload(g GroupID, index, term uint64, size int) []byte {
	b := fmt.Appendf(nil, "%d/%d/%d/", g, index, term)
	r := rand.New(rand.NewPCG(index, term))
	for len(b) < size {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// wantEntries checks that the log returns exactly these entries from the first one on.
func wantEntries(t testing.TB, l *Log, g GroupID, want []Entry) {
	t.Helper()
	lo := want[0].Index
	hi := lo + uint64(len(want))
	got, err := l.Entries(nil, g, lo, hi, 1<<40)
	if err != nil {
		t.Fatalf("group %d entries [%d, %d): %v", g, lo, hi, err)
	}
	if len(got) != len(want) {
		t.Fatalf("group %d: %d entries, want %d", g, len(got), len(want))
	}
	for i := range want {
		w, e := want[i], got[i]
		if e.Index != w.Index || e.Term != w.Term || e.Type != w.Type || !bytes.Equal(e.Data, w.Data) || e.Hash != HashData(w.Data) {
			t.Fatalf("group %d entry %d differs: %+v, want %+v", g, w.Index, e, w)
		}
		term, err := l.Term(g, w.Index)
		if err != nil || term != w.Term {
			t.Fatalf("group %d term of %d: %d, %v", g, w.Index, term, err)
		}
	}
}

func TestWALRoundTrip(t *testing.T) {
	fs := vfs.NewMem()
	l := testLog(t, fs)
	put(t, l, Update{Group: 3, Reset: &Position{10, 1}, Hard: &HardState{1, 5, 10}})
	put(t, l, Update{Group: 3, Entries: entries(3, 11, 20, 1, 200)},
		Update{Group: 1, Entries: append(entries(1, 1, 5, 1, 0), entries(1, 5, 9, 2, 3000)...), Hard: &HardState{2, 1, 3}})
	put(t, l, Update{Group: 3, Entries: entries(3, 15, 18, 4, 10), Hard: &HardState{4, 5, 12}})
	put(t, l, Update{Group: 3, Compact: Position{12, 1}})
	check := func() {
		t.Helper()
		if g := l.Groups(); len(g) != 2 || g[0] != 1 || g[1] != 3 {
			t.Fatalf("groups %v", g)
		}
		s, ok := l.State(1)
		if want := (State{Hard: HardState{2, 1, 3}, First: 1, Last: 8}); !ok || s != want {
			t.Fatalf("state %+v, want %+v", s, want)
		}
		wantEntries(t, l, 1, append(entries(1, 1, 5, 1, 0), entries(1, 5, 9, 2, 3000)...))
		wantEntries(t, l, 3, append(entries(3, 13, 15, 1, 200), entries(3, 15, 18, 4, 10)...))
		if term, err := l.Term(3, 12); term != 1 || err != nil {
			t.Fatalf("term before first: %d, %v", term, err)
		}
		if _, err := l.Term(3, 11); !errors.Is(err, ErrCompacted) {
			t.Fatalf("compacted: %v", err)
		}
		if _, err := l.Entries(nil, 3, 12, 13, 1); !errors.Is(err, ErrCompacted) {
			t.Fatalf("compacted: %v", err)
		}
		if _, err := l.Entries(nil, 3, 17, 19, 1); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("unavailable: %v", err)
		}
		if _, err := l.Term(2, 1); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("unknown group: %v", err)
		}
		es, err := l.Entries(nil, 1, 5, 9, 3500)
		if err != nil || len(es) != 1 {
			t.Fatalf("bounded read: %d, %v", len(es), err)
		}
		es, err = l.Entries(nil, 1, 5, 9, 6000)
		if err != nil || len(es) != 2 {
			t.Fatalf("bounded read: %d, %v", len(es), err)
		}
	}
	check()
	// What was compacted without a sync is told to the disk with the group's next update.
	put(t, l, Update{Group: 3, Hard: &HardState{5, 5, 17}})
	for range 3 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = testLog(t, fs)
		check()
		if len(l.findings) > 0 {
			t.Fatal(l.findings)
		}
		put(t, l, Update{Group: 2, Hard: &HardState{Term: 1}}, Update{Group: 2, Remove: true})
	}
}

func TestWALGroupCommitOrder(t *testing.T) {
	fs := vfs.NewMem()
	l := testLog(t, fs, func(o *Options) { o.Stepped = false })
	const groups, each = 20, 200
	var wg sync.WaitGroup
	for g := GroupID(1); g <= groups; g++ {
		wg.Go(func() {
			var mu sync.Mutex
			var order []uint64
			all := make(chan struct{})
			for i := uint64(1); i <= each; i++ {
				l.Submit([]Update{{Group: g, Entries: entries(g, i, i+1, 1, 100)}}, func(err error) {
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Errorf("write: %v", err)
					}
					if order = append(order, i); len(order) == each {
						close(all)
					}
				})
				if s, _ := l.State(g); s.Last != i {
					t.Errorf("group %d: last is %d right after submitting %d", g, s.Last, i)
				}
			}
			<-all
			for i, n := range order {
				if n != uint64(i+1) {
					t.Errorf("group %d: completion %d is of entry %d", g, i, n)
				}
			}
		})
	}
	wg.Wait()
	if l.w.seq >= groups*each {
		t.Errorf("%d batches for %d updates: nothing was grouped", l.w.seq, groups*each)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = testLog(t, fs)
	for g := GroupID(1); g <= groups; g++ {
		wantEntries(t, l, g, entries(g, 1, each+1, 1, 100))
	}
}
