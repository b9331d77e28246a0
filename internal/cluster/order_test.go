package cluster

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/stream"
)

// What one client sends without waiting for answers is stored in the order in which it was sent, whoever leads and
// however often that changes: on a server that leads, on another member, and on one without a replica.
func TestOrderAcrossLeaders(t *testing.T) {
	c := newTrio(t, 4)
	config := bucket("b", 3, api.FileStorage)
	config.MaxMsgsPerSubject = -1
	out, _ := outsiderOf(t, c, config)
	subject := func(i int) string { return fmt.Sprintf("$KV.b.k%d", i) }
	var sent, acked, refused atomic.Int64
	end := make(chan struct{})
	done := make(chan struct{}, len(c.servers))
	for i, server := range c.servers {
		s := known(t, server)
		go func() {
			defer func() { done <- struct{}{} }()
			for n := 1; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				sent.Add(1)
				s.Propose(stream.AppendPublish(nil, subject(i), nil, strconv.AppendInt(nil, int64(n), 10)), WaiterFunc(func(_ any, err error) {
					switch {
					case err == nil:
						acked.Add(1)
					case !errors.Is(err, ErrUnknown):
						refused.Add(1)
					}
				}))
				if n%8 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	for range 30 {
		time.Sleep(50 * time.Millisecond)
		for _, server := range c.servers {
			if s := server.Stream("$G", "KV_b"); s.IsLeader() {
				_, _ = call(t, func(done func(any, error)) { s.StepDown("", func(err error) { done(nil, err) }) })
				break
			}
		}
	}
	close(end)
	for range c.servers {
		<-done
	}
	c.putAnywhere(0, "KV_b", "$KV.b.last", "x")
	member := c.servers[0]
	if member == out {
		member = c.servers[1]
	}
	m := waitStream(t, member, "KV_b")
	if _, err := get(t, m, "$KV.b.last"); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sent, %d acknowledged, %d refused", sent.Load(), acked.Load(), refused.Load())
	var last [4]int
	wrong := 0
	st := m.Machine().State()
	for seq := st.FirstSeq; seq <= st.LastSeq; seq++ {
		msg, ok, err := m.Machine().Get(seq)
		if err != nil || !ok || msg.Subject == "$KV.b.last" {
			continue
		}
		var i int
		if _, err := fmt.Sscanf(msg.Subject, "$KV.b.k%d", &i); err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(string(msg.Data))
		if n <= last[i] {
			if wrong++; wrong < 10 {
				t.Errorf("server %d (member: %v) sent %d before %d, which is stored behind it", i, !c.servers[i].Stream("$G", "KV_b").hasNoReplica(), n, last[i])
			}
		}
		last[i] = n
	}
	if wrong > 0 {
		t.Errorf("%d stored too late", wrong)
	}
	if acked.Load()*10 < sent.Load()*9 {
		t.Errorf("%d of %d were not acknowledged", sent.Load()-acked.Load(), sent.Load())
	}
}
