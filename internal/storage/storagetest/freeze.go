package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
)

// testFreeze changes an engine in every way while a state of it is held on to, which must stay what it was:
// everything is replaced, moved, removed, and in the end the engine takes in another state.
func testFreeze(t *testing.T, s *site) {
	e := s.open("e")
	replace := func(round int) {
		for i := range 40 {
			tx := e.Begin()
			last, subject := tx.State(), fmt.Sprintf("k.%d", i)
			prior, had := tx.Subject(subject)
			m := storage.Message{Seq: last.LastSeq + 1, Time: last.LastTime + 1, Subject: subject, Data: bytes.Repeat([]byte{byte(round)}, 5000)}
			err := tx.Append(m)
			if err == nil && had {
				_, err = tx.Remove(prior.Last)
			}
			tx.SetAux(fmt.Sprintf("aux/%d", i%7), fmt.Appendf(nil, "%d in round %d", i, round))
			if err = errors.Join(err, tx.Commit(storage.Applied{Index: m.Seq, Term: 1})); err != nil {
				t.Fatal(err)
			}
		}
		err := e.Checkpoint()
		for more := true; more && err == nil; {
			more, err = e.Compact()
		}
		if err = errors.Join(err, e.Checkpoint()); err != nil {
			t.Fatal(err)
		}
	}
	digest := func(f storage.Frozen) storage.Digest {
		t.Helper()
		d, err := storage.DigestOf(f, func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	replace(1)
	var first bytes.Buffer
	if _, err := e.WriteSnapshot(&first); err != nil {
		t.Fatal(err)
	}
	f := e.Freeze()
	was, saw := digest(f), readAll(t, f)
	for round := range 5 {
		replace(2 + round)
		if d := digest(f); d.Sum != was.Sum || d.At.Index != was.At.Index {
			t.Fatalf("round %d: at %d, %x, where it was at %d, %x", round, d.At.Index, d.Sum, was.At.Index, was.Sum)
		}
		if sees := readAll(t, f); sees != saw {
			t.Fatalf("round %d: it reads\n%s\nwhere it read\n%s", round, sees, saw)
		}
	}
	if readAll(t, e) == saw {
		t.Error("another state reads the same")
	}
	now := e.Freeze()
	newest := digest(now)
	if newest.Sum == was.Sum {
		t.Error("another state has the same digest")
	}
	if err := e.InstallSnapshot(&first); err != nil {
		t.Fatal(err)
	}
	if d := digest(now); d.Sum != newest.Sum {
		t.Error("another one after a snapshot was installed")
	}
	if readAll(t, f) != saw {
		t.Error("it reads something else after a snapshot was installed")
	}
	now.Release()
	stop := errors.New("stop")
	if _, err := storage.DigestOf(f, func() error { return stop }); !errors.Is(err, stop) {
		t.Errorf("it was told to stop, and said %v", err)
	}
	f.Release()
	again := e.Freeze()
	if d := digest(again); d.Sum != was.Sum {
		t.Error("the installed state is not the one that was sent")
	}
	again.Release()
	if err := errors.Join(e.Err(), e.Close()); err != nil {
		t.Fatal(err)
	}
}

// readAll tells what all methods of a reader answer.
func readAll(t *testing.T, r storage.Reader) string {
	t.Helper()
	var b strings.Builder
	st, filters := r.State(), []string{"k.1", "k.*"}
	fmt.Fprintf(&b, "%+v %d\n", st, r.Applied().Index)
	for seq, subject, ok := r.NextSeq(filters, 0); ok; seq, subject, ok = r.NextSeq(filters, seq+1) {
		m, err := r.Load(seq)
		if err != nil {
			t.Fatal(err)
		}
		s, there := r.Subject(subject)
		fmt.Fprintf(&b, "%d %s %d %x %+v %v\n", seq, m.Subject, m.Time, m.Data[:1], s, there)
		r.SubjectSeqs(subject, 0, func(seq uint64) bool {
			fmt.Fprint(&b, seq, " ")
			return true
		})
	}
	r.Subjects(filters, "k.2", func(subject string, s storage.SubjectState) bool {
		fmt.Fprint(&b, subject, s, " ")
		return true
	})
	last, _ := r.LastSeq("k.*", st.LastSeq-7)
	expires, _, _ := r.NextExpiry()
	fmt.Fprintln(&b, last, expires, r.Count(filters, st.FirstSeq+3, true), r.SeqAtTime(st.FirstTime+2))
	r.AuxRange("aux/", func(key string, value []byte) bool {
		same, _ := r.Aux(key)
		fmt.Fprintf(&b, "%s=%s=%s\n", key, value, same)
		return true
	})
	if s, ok := r.(storage.Scanner); ok {
		if err := s.Scan(filters, 0, 10, func(m *storage.Message) bool {
			fmt.Fprint(&b, m.Seq, m.Subject, len(m.Data), " ")
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
