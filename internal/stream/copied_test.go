package stream

import (
	"errors"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// copies offers messages of an origin in one log entry and returns what came of each: the sequence,
// or 0 if refused. Each is a pair of the position that the proposer believed in and its sequence.
func (w *world) copies(key string, origin uint64, pairs ...[2]uint64) (seqs []uint64) {
	var commands [][]byte
	for _, p := range pairs {
		m := storage.Message{Seq: p[1], Subject: "o.x", Data: []byte("v")}
		commands = append(commands, AppendCopied(nil, &Copied{
			Source: key, Origin: origin, Prev: p[0], Seq: p[1],
			Subject: m.Subject, Header: HeaderOfCopy(&m, key), Data: m.Data,
		}))
	}
	for _, r := range w.apply(commands...) {
		if (r.Err == nil) != (r.Seq > 0) {
			w.t.Fatalf("%+v", r)
		}
		seqs = append(seqs, r.Seq)
	}
	return seqs
}

func (w *world) wantCopies(got []uint64, want ...uint64) {
	w.t.Helper()
	for i := range want {
		if got[i] != want[i] {
			w.t.Fatalf("the copies are %v, not %v", got, want)
		}
	}
}

const sourced = `{"sources":[{"name":"O"},{"name":"P","filter_subject":"o.>"}]}`

func TestCopiesAreStoredOnceAndInOrder(t *testing.T) {
	w := newWorld(t)
	w.configure(sourced)
	o, p := "O > >", "P o.> >"
	w.wantCopies(w.copies(o, 7, [2]uint64{0, 2}, [2]uint64{2, 3}), 1, 2)
	// Another proposer, who knew less, sends them again; and one that skips a message.
	w.wantCopies(w.copies(o, 7, [2]uint64{0, 2}, [2]uint64{2, 3}, [2]uint64{4, 5}, [2]uint64{3, 3}), 0, 0, 0, 0)
	w.wantCopies(w.copies(p, 8, [2]uint64{0, 2}), 3)
	w.restart()
	w.wantCopies(w.copies(o, 7, [2]uint64{2, 3}, [2]uint64{3, 9}), 0, 4)
	if origin, seq, err := w.s.SourcePosition(o); err != nil || origin != 7 || seq != 9 {
		t.Fatalf("copied up to %d of %d", seq, origin)
	}
	// A later origin of the same name begins anew; what is left of the old one is refused.
	w.wantCopies(w.copies(o, 9, [2]uint64{0, 1}), 5)
	w.wantCopies(w.copies(o, 7, [2]uint64{9, 10}, [2]uint64{0, 1}), 0, 0)
	// A source that is not configured is refused, and goes on when it is again.
	w.configure(`{"sources":[{"name":"O"}]}`)
	w.wantCopies(w.copies(p, 8, [2]uint64{2, 3}), 0)
	w.configure(sourced)
	w.wantCopies(w.copies(p, 8, [2]uint64{0, 2}, [2]uint64{2, 3}), 0, 6)
}

func TestCopyWaitsForRoom(t *testing.T) {
	w := newWorld(t)
	w.configure(`{"sources":[{"name":"O"}],"discard":"new","max_msgs":2}`)
	o := "O > >"
	// The third does not fit, so the fourth may not be stored either once there is room.
	w.wantCopies(w.copies(o, 7, [2]uint64{0, 1}, [2]uint64{1, 2}, [2]uint64{2, 3}), 1, 2, 0)
	w.apply(EncodeDelete(&Delete{Seq: 1}))
	w.wantCopies(w.copies(o, 7, [2]uint64{3, 4}, [2]uint64{2, 3}), 0, 3)
}

func TestCopyIsPassedOver(t *testing.T) {
	w := newWorld(t)
	w.configure(`{"sources":[{"name":"O"}],"max_msg_size":100,"duplicate_window":1000000000}`)
	offer := func(prev, seq uint64, header string, data int) *Result {
		m := storage.Message{Seq: seq, Subject: "o.x", Header: []byte(HeaderLine + header + "\r\n")}
		return w.apply(AppendCopied(nil, &Copied{
			Source: "O > >", Origin: 7, Prev: prev, Seq: seq,
			Subject: m.Subject, Header: HeaderOfCopy(&m, "O > >"), Data: make([]byte, data),
		}))[0]
	}
	if r := offer(0, 1, "", 200); r.Err != nil || r.Seq != 0 {
		t.Fatalf("too large: %+v", r)
	}
	if r := offer(1, 2, "Nats-Msg-Id: a\r\n", 1); r.Err != nil || r.Seq != 1 {
		t.Fatalf("first of an id: %+v", r)
	}
	if r := offer(2, 3, "Nats-Msg-Id: a\r\n", 1); r.Err != nil || !r.Duplicate {
		t.Fatalf("second of an id: %+v", r)
	}
	if r := offer(2, 4, "", 1); !errors.Is(r.Err, api.ErrWrongLastSequence) {
		t.Fatalf("out of order: %+v", r)
	}
	if r := offer(3, 4, "", 1); r.Seq != 2 {
		t.Fatalf("next: %+v", r)
	}
}

func TestHeaderOfCopy(t *testing.T) {
	m := &storage.Message{Seq: 5, Subject: "a.b", Header: []byte(HeaderLine + "X: 1\r\nNats-Expected-Stream: O\r\n" +
		"Nats-Msg-Id: i\r\nNats-Batch-Id: b\r\nNats-Stream-Source: Z 1 > > a\r\n\r\n")}
	s := api.StreamSource{Name: "O", SubjectTransforms: []api.SubjectTransform{{Source: "a.>", Destination: "c.>"}}}
	want := HeaderLine + "X: 1\r\nNats-Msg-Id: i\r\nNats-Stream-Source: O 5 a.> c.> a.b\r\n\r\n"
	if got := string(HeaderOfCopy(m, s.Key())); got != want {
		t.Fatalf("got %q", got)
	}
}
