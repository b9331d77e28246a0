package lsm

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// What was removed stays in the database until it is compacted. No look-up that the write path makes may
// have to walk over it: overwriting few keys would get slower with every put.
func TestLookUpsPassByWhatWasRemoved(t *testing.T) {
	s, err := OpenStore(vfs.NewMem(), "db")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	opened, err := s.Open("e", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	e := opened.(*Engine)

	const removed = 5000
	for seq := uint64(1); seq <= removed+6; seq++ {
		m := storage.Message{Seq: seq, Time: int64(seq), Subject: "k"}
		if seq%2 == 0 {
			m.Subject, m.Expires = "l", int64(seq)
		}
		commit(t, e, func(tx storage.Tx) error { return tx.Append(m) })
	}
	for seq := uint64(1); seq <= removed; seq++ {
		commit(t, e, func(tx storage.Tx) error {
			if _, err := tx.Remove(seq); err != nil {
				return err
			}
			if seq, at, ok := tx.NextExpiry(); !ok || seq%2 != 0 || at != int64(seq) {
				t.Fatalf("next to expire: %d at %d, %v", seq, at, ok)
			}
			return nil
		})
	}

	look := func(name string, fn func(v *view)) {
		g, v := e.read()
		fn(v)
		if n := v.point.Stats().ForwardStepCount[pebble.InternalIterCall] + v.point.Stats().ReverseStepCount[pebble.InternalIterCall]; n > 100 {
			t.Errorf("%s: %d steps", name, n)
		}
		if err := e.end(g, v); err != nil {
			t.Fatal(err)
		}
	}
	look("the history of a subject", func(v *view) {
		n := 0
		v.SubjectSeqs("k", 0, func(uint64) bool { n++; return true })
		if n != 3 {
			t.Errorf("%d messages of the subject", n)
		}
	})
	look("a subject that is not there", func(v *view) {
		if _, ok := v.Subject("a"); ok {
			t.Error("it is there")
		}
	})
	look("auxiliary records", func(v *view) { v.auxRange("", func(string, []byte) bool { return true }) })
	at := e.current.Load().st.expiry
	if !at.known || at.at != removed+2 {
		t.Errorf("the next to expire is not known after a change asked for it: %+v", at)
	}
	look("the next to expire", func(v *view) {
		if seq, _, ok := v.nextExpiry(at.at, at.seq); !ok || seq != removed+2 {
			t.Errorf("it is %d, %v", seq, ok)
		}
	})
}

func commit(t *testing.T, e *Engine, change func(tx storage.Tx) error) {
	t.Helper()
	tx := e.Begin()
	defer tx.Discard()
	if err := change(tx); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(storage.Applied{Index: e.Applied().Index + 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
}
