package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/sim/simfs"
)

var errInjected = errors.New("injected")

// ErrorEveryOp runs one history over and over, and each time fails another call on the file
// system. Whatever fails, what is read is right, and what was durable is still there afterwards.
func ErrorEveryOp(t *testing.T, k Kind, changes int) {
	for at := 0; ; at++ {
		if !errorAt(t, k, at, changes) {
			t.Logf("%d calls failed, one at a time", at)
			if at < changes/4 {
				t.Fatalf("%d changes made only %d calls", changes, at)
			}
			return
		}
		if t.Failed() {
			return
		}
	}
}

// errorAt fails call number at. It returns false if there are not so many.
func errorAt(t *testing.T, k Kind, at, changes int) bool {
	var mu sync.Mutex
	calls := 0
	var failed *simfs.Op
	disk := simfs.New(uint64(at), simfs.Strict)
	disk.SetHook(func(o simfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if k.Fails != nil && !k.Fails(o) {
			return nil
		}
		if calls++; calls == at+1 {
			failed = &o
			return errInjected
		}
		return nil
	})
	h := newHistory(99)
	rng := rand.New(rand.NewPCG(uint64(at), 3))
	err := runFailing(t, k, disk, h, changes, rng)
	mu.Lock()
	defer mu.Unlock()
	if failed == nil {
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
	what := fmt.Sprintf("%v failed, then %v", failed, err)
	var corrupt *storage.CorruptError
	if errors.As(err, &corrupt) {
		t.Errorf("%s: an error of the disk was taken for damage", what)
	}
	r := recovery{t: t, kind: k, h: h, floor: h.durable(), rng: rng, what: what}
	r.check(r.crashed(disk), func() {})
	return true
}

// runFailing makes a history until something fails, checks what can then be read, and goes on for
// a while if no commit failed. It returns the first error.
func runFailing(t *testing.T, k Kind, fs vfs.FS, h *history, changes int, rng *rand.Rand) error {
	store, err := k.Open(fs, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	e, err := store.Open("e", k.Options)
	if err != nil {
		return err
	}
	defer e.Close()
	var first error
	for range changes {
		before := h.model
		err := h.step(e)
		if err == nil {
			continue
		}
		if first == nil {
			first = err
		}
		if h.model == before { // The change failed.
			return first
		}
		if e.Err() != nil {
			return first // Some answers are none, and it says so.
		}
		if d := difference(h.model, e, rng, true); d != "" {
			t.Errorf("after %v: %s", err, d)
			return first
		}
	}
	return first
}
