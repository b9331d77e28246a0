package chaos

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cleatkv/cleat/test/process"
)

// What a client sends to one key without waiting for answers is stored in the order in which it was sent, while the lead is
// handed over again and again: the last that was acknowledged is never overwritten by one that was sent before.
func TestOrderOfPipelinedWrites(t *testing.T) {
	servers := process.NewCluster(t, 4, "")
	createBucket(t, servers[0], bucket, "file", 3)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var sent, answered atomic.Int64
	done := make(chan struct{}, len(servers))
	for i, s := range servers {
		nc := s.Connect(t, nats.IgnoreDiscoveredServers())
		inbox := nats.NewInbox()
		if _, err := nc.Subscribe(inbox, func(*nats.Msg) { answered.Add(1) }); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer func() { done <- struct{}{} }()
			for n := 1; ctx.Err() == nil; n++ {
				_ = nc.PublishRequest("$KV."+bucket+".own."+strconv.Itoa(i), inbox, strconv.AppendInt(nil, int64(n), 10))
				sent.Add(1)
				if n%8 == 0 {
					_ = nc.Flush()
					time.Sleep(2 * time.Millisecond)
				}
			}
			_ = nc.Flush()
		}()
	}
	admin := servers[0].Connect(t, nats.IgnoreDiscoveredServers())
	moved := 0
	for range 12 {
		time.Sleep(150 * time.Millisecond)
		if m, err := admin.Request("$JS.API.STREAM.LEADER.STEPDOWN.KV_"+bucket, nil, 5*time.Second); err == nil && len(m.Data) > 0 {
			moved++
		}
	}
	cancel()
	for range servers {
		<-done
	}
	time.Sleep(time.Second)
	stored, err := readStored(t, servers[0], bucket, 1)
	if err != nil {
		t.Fatal(err)
	}
	last, wrong := map[string]int{}, 0
	for _, r := range stored {
		n, _ := strconv.Atoi(r.value)
		if n <= last[r.key] {
			if wrong++; wrong <= 10 {
				t.Errorf("%s: %d is stored behind %d, which was sent later", r.key, n, last[r.key])
			}
		}
		last[r.key] = max(last[r.key], n)
	}
	t.Logf("%d sent, %d answered, %d stored, %d too late; the lead was handed over %d times", sent.Load(), answered.Load(), len(stored), wrong, moved)
	if moved == 0 {
		t.Error("the lead was never handed over")
	}
}
