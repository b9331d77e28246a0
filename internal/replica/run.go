package replica

import (
	"context"
	"time"
)

// TickInterval is how long a tick lasts in production.
const TickInterval = 100 * time.Millisecond

// missedTicksMax bounds how many ticks are made up for after a stall. A machine that slept must
// not wake into an election storm.
const missedTicksMax = 3

// lateAfter is how long the news of a commit waits for entries to travel with.
const lateAfter = time.Millisecond

// Run drives the shard until ctx is done, then closes its replicas. It is the only goroutine that
// touches them.
func (s *Shard) Run(ctx context.Context) {
	ticker := time.NewTicker(TickInterval)
	defer ticker.Stop()
	late := time.NewTimer(lateAfter)
	defer late.Stop()
	defer s.closeAll()
	last := time.Now()
	armed := true
	for {
		if s.Late() && !armed {
			late.Reset(lateAfter)
			armed = true
		}
		tick := false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			tick = true
		case <-late.C:
			armed = false
			s.SendLate()
			continue
		case <-s.inbox.wake:
		}
		if !tick {
			s.Turn(false)
			continue
		}
		now := time.Now()
		missed := int(now.Sub(last) / TickInterval)
		last = now
		for range max(1, min(missed, missedTicksMax)) {
			s.Turn(true)
		}
	}
}
