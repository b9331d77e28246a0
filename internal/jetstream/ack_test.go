package jetstream

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// Once it is not known whether the log has what a consumer did, nothing that it does counts, nor is confirmed,
// until it went on from what the log has: or messages would be passed over, or come again after their
// acknowledgement was confirmed.
func TestConsumerStopsAtUnknownOutcome(t *testing.T) {
	s := startServer(t, nil)
	s.ok("$JS.API.STREAM.CREATE.KV_b", strings.Replace(testBucket, `"memory"`, `"file"`, 1))
	for _, key := range []string{"a", "b", "c", "d"} {
		s.ok("$KV.b."+key, "v")
	}
	s.consumer("d", `{"durable_name":"d","ack_policy":"explicit","ack_wait":60000000000}`)
	ch, _ := s.listen("P.>")
	acks, _ := s.listen("A.>")
	pull := func(n string) message {
		t.Helper()
		for s.account.Publish(nil, "$JS.API.CONSUMER.MSG.NEXT.KV_b.d", "P."+n, nil, []byte(`{"batch":1,"expires":5000000000}`)) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		return next(t, ch)
	}
	pull("1")
	waitReplicated(t, s, "d")
	set := s.service.setOf(s.cluster.Stream("$G", "KV_b"))
	f := set.get("d")

	// The next two are handed out by a piece of the journal of which nobody knows what became.
	f.mu.Lock()
	f.journal.underway = true
	f.mu.Unlock()
	second := pull("2")
	pull("3")
	set.following.Lock() // The feed is not replaced yet.
	unlock := sync.OnceFunc(set.following.Unlock)
	defer unlock()
	f.mu.Lock()
	f.journal.sent, f.journal.next = f.journal.next, nil
	f.mu.Unlock()
	f.proposed(nil, errors.New("who knows"))
	s.account.Publish(nil, second.reply, "A.1", nil, nil)
	quiet(t, acks, 200*time.Millisecond)
	unlock()

	// Whoever goes on does not know of their delivery.
	for set.get("d") == f || set.get("d") == nil {
		time.Sleep(10 * time.Millisecond)
	}
	s.account.Publish(nil, second.reply, "A.2", nil, nil)
	quiet(t, acks, 200*time.Millisecond)
	for n, want := range []int{2, 3, 4} {
		m := pull("4")
		if count, seq, _, _ := metadata(t, m); seq != want || count != 1 {
			t.Errorf("message %d is %+v", n, m)
		}
		if ack := s.request(m.reply, "", ""); ack.data != "" {
			t.Errorf("answer to an acknowledgement: %+v", ack)
		}
	}
}
