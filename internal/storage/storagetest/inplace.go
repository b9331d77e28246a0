package storagetest

import (
	"io"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/storage"
)

// testInPlace makes changes in place: who holds on to a state sees no change of it, who comes during a change
// sees all of it, and one that is given up spoils the engine, also for the next checkpoint.
func testInPlace(t *testing.T, s *site) {
	e := s.open("a")
	defer e.Close()
	p, ok := e.(storage.InPlacer)
	if !ok {
		return
	}
	put(t, e, "a", "b")
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	alter := func(seq uint64) storage.Tx {
		tx := p.BeginInPlace()
		m := storage.Message{Seq: seq, Time: int64(seq) * 10, Subject: "a", Data: []byte("new")}
		if err := tx.Append(m); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	commit := func(tx storage.Tx, index uint64) {
		if err := tx.Commit(storage.Applied{Index: index, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	f := e.Freeze()
	before, err := storage.DigestOf(f, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	at := e.Applied().Index
	commit(alter(3), at+1) // beside the state, which f has
	commit(alter(4), at+2) // in place
	if after, err := storage.DigestOf(f, func() error { return nil }); err != nil || after.Sum != before.Sum {
		t.Errorf("a change is seen in a state that was there before it: %v", err)
	}
	f.Release()

	commit(alter(5), at+3)
	tx := alter(6) // in place
	saw := make(chan uint64, 1)
	go func() { saw <- e.State().LastSeq }()
	select {
	case last := <-saw:
		t.Errorf("during a change the last sequence was %d", last)
	case <-time.After(20 * time.Millisecond):
	}
	commit(tx, at+4)
	if last := <-saw; last != 6 {
		t.Errorf("who waited for a change sees %d", last)
	}

	commit(alter(7), at+5)
	alter(8).Discard()
	if e.Err() == nil {
		t.Error("a change was given up half way, and the engine says nothing")
	}
	if err := e.Begin().Commit(storage.Applied{Index: at + 6, Term: 1}); err == nil {
		t.Error("a change was committed after one that was given up half way")
	}
	_ = e.Checkpoint()
	if d := e.Durable().Index; d > at+5 {
		t.Errorf("what a change left half way is said to be durable, at %d", d)
	}
	if _, err := e.WriteSnapshot(io.Discard); err == nil {
		t.Error("a snapshot was written of a change that was given up half way")
	}
}
