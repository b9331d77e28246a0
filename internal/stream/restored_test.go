package stream

import (
	"testing"

	"github.com/cleatkv/cleat/internal/api"
)

// restore offers a message of a backup with its sequence as its time, and returns the refusal.
func (w *world) restore(prev, seq uint64, subj, header string) *api.Error {
	m := &Restored{Prev: prev, Seq: seq, Time: int64(seq), Subject: subj}
	if header != "" {
		m.Header = []byte(HeaderLine + header + "\r\n\r\n")
	}
	return w.apply(AppendRestored(nil, m))[0].Err
}

func TestRestoreKeepsSequencesAndTimes(t *testing.T) {
	w := newWorld(t)
	w.now = 1000
	w.configure(`{"subjects":null,"max_msgs_per_subject":2,"metadata":{"cleat.restoring":"true"}}`)
	for _, step := range []struct {
		prev, seq uint64
		subject   string
		want      *api.Error
	}{
		{0, 3, "o.x", nil},
		{0, 3, "o.x", api.ErrWrongLastSequence}, // Proposed twice.
		{3, 4, "o.x", nil},
		{5, 6, "o.x", api.ErrWrongLastSequence}, // One before it is missing.
		{4, 9, "o.x", nil},                      // The third: the first one goes.
		{9, 12, "", nil},                        // 10 to 12 are no more.
	} {
		if err := w.restore(step.prev, step.seq, step.subject, "KV-Operation: DEL"); (err == nil) != (step.want == nil) {
			t.Fatalf("%+v: %v", step, err)
		}
	}
	w.wantState(2, 4, 12)
	w.restart()
	m, err := w.engine.Load(9)
	if err != nil || m.Time != 9 || string(m.Header) != HeaderLine+"KV-Operation: DEL\r\n\r\n" {
		t.Fatalf("%+v, %v", m, err)
	}
	w.configure(`{"subjects":["o.*"],"max_msgs_per_subject":2}`)
	if err := w.restore(12, 13, "o.x", ""); err == nil {
		t.Fatal("takes messages of a backup after the restore")
	}
	if r := w.apply(AppendPublish(nil, "o.x", nil, nil))[0]; r.Err != nil || r.Seq != 13 {
		t.Fatalf("%+v: does not go on behind the backup", r)
	}
}
