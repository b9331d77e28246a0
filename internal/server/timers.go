package server

import (
	"math/rand/v2"
	"time"

	"github.com/cleatkv/cleat/internal/wire"
)

// firstPing is when a connection is pinged first, to learn its round trip time early.
const firstPing = 2 * time.Second

// startTimers begins the pings, and the time to authenticate if that is required.
func (c *conn) startTimers() {
	o := c.srv.options()
	delay := min(o.PingInterval, firstPing+rand.N(time.Second))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.stop.IsZero() {
		return
	}
	c.mu.ping = time.AfterFunc(delay, c.pingDue)
	if !c.authed {
		c.mu.limit = time.AfterFunc(o.AuthTimeout, func() { c.fail(errAuthTimeout, AuthenticationTimeout) })
	}
}

func (c *conn) stopTimers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.ping != nil {
		c.mu.ping.Stop()
	}
	if c.mu.limit != nil {
		c.mu.limit.Stop()
	}
}

// pingDue runs once per interval: it pings a client that was silent, and gives up on one that left
// too many pings without an answer.
func (c *conn) pingDue() {
	if c.ending.Load() {
		return
	}
	o := c.srv.options()
	quiet := time.Since(c.start)-time.Duration(c.stats.last.Load()) >= o.PingInterval
	c.mu.Lock()
	if !quiet {
		c.mu.pongs = 0 // Whatever it sent shows that it lives.
	}
	if c.mu.pongs >= o.PingMax {
		c.mu.Unlock()
		c.srv.stale.Add(1)
		c.fail(errStale, StaleConnection)
		return
	}
	ping := quiet || c.mu.pinged.IsZero()
	if ping {
		c.mu.pongs++
		c.mu.pinged = time.Now()
	}
	c.mu.ping.Reset(o.PingInterval)
	c.mu.Unlock()
	if ping {
		c.client.Send(nil, wire.Ping)
		c.client.Flush()
	}
}
