package jetstream

import (
	"sync"
	"time"
)

// clock is the time by which consumers work, in Unix nanoseconds. Their deadlines are points in time, some of which
// other servers are told, so it follows the wall clock; but it never steps with it. After a step back of an
// hour heartbeats would be missed, and redeliveries and paused feeds hang, for that hour; after one forward all
// that waits for a client would have waited too long.
//
// It runs by the monotonic clock, and a little faster or slower than that until it shows the wall clock's time again.
type clock struct {
	read clocks // nil: those of the machine

	mu struct {
		sync.Mutex
		begun     bool
		monotonic time.Duration // as last read
		now       int64         // as last told
	}
}

// clocks reads both clocks of a machine.
type clocks func() (wall int64, monotonic time.Duration)

// clockSlew is by which part of the time that passed the clock may differ from that.
const clockSlew = 10

// now never goes back.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, monotonic := c.both()
	if !c.mu.begun {
		c.mu.begun, c.mu.now = true, wall
	} else {
		passed := int64(monotonic - c.mu.monotonic)
		behind := wall - (c.mu.now + passed)
		c.mu.now += passed + min(max(behind, -passed/clockSlew), passed/clockSlew)
	}
	c.mu.monotonic = monotonic
	return c.mu.now
}

// in is the time after a while.
func (c *clock) in(d time.Duration) int64 { return c.now() + int64(d) }

func (c *clock) both() (wall int64, monotonic time.Duration) {
	if c.read != nil {
		return c.read()
	}
	now := time.Now()
	return now.UnixNano(), now.Sub(epoch)
}
