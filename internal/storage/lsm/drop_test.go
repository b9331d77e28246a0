package lsm_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/lsm"
	"github.com/cleatkv/cleat/sim/simfs"
)

// TestDropLosesNoOther fails each read of a table while an engine is dropped. The engines that stand
// beside it in the same table keep what they have.
func TestDropLosesNoOther(t *testing.T) {
	for k := int64(1); k <= 40; k++ {
		fs := simfs.New(1, simfs.Strict)
		s := mustOpen(t, fs)
		var all []storage.Engine
		for _, name := range []string{"a", "dropped", "z"} {
			all = append(all, fill(t, s, name, 100))
		}
		for _, e := range all { // The first puts everything into one table.
			if err := errors.Join(e.Checkpoint(), e.Close()); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, s)

		s = mustOpen(t, fs)
		var reads atomic.Int64 // The database reads in the background, too.
		fs.SetHook(func(op simfs.Op) error {
			if op.Kind == "read" && strings.HasSuffix(op.Path, ".sst") {
				if reads.Add(1) == k {
					return syscall.EIO
				}
			}
			return nil
		})
		err := s.Drop("dropped")
		if reads.Load() < k && err != nil {
			t.Fatal(err)
		}
		fs.SetHook(nil)
		mustClose(t, s)

		s = mustOpen(t, fs)
		for _, name := range []string{"a", "z"} {
			e, err := s.Open(name, storage.Options{})
			if err != nil {
				t.Fatalf("read %d fails: open %s: %v", k, name, err)
			}
			if n := e.Count([]string{">"}, 1, false); n != 100 || e.Err() != nil {
				t.Fatalf("read %d fails: %s has %d messages, want 100: %v", k, name, n, e.Err())
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, s)
	}
}

func mustOpen(t *testing.T, fs *simfs.FS) storage.Store {
	t.Helper()
	s, err := lsm.OpenStore(fs, "data", lsm.WithCache(1), lsm.WithMemTable(4<<20), lsm.WithReport(func(string) {})) // Each block is read again.
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s storage.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// fill makes an engine with n messages.
func fill(t *testing.T, s storage.Store, name string, n uint64) storage.Engine {
	t.Helper()
	e, err := s.Open(name, storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tx := e.Begin()
	random := rand.NewChaCha8([32]byte{1}) // What compresses would stand in one block.
	for seq := uint64(1); seq <= n; seq++ {
		m := storage.Message{Seq: seq, Time: int64(seq), Subject: fmt.Sprint(name, ".", seq, strings.Repeat("x", 2000)), Data: make([]byte, 1000)}
		_, _ = random.Read(m.Data)
		if err := tx.Append(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(storage.Applied{Index: n, Term: 1}); err != nil {
		t.Fatal(err)
	}
	return e
}
