package storagetest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Metamorphic makes random changes from a number of seeds and holds the engine against the model
// all the way, with the background work of an engine mixed in, which must not show.
func Metamorphic(t *testing.T, k Kind, seeds, changes int) {
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			t.Parallel()
			metamorphic(t, k, uint64(seed), changes)
		})
	}
}

func metamorphic(t *testing.T, k Kind, seed uint64, changes int) {
	s := newSite(t, k, vfs.NewMem())
	e := s.open("e")
	w := newWriter(seed)
	for i := range changes {
		if err := w.change(e); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		var err error
		switch n := w.rng.IntN(60); {
		case n == 0:
			err = e.Checkpoint()
		case n < 4:
			_, err = e.Compact()
		case n == 4:
			err = e.Verify()
		case n == 5 && !k.Volatile:
			if err = e.Checkpoint(); err == nil {
				err = e.Close()
			}
			e = s.open("e")
		case n == 6:
			var b bytes.Buffer
			if _, err = e.WriteSnapshot(&b); err == nil && w.rng.IntN(4) == 0 {
				err = e.InstallSnapshot(&b)
			}
		}
		if err != nil {
			t.Fatalf("after change %d: %v", i, err)
		}
		if d := difference(w.model, e, w.rng, i%20 == 0); d != "" {
			t.Fatalf("after change %d: %s", i, d)
		}
	}
	if d := difference(w.model, e, w.rng, true); d != "" {
		t.Fatal(d)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
}
