package stream

import (
	"fmt"
	"testing"
)

// The last messages of many subjects are those of one moment, also when each was replaced before it is
// read.
func TestMultiLastIsOneMoment(t *testing.T) {
	w := newWorld(t)
	w.configure(`{"max_msgs":-1,"max_bytes":-1,"max_msgs_per_subject":1}`)
	put := func(value string) {
		for key := range 5 {
			w.apply(AppendPublish(nil, fmt.Sprintf("a.%d", key), nil, []byte(value)))
		}
	}
	put("old")
	held, seqs, bound, err := w.s.MultiLast([]string{"a.*"}, 0, 10)
	if err != nil || len(seqs) != 5 || bound != 5 {
		t.Fatal(seqs, bound, err)
	}
	defer held.Release()
	put("new")
	for key, seq := range seqs {
		m, err := held.Load(seq)
		if err != nil || m.Subject != fmt.Sprintf("a.%d", key) || string(m.Data) != "old" {
			t.Errorf("message %d: %+v %v", seq, m, err)
		}
	}
}
