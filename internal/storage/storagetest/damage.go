package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// CorruptBlockReported damages every byte of the files of a small engine, one at a time, cuts
// every file short, removes it, and puts one in the place of another. Each time the damage is
// reported, by Open or Verify, and nothing is answered wrongly.
func CorruptBlockReported(t *testing.T, k Kind) {
	fs := vfs.NewMem()
	s := newSite(t, k, fs)
	h := newHistory(5)
	h.large = 300
	e := s.open("e")
	for range 40 {
		if err := h.step(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	d := damager{t: t, s: s, fs: fs, h: h, rng: rand.New(rand.NewPCG(5, 5))}
	files := d.files(fs.PathJoin(dir, "e"))
	if len(files) < 3 {
		t.Fatalf("only %d files", len(files))
	}
	var previous []byte
	total := 0
	for _, path := range files {
		good := d.read(path)
		total += len(good)
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << d.rng.IntN(8)
			d.try(path, bad, good, fmt.Sprintf("byte %d of %d flipped", i, len(good)))
		}
		for n := 0; n < len(good); n += 1 + d.rng.IntN(20) {
			d.try(path, good[:n], good, fmt.Sprintf("cut to %d of %d bytes", n, len(good)))
			zeros := bytes.Clone(good)
			clear(zeros[n:min(n+512, len(zeros))])
			if !bytes.Equal(zeros, good) {
				d.try(path, zeros, good, fmt.Sprintf("zeros from %d on", n))
			}
		}
		d.try(path, nil, good, "removed")
		if previous != nil {
			d.try(path, previous, good, "replaced by another file")
		}
		previous = good
	}
	t.Logf("%d bytes in %d files, %d of %d damages found by Open", total, len(files), d.byOpen, d.tries)
}

type damager struct {
	t             *testing.T
	s             *site
	fs            *vfs.MemFS
	h             *history
	rng           *rand.Rand
	tries, byOpen int
}

// try puts bad in the place of the file, expects to hear of it, and puts the good one back.
func (d *damager) try(path string, bad, good []byte, what string) {
	d.t.Helper()
	d.tries++
	d.write(path, bad)
	e, err := d.s.store.Open("e", d.s.kind.Options)
	if err != nil {
		d.byOpen++
		d.corrupt(err, path, what)
		if left := d.read(path); !bytes.Equal(left, bad) {
			d.t.Fatalf("%s: %s: Open changed the damaged file", path, what)
		}
		d.write(path, good)
		return
	}
	// Opening may also have made it good again, where it overwrites what was erased.
	if err := e.Verify(); err != nil || !bytes.Equal(d.read(path), good) {
		d.corrupt(err, path, what)
	}
	st := d.h.model.State()
	for seq := st.FirstSeq; seq <= st.LastSeq; seq++ {
		want, werr := d.h.model.Load(seq)
		got, err := e.Load(seq)
		switch {
		case errors.Is(err, storage.ErrNotFound) && errors.Is(werr, storage.ErrNotFound):
		case err != nil:
			d.corrupt(err, path, what)
		case !bytes.Equal(got.Data, want.Data) || !bytes.Equal(got.Header, want.Header) || got.Subject != want.Subject:
			d.t.Fatalf("%s: %s: wrong answer for sequence %d", path, what, seq)
		}
	}
	if err := e.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.write(path, good)
}

func (d *damager) corrupt(err error, path, what string) {
	d.t.Helper()
	var corrupt *storage.CorruptError
	if !errors.As(err, &corrupt) {
		d.t.Fatalf("%s: %s: got %v", path, what, err)
	}
	if corrupt.Path == "" || corrupt.Detail == "" {
		d.t.Fatalf("%s: %s: the report says nothing: %+v", path, what, corrupt)
	}
}

func (d *damager) files(dir string) []string {
	names, err := d.fs.List(dir)
	if err != nil {
		d.t.Fatal(err)
	}
	paths := make([]string, 0, len(names))
	for _, n := range names {
		paths = append(paths, d.fs.PathJoin(dir, n))
	}
	return paths
}

func (d *damager) read(path string) []byte {
	f, err := d.fs.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// write puts b in the place of the file; nil removes it.
func (d *damager) write(path string, b []byte) {
	if b == nil {
		if err := d.fs.Remove(path); err != nil {
			d.t.Fatal(err)
		}
		return
	}
	f, err := d.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Clone(b)); err != nil {
		d.t.Fatal(err)
	}
}
