package storagetest

import (
	"fmt"
	"math/rand/v2"
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
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(seed, 2))
	h := newHistory(seed)
	op := 0
	cut := func(o errorfs.Op) error {
		if op++; o.Kind.ReadOrWrite() == errorfs.OpIsWrite && rng.IntN(4) == 0 {
			survive(t, k, h, crashed(mem, rng), rng, fmt.Sprintf("cut before operation %d, %v of %s", op, o.Kind, o.Path))
		}
		return nil
	}
	s := newSite(t, k, errorfs.Wrap(mem, errorfs.InjectorFunc(cut)))
	e := s.open("e")
	for i := range changes {
		if err := h.step(e); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if rng.IntN(10) == 0 {
			survive(t, k, h, crashed(mem, rng), rng, fmt.Sprintf("cut after change %d", i))
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// crashed is what a power cut now leaves of the files.
func crashed(mem *vfs.MemFS, rng *rand.Rand) *vfs.MemFS {
	percent := []int{0, 30, 70, 100}[rng.IntN(4)]
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
}

// survive opens what a crash left, checks it, and makes some further changes.
func survive(t *testing.T, k Kind, h *history, left *vfs.MemFS, rng *rand.Rand, what string) {
	t.Helper()
	// The power fails again during recovery, now and then.
	var again *vfs.MemFS
	opened := false
	cut := func(o errorfs.Op) error {
		if !opened && again == nil && o.Kind.ReadOrWrite() == errorfs.OpIsWrite && rng.IntN(8) == 0 {
			again = crashed(left, rng)
		}
		return nil
	}
	s := newSite(t, k, errorfs.Wrap(left, errorfs.InjectorFunc(cut)))
	recheck(t, s, h, rng, what, func() { opened = true })
	if again != nil {
		recheck(t, newSite(t, k, again), h, rng, what+", and again", func() {})
	}
}

func recheck(t *testing.T, s *site, h *history, rng *rand.Rand, what string, opened func()) {
	t.Helper()
	e, err := s.store.Open("e", s.kind.Options)
	opened()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if d := h.check(e, rng); d != "" {
		t.Fatalf("%s: %s", what, d)
	}
	next := newHistory(rng.Uint64())
	next.states = map[uint64]*model{e.Applied().Index: h.states[e.Applied().Index]}
	next.resume(e)
	for range 5 {
		if err := next.step(e); err != nil {
			t.Fatalf("%s: afterwards: %v", what, err)
		}
	}
	if d := difference(next.model, e, rng, true); d != "" {
		t.Fatalf("%s: afterwards: %s", what, d)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
}
