package storagetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/sim/simfs"
)

// CrashPrefix cuts the power before many of the calls on the file system that a random history
// makes, and opens what is left: what was synced, and some, none or all of the rest, names of
// files included. Recovery is cut, too.
func CrashPrefix(t *testing.T, k Kind, seeds, changes int) {
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			t.Parallel()
			crash(t, k, uint64(seed), changes)
		})
	}
}

func crash(t *testing.T, k Kind, seed uint64, changes int) {
	names := []simfs.Names{simfs.Strict, simfs.Journal}[seed%2]
	c := &crasher{t: t, kind: k, h: newHistory(seed), disk: simfs.New(seed, names), rng: rand.New(rand.NewPCG(seed, 2))}
	c.disk.SetHook(c.before)
	s := newSite(t, k, c.disk)
	e := s.open("e")
	for i := range changes {
		if err := c.h.step(e); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if i%10 == 9 {
			c.cut(fmt.Sprintf("cut after change %d", i))
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d cuts", c.cuts)
}

// crasher cuts the power before calls on a file system, from whichever goroutine they come.
type crasher struct {
	t    *testing.T
	kind Kind
	h    *history
	disk *simfs.FS

	mu   sync.Mutex
	rng  *rand.Rand
	cuts int
}

// before is called ahead of each call on the file system.
func (c *crasher) before(o simfs.Op) error {
	c.mu.Lock()
	hit := o.Writes() && c.rng.IntN(4) == 0
	c.mu.Unlock()
	if hit {
		c.cut("cut before " + o.String())
	}
	return nil
}

// cut checks what a power cut at this moment leaves, cutting again during recovery now and then.
func (c *crasher) cut(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts++
	r := recovery{t: c.t, kind: c.kind, h: c.h, floor: c.h.durable(), rng: c.rng, what: what}
	left := r.crashed(c.disk)
	var again *simfs.FS
	var mu sync.Mutex
	opened := false
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 4))
	left.SetHook(func(o simfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if !opened && again == nil && o.Writes() && rng.IntN(8) == 0 {
			again = left.CrashClone(outcome(rng), rng.Uint64())
		}
		return nil
	})
	r.check(left, func() {
		mu.Lock()
		defer mu.Unlock()
		opened = true
	})
	if again != nil {
		r.what += ", and again"
		r.check(again, func() {})
	}
}

func outcome(rng *rand.Rand) simfs.Outcome {
	return []simfs.Outcome{simfs.Nothing, simfs.Everything, simfs.Prefix, simfs.Subset, simfs.Torn}[rng.IntN(5)]
}

// recovery opens what a crash left.
type recovery struct {
	t     *testing.T
	kind  Kind
	h     *history
	floor uint64
	rng   *rand.Rand
	what  string
}

// crashed is what a power cut now leaves of a disk.
func (r *recovery) crashed(disk *simfs.FS) *simfs.FS {
	o := outcome(r.rng)
	r.what += fmt.Sprintf(", leaving %v", o)
	return disk.CrashClone(o, r.rng.Uint64())
}

// check opens the engine, checks its state, and makes some further changes.
func (r *recovery) check(fs vfs.FS, opened func()) {
	r.t.Helper()
	store, err := r.kind.Open(fs, dir)
	if err != nil {
		r.fatal(err)
	}
	e, err := store.Open("e", r.kind.Options)
	if err != nil {
		r.fatal(err)
	}
	opened()
	if d := r.h.check(e, r.floor, r.rng); d != "" {
		r.fatal(d)
	}
	next := r.h.after(e, r.rng.Uint64())
	for range 5 {
		if err := next.step(e); err != nil {
			r.fatal("afterwards: ", err)
		}
	}
	if d := difference(next.model, e, r.rng, true); d != "" {
		r.fatal("afterwards: ", d)
	}
	if err := e.Close(); err != nil {
		r.fatal(err)
	}
	if err := store.Close(); err != nil {
		r.fatal(err)
	}
}

// fatal ends the test run by a panic: it may be called on a goroutine of the engine, which t.Fatal
// could not stop.
func (r *recovery) fatal(args ...any) {
	r.t.Helper()
	r.t.Error(r.what + ": " + fmt.Sprint(args...))
	panic("the test has failed")
}
