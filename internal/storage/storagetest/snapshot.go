package storagetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
)

// filled returns an engine after some random changes, with the writer that made them.
func filled(t testing.TB, s *site, name string, seed uint64, changes int) (storage.Engine, *writer) {
	t.Helper()
	e := s.open(name)
	w := newWriter(seed)
	w.large = 3000
	for range changes {
		if err := w.change(e); err != nil {
			t.Fatal(err)
		}
	}
	return e, w
}

func testSnapshot(t *testing.T, s *site) {
	from, w := filled(t, s, "from", 11, 150)
	defer from.Close()
	var stream bytes.Buffer
	at, err := from.WriteSnapshot(&stream)
	if err != nil || at.Index != w.model.applied.Index {
		t.Fatal(at, err)
	}
	to, other := filled(t, s, "to", 12, 40)
	if err := to.InstallSnapshot(bytes.NewReader(stream.Bytes())); err != nil {
		t.Fatal(err)
	}
	if d := difference(w.model, to, w.rng, true); d != "" {
		t.Fatal(d)
	}
	if d := to.Durable(); d.Index != at.Index {
		t.Fatalf("an installed snapshot is not durable: %+v", d)
	}
	if !s.kind.Volatile {
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
		to = s.open("to")
		if d := difference(w.model, to, w.rng, true); d != "" {
			t.Fatal("reopened: " + d)
		}
	}
	defer to.Close()
	// Life goes on with it.
	other.model, other.index = w.model.clone(), w.model.applied.Index
	for range 50 {
		if err := other.change(to); err != nil {
			t.Fatal(err)
		}
	}
	if d := difference(other.model, to, w.rng, true); d != "" {
		t.Fatal(d)
	}
}

// testSnapshotDamaged cuts a snapshot at every length and flips a bit of every byte: each time the
// old state stays.
func testSnapshotDamaged(t *testing.T, s *site) {
	from, _ := filled(t, s, "from", 21, 12)
	defer from.Close()
	var stream bytes.Buffer
	if _, err := from.WriteSnapshot(&stream); err != nil {
		t.Fatal(err)
	}
	to, w := filled(t, s, "to", 22, 20)
	defer to.Close()
	whole := stream.Bytes()
	refuse := func(what string, at int, r io.Reader) {
		t.Helper()
		var corrupt *storage.CorruptError
		if err := to.InstallSnapshot(r); !errors.As(err, &corrupt) {
			t.Fatalf("%s at %d of %d bytes: got %v", what, at, len(whole), err)
		}
	}
	for n := range whole {
		refuse("cut", n, bytes.NewReader(whole[:n]))
		flipped := bytes.Clone(whole)
		flipped[n] ^= 1 << (n % 8)
		refuse("flipped", n, bytes.NewReader(flipped))
	}
	if d := difference(w.model, to, rand.New(rand.NewPCG(1, 1)), true); d != "" {
		t.Fatal(d)
	}
}
