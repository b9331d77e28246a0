package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
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
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	d := damager{t: t, kind: k, h: h, rng: rand.New(rand.NewPCG(5, 5)), files: make(map[string][]byte)}
	d.load(fs, dir)
	var previous []byte
	total := 0
	for _, path := range slices.Sorted(maps.Keys(d.files)) {
		d.how = Damage{Every: 1}
		if k.Damage != nil {
			d.how = k.Damage(path)
		}
		every, good := d.how.Every, d.files[path]
		if every == 0 {
			continue
		}
		total += len(good)
		for i := d.rng.IntN(every); i < len(good); i += 1 + d.rng.IntN(2*every-1) {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << d.rng.IntN(8)
			d.try(path, bad, fmt.Sprintf("byte %d of %d flipped", i, len(good)))
		}
		for n := 0; n < len(good); n += 1 + d.rng.IntN(20*every) {
			d.try(path, good[:n], fmt.Sprintf("cut to %d of %d bytes", n, len(good)))
			zeros := bytes.Clone(good)
			clear(zeros[n:min(n+512, len(zeros))])
			if !bytes.Equal(zeros, good) {
				d.try(path, zeros, fmt.Sprintf("zeros from %d on", n))
			}
		}
		d.try(path, nil, "removed")
		if previous != nil && len(good) > 0 {
			d.try(path, previous, "replaced by another file")
		}
		previous = good
	}
	t.Logf("%d bytes in %d files, %d of %d damages found by Open", total, len(d.files), d.byOpen, d.tries)
}

type damager struct {
	t             *testing.T
	kind          Kind
	h             *history
	rng           *rand.Rand
	files         map[string][]byte // as they ought to be
	how           Damage
	tries, byOpen int
}

// load reads the files below a directory.
func (d *damager) load(fs vfs.FS, dir string) {
	names, err := fs.List(dir)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, n := range names {
		path := fs.PathJoin(dir, n)
		if info, err := fs.Stat(path); err != nil {
			d.t.Fatal(err)
		} else if info.IsDir() {
			d.load(fs, path)
		} else {
			d.files[path] = d.read(fs, path)
		}
	}
}

// try opens the engine with bad in the place of a file, nil for none, and expects to hear of it.
func (d *damager) try(path string, bad []byte, what string) {
	d.t.Helper()
	d.tries++
	fs := d.copy(path, bad)
	store, e, err := d.open(fs)
	if err != nil {
		d.byOpen++
		d.corrupt(err, path, what)
		if left := d.read(fs, path); !bytes.Equal(left, bad) {
			d.t.Fatalf("%s: %s: Open changed the damaged file", path, what)
		}
		return
	}
	// Opening may also have made it good again, where it overwrites what was erased.
	if err := e.Verify(); err != nil || !d.how.Unnoticed && !bytes.Equal(d.read(fs, path), d.files[path]) {
		d.corrupt(err, path, what)
	} else if w, g := d.h.model.State(), e.State(); w != g {
		d.t.Fatalf("%s: %s: state is %+v, want %+v", path, what, g, w)
	}
	d.loadAll(e, path, what)
	if err := errors.Join(e.Close(), store.Close()); err != nil {
		d.t.Fatal(err)
	}
}

// loadAll expects a right answer or damage for every message.
func (d *damager) loadAll(e storage.Engine, path, what string) {
	d.t.Helper()
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
}

// copy returns a file system with the files, but for one.
func (d *damager) copy(path string, bad []byte) *vfs.MemFS {
	fs := vfs.NewMem()
	for p, b := range d.files {
		if err := fs.MkdirAll(fs.PathDir(p), 0o755); err != nil {
			d.t.Fatal(err)
		}
		if p == path {
			b = bad
		}
		if p != path || bad != nil {
			d.write(fs, p, b)
		}
	}
	return fs
}

func (d *damager) open(fs vfs.FS) (storage.Store, storage.Engine, error) {
	store, err := d.kind.Open(fs, dir)
	if err != nil {
		return nil, nil, err
	}
	e, err := store.Open("e", d.kind.Options)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, e, nil
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

// read returns nil for a file that is not there.
func (d *damager) read(fs vfs.FS, path string) []byte {
	f, err := fs.Open(path)
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

func (d *damager) write(fs vfs.FS, path string, b []byte) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Clone(b)); err != nil {
		d.t.Fatal(err)
	}
}
