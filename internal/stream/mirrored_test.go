package stream

import (
	"errors"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
)

// mirror offers a message of origin 7 with its sequence as its time, and returns the refusal.
func (w *world) mirror(prev, seq uint64, subj, header string) *api.Error {
	m := &Mirrored{Origin: 7, Prev: prev, Seq: seq, Time: int64(seq), Subject: subj}
	if header != "" {
		m.Header = []byte(HeaderLine + header + "\r\n\r\n")
	}
	return w.apply(AppendMirrored(nil, m))[0].Err
}

func (w *world) wantState(msgs, first, last uint64) {
	w.t.Helper()
	if st := w.engine.State(); st.Msgs != msgs || st.FirstSeq != first || st.LastSeq != last {
		w.t.Fatalf("state is %+v, not %d messages in %d..%d", st, msgs, first, last)
	}
}

const mirrorConfig = `{"subjects":null,"mirror":{"name":"O"}}`

func TestMirrorKeepsSequencesAndTimes(t *testing.T) {
	w := newWorld(t)
	w.now = 1000
	w.configure(mirrorConfig)
	for _, step := range []struct {
		prev, seq uint64
		stored    bool
	}{{0, 3, true}, {0, 3, false}, {3, 4, true}, {5, 6, false}, {4, 9, true}, {4, 9, false}} {
		err := w.mirror(step.prev, step.seq, "o.x", "Nats-Msg-Id: same")
		if (err == nil) != step.stored || err != nil && !errors.Is(err, api.ErrWrongLastSequence) {
			t.Fatalf("%+v: %v", step, err)
		}
	}
	w.wantState(3, 3, 9)
	w.restart()
	if err := w.mirror(9, 12, "", ""); err != nil { // 10 to 12 are no more.
		t.Fatal(err)
	}
	if err := w.mirror(9, 10, "o.x", ""); err == nil {
		t.Fatal("stored behind its last sequence")
	}
	if err := w.mirror(12, 13, "o.x", "Nats-Expected-Stream: O"); err != nil {
		t.Fatal(err)
	}
	w.wantState(4, 3, 13)
	m, err := w.engine.Load(13)
	if err != nil || m.Time != 13 || string(m.Header) != HeaderLine+"Nats-Expected-Stream: O\r\n\r\n" {
		t.Fatalf("%+v, %v", m, err)
	}
	if r := w.apply(AppendPublish(nil, "o.x", nil, nil))[0]; r.Err == nil {
		t.Fatal("took a publish")
	}
}

func TestMirrorOfAnotherOrigin(t *testing.T) {
	w := newWorld(t)
	w.configure(mirrorConfig)
	if err := w.mirror(0, 1, "o.x", ""); err != nil {
		t.Fatal(err)
	}
	w.restart()
	r := w.apply(AppendMirrored(nil, &Mirrored{Origin: 8, Prev: 1, Seq: 2, Time: 2, Subject: "o.x"}))[0]
	if !errors.Is(r.Err, ErrOriginReplaced) {
		t.Fatalf("%+v", r)
	}
	w.wantState(1, 1, 1)
}

func TestPromotedMirror(t *testing.T) {
	w := newWorld(t)
	w.configure(mirrorConfig)
	if err := w.mirror(0, 5, "o.x", ""); err != nil {
		t.Fatal(err)
	}
	w.configure(`{}`)
	if err := w.mirror(5, 6, "o.x", ""); err == nil {
		t.Fatal("still a mirror")
	}
	if r := w.apply(AppendPublish(nil, "a.x", nil, nil))[0]; r.Err != nil || r.Seq != 6 {
		t.Fatalf("%+v", r)
	}
}
