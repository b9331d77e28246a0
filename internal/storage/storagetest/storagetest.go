// Package storagetest is the suite that every storage engine passes. It knows engines by their
// interface alone, and holds them against a model that scans a slice for every answer: by
// hand-written cases, by long random histories, by crashes, failed calls and damaged files.
package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/sim/simfs"
)

// Kind is an engine under test.
type Kind struct {
	// Open opens a store below dir of fs. A volatile kind ignores both.
	Open func(fs vfs.FS, dir string) (storage.Store, error)
	// Volatile engines keep nothing beyond Close.
	Volatile bool
	Options  storage.Options
	// Fails tells which calls on the file system may fail without an end of the process; nil: all.
	Fails func(op simfs.Op) bool
	// Damage tells how to damage a file; nil: every byte, and all of it is found.
	Damage func(path string) Damage
}

// Damage is how the files of an engine are damaged.
type Damage struct {
	Every int // one in how many bytes; 0: none
	// Unnoticed damage is all right if every answer is. It is for files in which the engine
	// expects the traces of a crash, and cannot tell one from the other.
	Unnoticed bool
}

const dir = "store"

// site is a place for a store: a file system and what is open on it.
type site struct {
	t     testing.TB
	kind  Kind
	fs    vfs.FS
	store storage.Store
}

func newSite(t testing.TB, k Kind, fs vfs.FS) *site {
	t.Helper()
	store, err := k.Open(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, kind: k, fs: fs, store: store}
}

func (s *site) open(name string) storage.Engine {
	s.t.Helper()
	e, err := s.store.Open(name, s.kind.Options)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// Conformance tests what the comments of package storage promise, one by one.
func Conformance(t *testing.T, k Kind) {
	cases := []struct {
		name string
		run  func(*testing.T, *site)
	}{
		{"Empty", testEmpty},
		{"AppendLoad", testAppendLoad},
		{"AppendRefused", testAppendRefused},
		{"Isolation", testIsolation},
		{"Discard", testDiscard},
		{"InPlace", testInPlace},
		{"Wildcards", testWildcards},
		{"History", testHistory},
		{"Expiry", testExpiry},
		{"Snapshot", testSnapshot},
		{"Digest", testDigest},
		{"Freeze", testFreeze},
		{"SnapshotDamaged", testSnapshotDamaged},
		{"Names", testNames},
		{"CallbackMayRead", testCallbackMayRead},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, k, vfs.NewMem())
			c.run(t, s)
			if err := s.store.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// put commits one message for each subject, at the next sequences, times being ten times the
// sequence.
func put(t testing.TB, e storage.Engine, subjects ...string) {
	t.Helper()
	tx := e.Begin()
	for _, s := range subjects {
		seq := tx.State().LastSeq + 1
		m := storage.Message{Seq: seq, Time: int64(seq) * 10, Subject: s, Data: fmt.Appendf(nil, "data %d", seq)}
		if err := tx.Append(m); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, tx, e)
}

func commit(t testing.TB, tx storage.Tx, e storage.Engine) {
	t.Helper()
	if err := tx.Commit(storage.Applied{Index: e.Applied().Index + 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
}

func testEmpty(t *testing.T, s *site) {
	e := s.open("empty")
	defer e.Close()
	if d := difference(newModel(), e, rand.New(rand.NewPCG(1, 1)), true); d != "" {
		t.Fatal(d)
	}
	if d := e.Durable(); d.Index != 0 || d.Conf != nil {
		t.Fatalf("Durable %+v", d)
	}
}

func testAppendLoad(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	msgs := []storage.Message{
		{Seq: 1, Time: 5, Subject: "a", Data: []byte("x")},
		{Seq: 2, Time: 6, Subject: "a", Data: []byte{}},
		{Seq: 7, Time: 9, Subject: "b.c", Header: []byte("NATS/1.0\r\n\r\n"), Data: bytes.Repeat([]byte("long "), 300_000)},
		{Seq: 8, Time: 10, Expires: 99, Subject: "b.c", Header: []byte("NATS/1.0\r\n\r\n"), Data: []byte{}},
		{Seq: 9, Time: 11, Expires: storage.NeverExpires, Subject: "*", Data: []byte{0, 255}},
	}
	m := newModel()
	tx := e.Begin()
	for _, msg := range msgs {
		m.append(msg)
		if err := tx.Append(msg); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, tx, e)
	m.applied = storage.Applied{Index: 1, Term: 1}
	if d := difference(m, e, rand.New(rand.NewPCG(1, 1)), true); d != "" {
		t.Fatal(d)
	}
	if err := e.Verify(); err != nil {
		t.Fatal(err)
	}
}

func testAppendRefused(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	put(t, e, "a", "b", "c")
	tx := e.Begin()
	defer tx.Discard()
	for _, m := range []storage.Message{
		{Seq: 3, Time: 100, Subject: "x"},
		{Seq: 1, Time: 100, Subject: "x"},
		{Seq: 4, Time: 30, Subject: "x"},
	} {
		if tx.Append(m) == nil {
			t.Errorf("sequence %d at time %d was taken after sequence 3 at 30", m.Seq, m.Time)
		}
	}
	if tx.SkipTo(2) == nil {
		t.Error("the last sequence went back")
	}
	if st := tx.State(); st.Msgs != 3 || st.LastSeq != 3 {
		t.Errorf("state after refusals: %+v", st)
	}
}

func testIsolation(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	put(t, e, "a", "b")
	tx := e.Begin()
	if was, err := tx.Remove(1); !was || err != nil {
		t.Fatal(was, err)
	}
	if err := tx.Append(storage.Message{Seq: 3, Time: 33, Subject: "c", Data: []byte("3")}); err != nil {
		t.Fatal(err)
	}
	tx.SetAux("k", []byte("v"))
	if _, err := tx.Load(1); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the change still sees what it removed: %v", err)
	}
	if m, err := tx.Load(3); err != nil || string(m.Data) != "3" {
		t.Errorf("the change does not see what it wrote: %v", err)
	}
	if _, err := e.Load(1); err != nil {
		t.Errorf("a reader misses what an open change removed: %v", err)
	}
	if st := e.State(); st.LastSeq != 2 || st.Msgs != 2 {
		t.Errorf("a reader sees an open change: %+v", st)
	}
	if _, ok := e.Aux("k"); ok {
		t.Error("a reader sees an open change's record")
	}
	commit(t, tx, e)
	if st := e.State(); st.LastSeq != 3 || st.Msgs != 2 || st.FirstSeq != 2 {
		t.Errorf("after the commit: %+v", st)
	}
	tx.Discard() // Nothing is left to discard.
}

func testDiscard(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	put(t, e, "a", "b")
	tx := e.Begin()
	if err := tx.Append(storage.Message{Seq: 3, Time: 77, Expires: 78, Subject: "c", Data: []byte("discarded")}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Erase(2); err != nil {
		t.Fatal(err)
	}
	tx.SetAux("k", []byte("v"))
	tx.Discard()
	put(t, e, "c")
	if m, err := e.Load(3); err != nil || string(m.Data) != "data 3" || m.Time != 30 {
		t.Errorf("after a discarded change: %v %v", brief(m), err)
	}
	if _, err := e.Load(2); err != nil {
		t.Error(err)
	}
	if _, ok := e.Aux("k"); ok {
		t.Error("a discarded record is there")
	}
	if _, _, ok := e.NextExpiry(); ok {
		t.Error("a discarded message expires")
	}
}

func testWildcards(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	put(t, e, "a", "a.b", "a.b.c", "a.x.c", "a-.b.c", "a!b.c", "a.b-.c", "ab.b.c", "b", "b.b.c", "a.b.c.d", "zz.*")
	for filter, want := range map[string]string{
		"*":       "[a b]",
		"a.*":     "[a.b]",
		"a.>":     "[a.b a.b-.c a.b.c a.b.c.d a.x.c]",
		"*.b.c":   "[a-.b.c a.b.c ab.b.c b.b.c]",
		"a.*.c":   "[a.b-.c a.b.c a.x.c]",
		"*.*.c":   "[a-.b.c a.b-.c a.b.c a.x.c ab.b.c b.b.c]",
		"*.b.>":   "[a-.b.c a.b.c a.b.c.d ab.b.c b.b.c]",
		"a.b.c":   "[a.b.c]",
		"a.b":     "[a.b]",
		"zz.*":    "[zz.*]",
		"*.*.*.>": "[a.b.c.d]",
		"b.>":     "[b.b.c]",
		"c.>":     "[]",
	} {
		var got []string
		e.Subjects([]string{filter}, "", func(s string, _ storage.SubjectState) bool {
			got = append(got, s)
			return true
		})
		if fmt.Sprint(got) != want {
			t.Errorf("%s: want %s, got %v", filter, want, got)
		}
	}
	if st, ok := e.Subject("zz.*"); !ok || st.Last != 12 {
		t.Errorf("literal look-up of a subject with a wildcard token: %+v %v", st, ok)
	}
	if _, ok := e.Subject("a.*"); ok {
		t.Error("the literal look-up expanded a wildcard")
	}
}

func testHistory(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	m := newModel()
	rng := rand.New(rand.NewPCG(3, 3))
	// One subject collects a history of any length, is trimmed from the front, from the back
	// and in the middle, and goes; another stays between its messages.
	for round := range 300 {
		tx := e.Begin()
		for _, subject := range []string{"h", "other"} {
			msg := storage.Message{Seq: m.lastSeq + 1, Time: m.lastTime + 1, Subject: subject, Data: []byte("d")}
			m.append(msg)
			if err := tx.Append(msg); err != nil {
				t.Fatal(err)
			}
		}
		for range rng.IntN(2 + round/100) {
			seq := 1 + rng.Uint64N(m.lastSeq)
			was := m.remove(seq)
			if got, err := tx.Remove(seq); got != was || err != nil {
				t.Fatal(seq, was, got, err)
			}
		}
		m.applied = storage.Applied{Index: uint64(round + 1), Term: 1}
		commit(t, tx, e)
		if d := sameSubject(m, e, "h", rng.Uint64N(m.lastSeq)); d != "" {
			t.Fatal(d)
		}
	}
	if d := difference(m, e, rng, true); d != "" {
		t.Fatal(d)
	}
}

func testExpiry(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	tx := e.Begin()
	for i, expires := range []int64{0, 500, storage.NeverExpires, 300, 300, 900} {
		seq := uint64(i + 1)
		if err := tx.Append(storage.Message{Seq: seq, Time: int64(seq), Expires: expires, Subject: "a", Data: []byte("d")}); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, tx, e)
	for _, want := range []uint64{4, 5, 2, 6} {
		seq, _, ok := e.NextExpiry()
		if !ok || seq != want {
			t.Fatalf("want %d to expire first, got %d %v", want, seq, ok)
		}
		tx := e.Begin()
		if _, err := tx.Remove(seq); err != nil {
			t.Fatal(err)
		}
		commit(t, tx, e)
	}
	if seq, _, ok := e.NextExpiry(); ok {
		t.Fatalf("%d still expires", seq)
	}
}

func testNames(t *testing.T, s *site) {
	b := s.open("b")
	a := s.open("a")
	if names, err := s.store.Names(); err != nil || fmt.Sprint(names) != "[a b]" {
		t.Fatal(names, err)
	}
	if _, err := s.store.Open("a", storage.Options{}); err == nil {
		t.Error("an open engine was opened again")
	}
	if s.store.Drop("a") == nil {
		t.Error("an open engine was dropped")
	}
	put(t, a, "x")
	for _, e := range []storage.Engine{a, b} {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.store.Drop("a"); err != nil {
		t.Fatal(err)
	}
	if names, err := s.store.Names(); err != nil || len(names) > 1 || len(names) == 1 && names[0] != "b" {
		t.Fatal(names, err)
	}
	e := s.open("a")
	defer e.Close()
	if st := e.State(); st.LastSeq != 0 {
		t.Fatalf("a dropped engine came back: %+v", st)
	}
}

func testCallbackMayRead(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	for range 50 {
		put(t, e, "a", "b", "c.d", "c.e")
	}
	visits := 0
	e.Subjects([]string{"c.*", "a"}, "", func(name string, st storage.SubjectState) bool {
		put(t, e, "new."+name) // A commit does not disturb a walk, nor is it held up by one.
		e.SubjectSeqs(name, 0, func(seq uint64) bool {
			if m, err := e.Load(seq); err != nil || m.Subject != name {
				t.Errorf("sequence %d: %v", seq, err)
			}
			visits++
			return true
		})
		return true
	})
	if visits != 150 {
		t.Errorf("%d messages visited, want 150", visits)
	}
}
