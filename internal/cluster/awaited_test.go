package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// A server that is being sent the first state of a replica says so until it has it.
func TestServerWithoutStateIsNotHealthy(t *testing.T) {
	c := prepareTrio(t, 3)
	c.more = func(o *Options) { o.TransferRate = 1 << 20 }
	c.startAll()
	create(t, c.servers[0], bucket("b", 1, api.FileStorage))
	for i := range 4 {
		c.putAnywhere(0, "KV_b", fmt.Sprintf("$KV.b.k%d", i), strings.Repeat("v", 1<<20))
	}
	if _, err := call(t, func(done func(*Stream, error)) {
		c.servers[0].UpdateStream("$G", bucket("b", 3, api.FileStorage), noLimits, done)
	}); err != nil {
		t.Fatal(err)
	}
	said := make([]string, 3)
	eventually(t, "all have it, and all but one have said that they wait for it", func() bool {
		silent := 0
		for i, s := range c.servers {
			err := s.Healthy()
			if err != nil && strings.Contains(err.Error(), "KV_b") && strings.Contains(err.Error(), "its replica here is receiving the state") {
				said[i] = err.Error()
			}
			if said[i] == "" {
				silent++
			}
			st := s.Stream("$G", "KV_b")
			if err != nil || st == nil || st.Assignment().Plan != nil || len(st.Assignment().Replicas) != 3 {
				silent = 3
			}
		}
		return silent == 1
	})
}

// One that nobody offers a state says so for a while, and does not keep those who wait for it for ever.
func TestNobodyWaitsForAStateThatDoesNotCome(t *testing.T) {
	c := New(Options{Name: "n", Logger: logger(t)})
	g := newGroup(c, 7, nil, nil)
	now := time.Now()
	g.awaits.set(now)
	if err := c.snapshots.awaited(g, 3, now.Add(time.Minute)); err == nil {
		t.Error("a minute after the start it says nothing")
	}
	if err := c.snapshots.awaited(g, 3, now.Add(awaitedFor+time.Second)); err != nil {
		t.Errorf("long after the start it says %v", err)
	}
}
