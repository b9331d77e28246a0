package storagetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
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
	c := &crasher{t: t, kind: k, h: newHistory(seed), mem: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 2))}
	s := newSite(t, k, errorfs.Wrap(c.mem, errorfs.InjectorFunc(c.before)))
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
	mem  *vfs.MemFS

	mu   sync.Mutex
	rng  *rand.Rand
	op   int
	cuts int
}

// before is called ahead of each call on the file system.
func (c *crasher) before(o errorfs.Op) error {
	c.mu.Lock()
	c.op++
	hit := o.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.rng.IntN(4) == 0
	op := c.op
	c.mu.Unlock()
	if hit {
		c.cut(fmt.Sprintf("cut before operation %d, %v of %s", op, o.Kind, o.Path))
	}
	return nil
}

// cut checks what a power cut at this moment leaves, cutting again during recovery now and then.
func (c *crasher) cut(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts++
	r := recovery{t: c.t, kind: c.kind, h: c.h, floor: c.h.durable(), rng: c.rng, what: what}
	left := crashed(c.mem, c.rng)
	var again *vfs.MemFS
	var mu sync.Mutex
	opened := false
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 4))
	before := func(o errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if !opened && again == nil && o.Kind.ReadOrWrite() == errorfs.OpIsWrite && rng.IntN(8) == 0 {
			again = crashed(left, rng)
		}
		return nil
	}
	r.check(errorfs.Wrap(left, errorfs.InjectorFunc(before)), func() {
		mu.Lock()
		defer mu.Unlock()
		opened = true
	})
	if again != nil {
		r.what += ", and again"
		r.check(again, func() {})
	}
}

// crashed is what a power cut now leaves of the files.
func crashed(mem *vfs.MemFS, rng *rand.Rand) *vfs.MemFS {
	percent := []int{0, 30, 70, 100}[rng.IntN(4)]
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
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
