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

// testDigest holds the digest of a state against that of its copy, which must be the same, and that of
// the next states, which must all differ.
func testDigest(t *testing.T, s *site) {
	from, w := filled(t, s, "from", 21, 150)
	defer from.Close()
	digest := func(e storage.Engine) storage.Digest {
		t.Helper()
		var stream bytes.Buffer
		if _, err := e.WriteSnapshot(&stream); err != nil {
			t.Fatal(err)
		}
		d, err := storage.ReadDigest(&stream)
		if err != nil {
			t.Fatal(err)
		}
		f := e.Freeze()
		defer f.Release()
		if same, err := storage.DigestOf(f, func() error { return nil }); err != nil || same.Sum != d.Sum || same.At.Index != d.At.Index {
			t.Fatalf("as it is: %x at %d, in a snapshot %x at %d; %v", same.Sum, same.At.Index, d.Sum, d.At.Index, err)
		}
		return d
	}
	var stream bytes.Buffer
	if _, err := from.WriteSnapshot(&stream); err != nil {
		t.Fatal(err)
	}
	to := s.open("to")
	defer to.Close()
	if err := to.InstallSnapshot(&stream); err != nil {
		t.Fatal(err)
	}
	first := digest(from)
	if d := digest(to); d.Sum != first.Sum || d.At.Index != first.At.Index {
		t.Fatalf("the copy has %x at %d, the original %x at %d", d.Sum, d.At.Index, first.Sum, first.At.Index)
	}
	before := digest(to)
	last := to.State()
	tx := to.Begin()
	if err := tx.Append(storage.Message{Seq: last.LastSeq + 1, Time: last.LastTime + 1, Subject: "a", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(storage.Applied{Index: w.model.applied.Index + 1, Term: w.model.applied.Term, Conf: w.model.applied.Conf}); err != nil {
		t.Fatal(err)
	}
	if d := digest(to); d.Sum == before.Sum {
		t.Fatal("one message more, and the digest is the same")
	}
	tx = to.Begin()
	tx.SetAux("digest", []byte("x"))
	if err := tx.Commit(storage.Applied{Index: w.model.applied.Index + 2, Term: w.model.applied.Term, Conf: w.model.applied.Conf}); err != nil {
		t.Fatal(err)
	}
	seen := digest(to)
	tx = to.Begin()
	tx.SetAux("digest", []byte("y"))
	if err := tx.Commit(storage.Applied{Index: w.model.applied.Index + 3, Term: w.model.applied.Term, Conf: w.model.applied.Conf}); err != nil {
		t.Fatal(err)
	}
	if d := digest(to); d.Sum == seen.Sum {
		t.Fatal("another auxiliary record, and the digest is the same")
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
