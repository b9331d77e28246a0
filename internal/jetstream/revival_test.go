package jetstream

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// What is known of another server's watchers follows what that server says, and whether it is there.
func TestRevivalKnowsWhatIsLost(t *testing.T) {
	r := &revival{far: make(map[farKey]*farWatch), wake: make(chan struct{}, 1)}
	hear := func(from uint64, news watchNews) {
		t.Helper()
		news.Account, news.Stream = "$G", "KV_b"
		b, err := json.Marshal(news)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.receive(from, b); err != nil {
			t.Fatal(err)
		}
	}
	began := func(names ...string) (news watchNews) {
		for _, n := range names {
			news.Began = append(news.Began, watch{Config: api.ConsumerConfig{Name: n, DeliverSubject: "_INBOX." + n}})
		}
		return news
	}
	due := func(after time.Duration, want ...string) {
		t.Helper()
		got := r.due(time.Now().Add(after))
		for _, name := range want {
			k := farKey{"$G", "KV_b", name}
			if w := got[k]; w == nil || w.Config.DeliverSubject != "_INBOX."+name {
				t.Errorf("%s is not due: %+v", name, w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d are due, not %d", len(got), len(want))
		}
	}
	hear(1, began("a", "b", "c"))
	hear(2, began("d"))
	due(time.Minute)

	r.peerChanged(1, "", false)
	due(0) // The connection may come back.
	due(time.Second, "a", "b", "c")

	r.peerChanged(1, "", true)
	hear(1, began("b")) // All that server 1 has now: it was started again, or a and c moved.
	due(time.Second, "a", "c")

	hear(2, watchNews{Ended: []string{"a"}}) // It was not server 2's.
	hear(2, watchNews{Lost: []string{"d", "b"}})
	due(time.Second, "a", "c", "d")

	hear(1, watchNews{Ended: []string{"a", "b"}})
	due(time.Second, "c", "d")
	due(reviveFor + time.Minute)
	if len(r.far) != 0 || r.lost != 0 {
		t.Errorf("%d are remembered, %d of them lost", len(r.far), r.lost)
	}
	if r.receive(1, []byte("{")) == nil {
		t.Error("a malformed frame is accepted")
	}
}
