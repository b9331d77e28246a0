package cluster

import (
	"fmt"
	"time"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// When a stream is checkpointed: after so much was written, or so long after the first write that
// is not durable yet. Both bound what a restart has to replay.
const (
	checkpointBytes = 16 << 20
	checkpointAge   = 10 * time.Second
	maintainEvery   = 500 * time.Millisecond
	tickEvery       = 100 * time.Millisecond
)

// maintainLoop makes engines durable, truncates their logs and reclaims space: one engine at a
// time, so that background work takes a bounded part of the disk.
func (c *Cluster) maintainLoop() {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	dirtySince := make(map[storage.Engine]time.Time)
	var scrubbing scrubber
	c.lookAtDisk(time.Now())
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		case <-c.disk.low:
		}
		now := time.Now()
		c.lookAtDisk(now)
		c.expireWaits(now)
		c.checkMeta()
		if c.due(c.metaEngine, dirtySince, now) {
			c.report("meta", c.Meta().Checkpoint())
			c.shards[0].Call(c.metaGroup.rep.Load().Compact)
		}
		for _, s := range c.local() {
			if c.ctx.Err() != nil {
				return
			}
			s.configure()
			c.maintain(s, dirtySince, now)
		}
		scrubbing.step(now, c.scrubs)
	}
}

// due tells whether an engine should be checkpointed now, and keeps the book of since when it has
// been dirty.
func (c *Cluster) due(e storage.Engine, since map[storage.Engine]time.Time, now time.Time) bool {
	n, back := e.Dirty(), e.Reclaimable()
	if n == 0 && back == 0 {
		delete(since, e)
		return false
	}
	enough := c.disk.checkpointBytes()
	if c.tight() || back >= enough {
		return true
	}
	first, ok := since[e]
	if !ok {
		since[e] = now
		return n >= enough
	}
	if n < enough && now.Sub(first) < checkpointAge {
		return false
	}
	delete(since, e)
	return true
}

// maintain does what one stream needs.
func (c *Cluster) maintain(s *Stream, since map[storage.Engine]time.Time, now time.Time) {
	s.maint.Lock()
	defer s.maint.Unlock()
	l := s.local.Load()
	if l == nil || l.closed || !c.checkEngine(s, l) {
		return
	}
	written := max(0, l.engine.Dirty()-l.dirty)
	defer func() { l.dirty = l.engine.Dirty() }()
	if c.due(l.engine, since, now) {
		if err := l.machine.Checkpoint(); err != nil {
			c.report(s.key.Account+" > "+s.key.Name, err)
			return
		}
		if r := s.rep.Load(); r != nil {
			s.shard.Call(r.Compact)
		}
	}
	if c.tight() {
		written = 0 // A little at a time: what compaction takes comes back with the next checkpoint.
		if e, ok := l.engine.(storage.Squeezer); ok {
			c.report(s.key.Account+" > "+s.key.Name, e.Squeeze())
		}
	}
	c.report(s.key.Account+" > "+s.key.Name, l.compact(written))
}

// compactStep is about what one call of Compact looks at.
const compactStep = 16 << 20

// compact reclaims space, as fast as it may be wasted: what is written replaces at most as much, and to
// get that back out of blocks that are half live takes looking at twice as much; twice that lets it
// catch up. So the wasted space stays bounded whatever the load is, and a purge of very many messages
// is worked off at leisure.
func (l *local) compact(written int64) error {
	for steps := 1 + 4*written/compactStep; steps > 0; steps-- {
		more, err := l.engine.Compact()
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	return nil
}

func (c *Cluster) report(what string, err error) {
	if err != nil {
		c.opts.Logger.Error(fmt.Sprintf("maintenance of %s: %v", what, err))
	}
}

// checkpointAll runs when everything else has stopped.
func (c *Cluster) checkpointAll() {
	for _, s := range c.local() {
		if l := s.local.Load(); l != nil && !l.closed && l.engine.Dirty() > 0 {
			c.report(s.key.Account+" > "+s.key.Name, l.machine.Checkpoint())
		}
	}
	if c.metaEngine.Dirty() > 0 {
		c.report("meta", c.Meta().Checkpoint())
	}
}

// local lists the streams that are known here.
func (c *Cluster) local() []*Stream {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams { // order: each is handled alone
		all = append(all, s)
	}
	return all
}

// Streams lists the streams that this server knows of, in no order.
func (c *Cluster) Streams() []*Stream { return c.local() }

// tickLoop does what has to be done often: it proposes the removal of what has expired, where this
// server leads (expiry is a command like any other: all replicas remove the same messages at the
// same place in the log), looks for leaders for the commands that wait, and gives up on what is
// late.
func (c *Cluster) tickLoop() {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		c.emergency(now)
		c.forward.expire(now)
		for _, g := range c.groups() {
			g.held.flush()
			g.held.expire(now)
			if g.stream != nil {
				g.stream.expire(now.UnixNano())
			}
		}
		env{c}.TurnEnd()
	}
}

func (s *Stream) expire(now int64) {
	m, r := s.Machine(), s.rep.Load()
	if s.gone.Load() || m == nil || r == nil || !r.Status().Leading {
		return
	}
	at, ok := m.NextDeadline()
	if !ok || at > now || !s.expiring.CompareAndSwap(false, true) {
		return
	}
	err := r.Propose(stream.EncodeExpire(), WaiterFunc(func(any, error) { s.expiring.Store(false) }))
	if err != nil {
		s.expiring.Store(false)
	}
}

var _ replica.Machine = (*stream.Stream)(nil)
