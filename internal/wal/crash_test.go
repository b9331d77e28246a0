package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/sim/simfs"
)

// reference is what the log should hold: the state after each update, per group. A crash may lose
// updates from the end, but none that was acknowledged.
type reference struct {
	history map[GroupID][]refState // state 0 is: not there
	acked   map[GroupID]int        // the newest state that must survive
}

// refState is one group's log.
type refState struct {
	exists  bool
	hard    HardState
	start   Position
	entries []Entry
}

func newReference() *reference {
	return &reference{history: map[GroupID][]refState{}, acked: map[GroupID]int{}}
}

func (r *reference) now(g GroupID) refState {
	if h := r.history[g]; len(h) > 0 {
		return h[len(h)-1]
	}
	return refState{}
}

// submit applies the update to the reference and gives it to the log; the callback acknowledges.
func (r *reference) submit(t testing.TB, l *Log, updates ...Update) {
	type mark struct {
		g GroupID
		n int
	}
	var marks []mark
	for _, u := range updates {
		s := r.now(u.Group)
		s.exists = true
		if u.Reset != nil {
			s.start, s.entries = *u.Reset, nil
		}
		if u.Hard != nil {
			s.hard = *u.Hard
		}
		if len(u.Entries) > 0 {
			keep := u.Entries[0].Index - s.start.Index - 1
			s.entries = append(slices.Clone(s.entries[:keep]), u.Entries...)
		}
		if u.Compact.Index > s.start.Index {
			s.entries = slices.Clone(s.entries[u.Compact.Index-s.start.Index:])
			s.start = u.Compact
		}
		if u.Remove {
			s = refState{}
		}
		if r.history[u.Group] == nil {
			r.history[u.Group] = []refState{{}}
		}
		r.history[u.Group] = append(r.history[u.Group], s)
		marks = append(marks, mark{u.Group, len(r.history[u.Group]) - 1})
	}
	l.Submit(updates, func(err error) {
		if err != nil {
			return
		}
		for _, m := range marks {
			r.acked[m.g] = max(r.acked[m.g], m.n)
		}
	})
}

// matches tells whether a group of the log is in state s. Commit and start reach the disk late, so
// they may be those of an earlier state.
func (s *refState) matches(l *Log, g GroupID, lazy []refState) error {
	st, ok := l.State(g)
	if ok != s.exists {
		return fmt.Errorf("exists is %v, want %v", ok, s.exists)
	}
	if !ok {
		return nil
	}
	if st.Damage != nil {
		return st.Damage
	}
	if st.Hard.Term != s.hard.Term || st.Hard.Vote != s.hard.Vote {
		return fmt.Errorf("hard state %+v, want %+v", st.Hard, s.hard)
	}
	if st.Last != s.start.Index+uint64(len(s.entries)) {
		return fmt.Errorf("last is %d, want %d", st.Last, s.start.Index+uint64(len(s.entries)))
	}
	known := false
	for _, old := range lazy {
		known = known || old.hard == st.Hard && old.start == st.Snapshot
	}
	if !known {
		return fmt.Errorf("hard state %+v with start %+v never was", st.Hard, st.Snapshot)
	}
	if st.First > s.start.Index+1 {
		return fmt.Errorf("first is %d, want at most %d", st.First, s.start.Index+1)
	}
	if len(s.entries) == 0 {
		return nil
	}
	got, err := l.Entries(nil, g, s.start.Index+1, st.Last+1, 1<<40)
	if err != nil {
		return err
	}
	for i, e := range got {
		w := s.entries[i]
		if e.Index != w.Index || e.Term != w.Term || !bytes.Equal(e.Data, w.Data) {
			return fmt.Errorf("entry %d of term %d differs from that of term %d", e.Index, e.Term, w.Term)
		}
	}
	return nil
}

// check verifies that each group is in an acknowledged state or a later one, and makes that the
// present.
func (r *reference) check(l *Log) error {
	for g := GroupID(1); g <= 8; g++ {
		h := r.history[g]
		if h == nil {
			h = []refState{{}}
		}
		var why error
		found := -1
		for n := len(h) - 1; n >= r.acked[g] && found < 0; n-- {
			if err := h[n].matches(l, g, h[:n+1]); err == nil {
				found = n
			} else if why == nil || n == r.acked[g] {
				why = err
			}
		}
		if found < 0 {
			return fmt.Errorf("group %d is in none of the states %d to %d: %w", g, r.acked[g], len(h)-1, why)
		}
		r.history[g], r.acked[g] = []refState{h[found]}, 0
		// What the log holds of commit and start is the truth from now on.
		if st, ok := l.State(g); ok {
			s := &r.history[g][0]
			s.hard = st.Hard
			if st.First <= st.Last {
				all, err := l.Entries(nil, g, st.First, st.Last+1, 1<<40)
				if err != nil {
					return err
				}
				s.entries = all
			}
			s.start = st.Snapshot
		}
	}
	if len(l.Findings()) > 0 {
		return errors.New(l.Findings()[0].String())
	}
	return nil
}

// clone copies the reference, as of now.
func (r *reference) clone() *reference {
	c := newReference()
	for g, h := range r.history {
		c.history[g] = slices.Clone(h)
	}
	for g, n := range r.acked {
		c.acked[g] = n
	}
	return c
}

// randomUpdate makes an update that Raft might make.
func (r *reference) randomUpdate(rnd *rand.Rand) Update {
	g := GroupID(1 + rnd.IntN(8))
	s := r.now(g)
	u := Update{Group: g}
	last := s.start.Index + uint64(len(s.entries))
	hard := s.hard
	switch n := rnd.IntN(30); {
	case !s.exists || n == 0:
		at := Position{last + uint64(rnd.IntN(20)), hard.Term + 1}
		hard.Term++
		u.Reset, u.Hard = &at, &hard
		last = at.Index
	case n == 1 && len(r.history[g]) > 20:
		return Update{Group: g, Remove: true}
	case n < 8:
		if hard.Commit < last {
			hard.Commit++
		}
		u.Hard = &hard
		if n < 4 {
			return u
		}
		if len(s.entries) > 0 {
			to := s.entries[rnd.IntN(len(s.entries))]
			u.Compact = Position{to.Index, to.Term}
		}
		return u
	case n < 11:
		hard.Term++
		hard.Vote = rnd.Uint64N(5)
		u.Hard = &hard
	case n < 13 && len(s.entries) > 2:
		last -= 1 + rnd.Uint64N(2) // A new leader replaces the tail.
		hard.Term++
		u.Hard = &hard
	}
	if u.Hard == nil || rnd.IntN(2) == 0 {
		size := rnd.IntN(400)
		if rnd.IntN(20) == 0 {
			size = rnd.IntN(9000)
		}
		u.Entries = entries(g, last+1, last+2+rnd.Uint64N(3), max(hard.Term, 1), size)
	}
	return u
}

// work submits random updates and steps now and then. A group gets at most one update for each
// submission.
func (r *reference) work(t testing.TB, l *Log, rnd *rand.Rand, n int) {
	for range n {
		updates := []Update{r.randomUpdate(rnd)}
		if u := r.randomUpdate(rnd); u.Group != updates[0].Group {
			updates = append(updates, u)
		}
		r.submit(t, l, updates...)
		if rnd.IntN(3) == 0 {
			l.Step()
		}
	}
	for l.Step() {
	}
}

// TestWALCrashEveryWrite runs a mixed workload and cuts the power before every single call that
// changes the disk, with every outcome; reopens, checks, works on, cuts again during that recovery, and
// checks once more. Nothing acknowledged may be missing, nothing may be invented.
func TestWALCrashEveryWrite(t *testing.T) {
	for seed := range uint64(2) {
		crashes := 0
		fs := simfs.New(seed, simfs.Names(seed%2)) // Strict and as a journal has it.
		rnd := rand.New(rand.NewPCG(seed, 7))
		ref := newReference()
		fs.SetHook(func(op simfs.Op) error {
			if !op.Writes() {
				return nil
			}
			for _, o := range []simfs.Outcome{simfs.Nothing, simfs.Everything, simfs.Prefix, simfs.Subset} {
				crashes++
				c := fs.CrashClone(o, seed*1e6+uint64(op.Seq))
				if err := recoverTwice(t, c, ref.clone(), uint64(op.Seq)); err != nil {
					t.Fatalf("seed %d, power cut before %v, outcome %v: %v", seed, op, o, err)
				}
			}
			// A disk that tears sectors breaks its promise. Then it may look as if more were
			// lost than is, but the log says so.
			c := fs.CrashClone(simfs.Torn, uint64(op.Seq))
			if err := reopen(c, ref.clone()); err != nil && !saysDamaged(t, c) {
				t.Fatalf("seed %d, power cut before %v, a sector torn: %v", seed, op, err)
			}
			return nil
		})
		for range 3 {
			l, err := Open(crashOptions(fs))
			if err != nil {
				t.Fatal(err)
			}
			ref.work(t, l, rnd, 50)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if crashes < 1000 {
			t.Fatalf("only %d crashes", crashes)
		}
	}
}

// saysDamaged tells whether the log on a disk reports a loss by itself.
func saysDamaged(t testing.TB, fs *simfs.FS) bool {
	r, err := Check(fs, "data/wal")
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Groups {
		if r.Groups[i].Damage != nil {
			return true
		}
	}
	return len(r.Findings) > 0
}

func crashOptions(fs *simfs.FS) Options {
	return testOptions(fs, func(o *Options) { o.SegmentBytes = 16 << 10; o.CacheBytes = 1000 })
}

// recoverTwice checks a crashed disk, with another crash while it is opened and used again.
func recoverTwice(t testing.TB, fs *simfs.FS, ref *reference, seed uint64) error {
	again := fs.CrashClone(simfs.Nothing, seed)
	at := int(seed % 40)
	var crashed *simfs.FS
	var then *reference
	fs.SetHook(func(op simfs.Op) error {
		if op.Writes() && crashed == nil {
			if at--; at < 0 {
				crashed, then = fs.CrashClone(simfs.Subset, seed), ref.clone()
			}
		}
		return nil
	})
	l, err := Open(crashOptions(fs))
	if err != nil {
		return err
	}
	if err := ref.check(l); err != nil {
		return err
	}
	ref.work(t, l, rand.New(rand.NewPCG(seed, 9)), 6)
	if err := l.Close(); err != nil {
		return err
	}
	if crashed == nil {
		crashed, then = again, ref
		if err := reopen(fs, ref.clone()); err != nil {
			return fmt.Errorf("after a clean close: %w", err)
		}
		return nil
	}
	if err := reopen(crashed, then); err != nil {
		return fmt.Errorf("after a second crash: %w", err)
	}
	return nil
}

func reopen(fs *simfs.FS, ref *reference) error {
	l, err := Open(crashOptions(fs))
	if err != nil {
		return err
	}
	if err := ref.check(l); err != nil {
		return err
	}
	return l.Close()
}
