package jetstream

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// stepped is a wall clock that can be set, beside a monotonic one that cannot.
type stepped struct{ by atomic.Int64 }

func (s *stepped) read() (wall int64, monotonic time.Duration) {
	t := time.Now()
	return t.UnixNano() + s.by.Load(), t.Sub(epoch)
}

// The clock of the consumers neither steps nor stays wrong for ever.
func TestClockFollowsWithoutSteps(t *testing.T) {
	for _, step := range []time.Duration{-3 * time.Hour, -time.Second, 0, time.Second, 3 * time.Hour} {
		var wall, monotonic time.Duration
		c := clock{read: func() (int64, time.Duration) { return int64(wall), monotonic }}
		pass := func(d time.Duration) (told time.Duration) {
			before := c.now()
			wall, monotonic = wall+d, monotonic+d
			return time.Duration(c.now() - before)
		}
		wall = 1000 * time.Hour
		if told := pass(time.Minute); told != time.Minute {
			t.Fatalf("a minute was %s", told)
		}
		wall += step
		var total time.Duration
		for range 40 * 60 {
			told := pass(time.Minute)
			total += told
			if told < 54*time.Second || told > 66*time.Second {
				t.Fatalf("after a step of %s a minute was %s", step, told)
			}
		}
		if now := time.Duration(c.now()); now != wall {
			t.Errorf("40 hours after a step of %s it is off by %s", step, now-wall)
		}
	}
}

// The trap: heartbeats, redeliveries and feeds that paused for a slow client waited for a time of the wall clock. An
// hour's step back had them wait for an hour; one forward ended consumers that are not used all the time, and sent out
// everything again that was not acknowledged.
func TestConsumersOutliveClockSteps(t *testing.T) {
	var wall stepped
	s := startServer(t, func(o *Options) { o.clocks = wall.read })
	s.bucket()
	s.ok("$KV.b.a", "value")
	heard, _ := s.listen("D.w")
	s.consumer("w.$KV.b.>", `{"name":"w","deliver_policy":"last_per_subject","filter_subject":"$KV.b.>","deliver_subject":"D.w",`+
		`"flow_control":true,"idle_heartbeat":200000000,"mem_storage":true,"num_replicas":1,"max_deliver":1}`)
	work, _ := s.listen("D.d")
	s.ok("$JS.API.CONSUMER.CREATE.KV_b.d.$KV.b.>", `{"stream_name":"KV_b","config":{"name":"d","durable_name":"d","ack_policy":"explicit",`+
		`"ack_wait":1000000000,"filter_subject":"$KV.b.>","deliver_subject":"D.d","num_replicas":1}}`)
	s.consumer("idle", `{"name":"idle","ack_policy":"none","inactive_threshold":600000000000}`)
	next(t, heard)
	next(t, work)
	for _, step := range []time.Duration{-time.Hour, 2 * time.Hour} {
		wall.by.Add(int64(step))
		for range 3 {
			if m := next(t, heard); !strings.Contains(m.header, "Idle Heartbeat") {
				t.Fatalf("after a step of %s came %+v", step, m)
			}
		}
		if count, _, _, _ := metadata(t, next(t, work)); count < 2 {
			t.Errorf("after a step of %s delivery %d", step, count)
		}
		s.ok("$JS.API.CONSUMER.INFO.KV_b.idle", "")
	}
}
