package jetstream

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// What is known of another server's watchers follows what that server says, and whether it is there.
func TestRevivalKnowsWhatIsLost(t *testing.T) {
	away := map[uint64]bool{}
	r := &revival{far: make(map[farKey]*farWatch), wake: make(chan struct{}, 1), reachable: func(id uint64) bool { return !away[id] }}
	turn := func(server uint64, up bool) {
		away[server] = !up
		r.peerChanged(server, "", up)
	}
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

	turn(1, false)
	due(0) // The connection may come back.
	due(time.Second, "a", "b", "c")

	turn(1, true)
	hear(1, began("b")) // All that server 1 has now: it was started again, or a and c moved.
	due(time.Second, "a", "c")

	hear(2, watchNews{Ended: []string{"a"}}) // It was not server 2's.
	hear(2, watchNews{Lost: []string{"d", "b"}})
	due(time.Second, "a", "c", "d")

	hear(1, watchNews{Ended: []string{"a", "b"}})
	due(time.Second, "c", "d")

	turn(1, false)
	hear(1, began("e")) // Its last words took longer than the news that it is gone.
	due(time.Second, "c", "d", "e")
	turn(1, true)
	hear(1, began("e")) // It was another one, or was back soon; it was asked.
	due(time.Second, "c", "d")

	orphans := began("c", "e", "f")
	orphans.Began, orphans.Orphans = nil, orphans.Began
	hear(3, orphans) // It does not know that server 1 has e.
	due(time.Second, "c", "d", "f")
	moved := began("g")
	moved.Lost, moved.Began, moved.Orphans = []string{"g"}, nil, moved.Began
	hear(4, moved) // It lost its replica, and had not told this server, which has one since then.
	due(time.Second, "c", "d", "f", "g")
	hear(1, watchNews{Ended: []string{"e"}})
	due(reviveFor + time.Minute)
	if len(r.far) != 0 || r.lost != 0 {
		t.Errorf("%d are remembered, %d of them lost", len(r.far), r.lost)
	}
	if r.receive(1, []byte("{")) == nil {
		t.Error("a malformed frame is accepted")
	}
}

// A leader is told once of a lost consumer, and again when it was away meanwhile.
func TestRevivalPassesWhatIsLost(t *testing.T) {
	k := farKey{"$G", "KV_b", "a"}
	w := &farWatch{server: 1, lost: time.Now()}
	r := &revival{far: map[farKey]*farWatch{k: w}, lost: 1, wake: make(chan struct{}, 1)}
	for i, c := range []struct {
		leader uint64
		want   bool
	}{{0, false}, {2, true}, {2, false}, {3, true}, {3, false}} {
		if got := r.mayPass(k, w, c.leader); got != c.want {
			t.Errorf("%d: told leader %d: %v", i, c.leader, got)
		}
	}
	r.peerChanged(3, "", false)
	r.peerChanged(3, "", true)
	if !r.mayPass(k, w, 3) {
		t.Error("the leader was started again and is not told")
	}
	r.forget(k)
	r.peerChanged(3, "", false)
	if r.mayPass(k, w, 3) {
		t.Error("a leader is told of a consumer that is not lost any more")
	}
}
