package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// Concurrent has an owner change an engine while readers read and background work goes on, and
// checks what can be checked without standing still: every message that is found is whole, a
// reader never sees a part of a commit, and what a subject's state names is there or was replaced.
// It is for the race detector, too.
func Concurrent(t *testing.T, k Kind, commits int) {
	s := newSite(t, k, vfs.NewMem())
	e := s.open("e")
	c := &contest{t: t, e: e}
	var wg sync.WaitGroup
	for _, run := range []func(){c.readSubjects, c.readTail, c.readPairs, c.maintain} {
		wg.Go(func() {
			for !c.done.Load() && !t.Failed() {
				run()
			}
		})
	}
	c.write(commits)
	c.done.Store(true)
	wg.Wait()
	if err := e.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Err(), e.Close(), s.store.Close()); err != nil {
		t.Fatal(err)
	}
}

// contest keeps pairs: two subjects that every commit replaces together, with the same number in
// their data, and two more messages that come and stay for a while.
type contest struct {
	t    *testing.T
	e    storage.Engine
	done atomic.Bool
}

const contestPairs = 50

func body(seq uint64, text string) []byte {
	return fmt.Appendf(nil, "%d %s %s", seq, text, bytes.Repeat([]byte{byte('a' + seq%26)}, int(seq%300)))
}

func (c *contest) write(commits int) {
	for i := range commits {
		tx := begin(c.e)
		for j, side := range []string{"left", "right", "extra", "extra"} {
			subject := fmt.Sprintf("%s.%d", side, i*7%contestPairs)
			if j == 3 {
				subject = fmt.Sprintf("old.%d", i)
			}
			seq := tx.State().LastSeq + 1
			m := storage.Message{Seq: seq, Time: int64(seq), Subject: subject, Data: body(seq, subject)}
			prior, had := tx.Subject(subject)
			if err := tx.Append(m); err != nil {
				c.t.Error(err)
			}
			if had && side != "extra" {
				if was, err := tx.Remove(prior.Last); err != nil || !was {
					c.t.Errorf("removing %d: %v %v", prior.Last, was, err)
				}
			}
		}
		if i > 200 {
			if _, err := tx.Remove(tx.State().FirstSeq); err != nil {
				c.t.Error(err)
			}
		}
		tx.SetAux("commit", fmt.Append(nil, i))
		if err := tx.Commit(storage.Applied{Index: uint64(i + 1), Term: 1}); err != nil {
			c.t.Error(err)
			return
		}
	}
}

// load loads a message that may be gone by now.
func (c *contest) load(seq uint64) (storage.Message, bool) {
	m, err := c.e.Load(seq)
	if errors.Is(err, storage.ErrNotFound) {
		return m, false
	}
	if err != nil || m.Seq != seq || !bytes.Equal(m.Data, body(seq, m.Subject)) {
		c.t.Errorf("loading %d: %v %q, %v", seq, brief(m), m.Data, err)
		return m, false
	}
	return m, true
}

func (c *contest) readSubjects() {
	c.e.Subjects([]string{"left.*", "extra.>"}, "", func(s string, st storage.SubjectState) bool {
		if m, ok := c.load(st.Last); ok && m.Subject != s {
			c.t.Errorf("%s is said to end in %d, which is of %s", s, st.Last, m.Subject)
		}
		if st.First > st.Last || st.Msgs == 0 {
			c.t.Errorf("%s: %+v", s, st)
		}
		return true
	})
}

func (c *contest) readTail() {
	last := c.e.State().LastSeq
	for seq := last; seq+20 > last && seq > 0; seq-- {
		c.load(seq)
	}
	if seq, subject, ok := c.e.NextSeq([]string{"old.*"}, last/2); ok && (seq < last/2 || subject[:4] != "old.") {
		c.t.Errorf("next from %d: %d %s", last/2, seq, subject)
	}
	c.e.SeqAtTime(int64(last / 2))
}

// readPairs counts both sides: they come together.
func (c *contest) readPairs() {
	seen := 0
	c.e.Subjects([]string{"left.*", "right.*"}, "", func(string, storage.SubjectState) bool {
		seen++
		return true
	})
	if seen%2 != 0 {
		c.t.Errorf("%d halves of pairs were seen", seen)
	}
}

func (c *contest) maintain() {
	f := c.e.Freeze()
	defer f.Release()
	before, err := storage.DigestOf(f, func() error { return nil })
	if err == nil {
		err = c.e.Checkpoint()
	}
	for more := true; more && err == nil; {
		more, err = c.e.Compact()
	}
	if err == nil {
		_, err = c.e.WriteSnapshot(io.Discard)
	}
	if err == nil {
		err = c.e.Verify()
	}
	if err == nil {
		var after storage.Digest
		if after, err = storage.DigestOf(f, func() error { return nil }); after.Sum != before.Sum || after.At.Index != before.At.Index {
			c.t.Errorf("a frozen state is another one later: at %d, then at %d", before.At.Index, after.At.Index)
		}
	}
	if err != nil {
		c.t.Errorf("background: %v", err)
	}
}
