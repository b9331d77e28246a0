package storagetest

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/sim/simfs"
)

// DurableAppliedNeverAhead asks for the durable position after every change, cuts the power with
// nothing left that was not synced, and compares it with where the engine comes back to: the Raft
// log may have been truncated up to there.
func DurableAppliedNeverAhead(t *testing.T, k Kind, changes int) {
	disk := simfs.New(3, simfs.Strict)
	s := newSite(t, k, disk)
	e := s.open("e")
	h := newHistory(41)
	for i := range changes {
		if err := h.step(e); err != nil {
			t.Fatal(err)
		}
		durable := e.Durable()
		left := newSite(t, k, disk.CrashClone(simfs.Nothing, uint64(i)))
		back := left.open("e")
		if at := back.Applied(); at.Index < durable.Index || back.Durable().Index > at.Index {
			t.Fatalf("change %d: %d was durable, and it came back to %d, of which %d is durable", i, durable.Index, at.Index, back.Durable().Index)
		}
		if err := errors.Join(back.Close(), left.store.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(e.Close(), s.store.Close()); err != nil {
		t.Fatal(err)
	}
}

// FuzzOps makes histories from any seed, and holds the engine against the model.
func FuzzOps(f *testing.F, k Kind) {
	for seed := range uint64(4) {
		f.Add(seed, uint8(60))
	}
	f.Fuzz(func(t *testing.T, seed uint64, changes uint8) {
		s := newSite(t, k, vfs.NewMem())
		e := s.open("e")
		h := newHistory(seed)
		for range changes {
			if err := h.step(e); err != nil {
				t.Fatal(err)
			}
		}
		if d := difference(h.model, e, h.rng, true); d != "" {
			t.Fatal(d)
		}
		if err := errors.Join(e.Verify(), e.Close(), s.store.Close()); err != nil {
			t.Fatal(err)
		}
	})
}
