package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/sim/simfs"
)

// DropAtomic cuts the power before every call that dropping an engine makes: afterwards it is
// there as a whole or not at all, another one is untouched, and the name can be dropped.
func DropAtomic(t *testing.T, k Kind) {
	everyStep(t, k, func(s *site, e storage.Engine, _ *model) error {
		return errors.Join(e.Close(), s.store.Drop("e"))
	}, func(t *testing.T, store storage.Store, before, _ *model, what string) {
		names, err := store.Names()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if slices.Contains(names, "e") {
			e, err := store.Open("e", k.Options)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if d := difference(before, e, newWriter(1).rng, true); d != "" && e.State().LastSeq != 0 {
				t.Fatalf("%s: it is there, but not whole: %s", what, d)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Drop("e"); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if names, err := store.Names(); err != nil || slices.Contains(names, "e") {
			t.Fatalf("%s: dropped, but there: %v %v", what, names, err)
		}
	})
}

// SnapshotIngestAtomic cuts the power before every call that installing a snapshot makes:
// afterwards the old state is there, or the new one.
func SnapshotIngestAtomic(t *testing.T, k Kind) {
	everyStep(t, k, func(_ *site, e storage.Engine, after *model) error {
		return e.InstallSnapshot(bytes.NewReader(after.snapshot()))
	}, func(t *testing.T, store storage.Store, before, after *model, what string) {
		e, err := store.Open("e", k.Options)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		rng := newWriter(1).rng
		old, new := difference(before, e, rng, true), difference(after, e, rng, true)
		if old != "" && new != "" {
			t.Fatalf("%s: neither old (%s) nor new (%s)", what, old, new)
		}
		if err := errors.Join(e.Verify(), e.Close()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	})
}

// everyStep makes an engine with a checkpoint, and then runs act on it over and over, cutting the
// power before one call more each time.
func everyStep(t *testing.T, k Kind, act func(*site, storage.Engine, *model) error,
	check func(t *testing.T, store storage.Store, before, after *model, what string)) {
	after := newWriter(32)
	build(t, k, simfs.New(1, simfs.Strict), after)
	for step := 1; ; step++ {
		disk := simfs.New(uint64(step), simfs.Strict)
		w := newWriter(31)
		s, e := build(t, k, disk, w)
		var left *simfs.FS
		var what string
		calls := 0
		disk.SetHook(func(o simfs.Op) error {
			if o.Writes() {
				if calls++; calls == step {
					what = fmt.Sprintf("cut before %v", o)
					left = disk.CrashClone([]simfs.Outcome{simfs.Nothing, simfs.Subset, simfs.Torn, simfs.Everything}[step%4], uint64(step))
				}
			}
			return nil
		})
		if err := act(s, e, after.model); err != nil {
			t.Fatal(err)
		}
		disk.SetHook(nil)
		if left == nil {
			t.Logf("%d steps", step-1)
			return
		}
		store, err := k.Open(left, dir)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		check(t, store, w.model, after.model, what)
		other, err := store.Open("other", k.Options)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if st := other.State(); st.Msgs != 2 {
			t.Fatalf("%s: another engine is at %+v", what, st)
		}
		if err := errors.Join(other.Verify(), other.Close(), store.Close()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// build makes an engine of some changes, and another one beside it, both on disk.
func build(t *testing.T, k Kind, disk *simfs.FS, w *writer) (*site, storage.Engine) {
	t.Helper()
	s := newSite(t, k, disk)
	w.large = 2000
	other := s.open("other")
	put(t, other, "a", "b")
	e := s.open("e")
	for range 30 {
		if err := w.change(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(other.Checkpoint(), e.Checkpoint(), other.Close()); err != nil {
		t.Fatal(err)
	}
	return s, e
}

// snapshot is the model as a snapshot stream.
func (m *model) snapshot() []byte {
	var b bytes.Buffer
	st := m.State()
	sw, err := storage.NewSnapshotWriter(&b, storage.SnapshotState{
		Applied: m.applied, LastSeq: m.lastSeq, LastTime: m.lastTime, Msgs: st.Msgs, Bytes: st.Bytes,
	})
	for i := range m.msgs {
		err = errors.Join(err, sw.Message(&m.msgs[i]))
	}
	m.AuxRange("", func(key string, value []byte) bool {
		err = errors.Join(err, sw.Aux(key, value))
		return true
	})
	if err = errors.Join(err, sw.Close()); err != nil {
		panic(err) // A buffer takes everything.
	}
	return b.Bytes()
}
