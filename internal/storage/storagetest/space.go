package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/sim/simfs"
)

// NoSpace fills a small disk until nothing can be made durable, checks that reads go on and that
// nothing is lost, makes room, and goes on.
func NoSpace(t *testing.T, k Kind) {
	disk := simfs.New(1, simfs.Strict)
	s := newSite(t, k, disk)
	h := newHistory(77)
	h.large = 3000
	e := s.open("e")
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	full := 0
	for round := range 6 {
		disk.SetCapacity(int64(200_000 + 60_000*round))
		var err error
		for range 400 {
			if err = h.change(e); err != nil {
				t.Fatalf("round %d: a commit failed: %v", round, err)
			}
			if err = e.Checkpoint(); err != nil {
				full++
				break
			}
		}
		if d := difference(h.model, e, h.rng, true); d != "" {
			t.Fatalf("round %d, after %v: %s", round, err, d)
		}
		disk.SetCapacity(0)
		if err := e.Checkpoint(); err != nil {
			t.Fatalf("round %d: there is room again, but: %v", round, err)
		}
		if err := errors.Join(e.Verify(), e.Close()); err != nil {
			t.Fatal(err)
		}
		e = s.open("e")
		if d := difference(h.model, e, h.rng, true); d != "" {
			t.Fatalf("round %d, reopened: %s", round, d)
		}
	}
	if full < 3 {
		t.Fatalf("the disk was full only %d times", full)
	}
	if err := errors.Join(e.Close(), s.store.Close()); err != nil {
		t.Fatal(err)
	}
}

// EraseOverwrites erases messages and looks for their bytes in every file.
func EraseOverwrites(t *testing.T, k Kind) {
	fs := vfs.NewMem()
	s := newSite(t, k, fs)
	e := s.open("e")
	rng := rand.New(rand.NewPCG(6, 6))
	secret := func(seq uint64) []byte { return fmt.Appendf(nil, "secret-%d-%x", seq, seq*0x9e3779b97f4a7c15) }
	last := uint64(0)
	for round := range 30 {
		tx := e.Begin()
		for range 10 {
			last++
			m := storage.Message{Seq: last, Time: int64(last), Subject: "s", Data: secret(last)}
			if err := tx.Append(m); err != nil {
				t.Fatal(err)
			}
		}
		var erased []uint64
		for range 4 {
			seq := 1 + rng.Uint64N(last)
			was, err := tx.Erase(seq)
			if err != nil {
				t.Fatal(err)
			}
			if was {
				erased = append(erased, seq)
			}
		}
		for range 3 { // So that compaction has something to do, and moves some of what is erased.
			if _, err := tx.Remove(1 + rng.Uint64N(last)); err != nil {
				t.Fatal(err)
			}
		}
		commit(t, tx, e)
		if _, err := e.Compact(); err != nil {
			t.Fatal(err)
		}
		if err := e.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		for _, seq := range erased {
			// An engine may remove files in the background.
			path := containing(t, fs, dir, secret(seq))
			for wait := 0; path != "" && wait < 500; wait++ {
				time.Sleep(10 * time.Millisecond)
				path = containing(t, fs, dir, secret(seq))
			}
			if path != "" {
				t.Fatalf("round %d: message %d was erased, but is in %s", round, seq, path)
			}
		}
	}
	if err := errors.Join(e.Verify(), e.Close(), s.store.Close()); err != nil {
		t.Fatal(err)
	}
}

// containing returns a file below dir that contains b, or "".
func containing(t *testing.T, fs vfs.FS, dir string, b []byte) string {
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if oserror.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			if found := containing(t, fs, path, b); found != "" {
				return found
			}
			continue
		}
		f, err := fs.Open(path)
		if oserror.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, b) {
			return path
		}
	}
	return ""
}
