package cluster

import (
	"fmt"
	"sync"
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

	// Each round visits the streams that something was done with, or is left to do; so many the others, too, for
	// what nobody thought of, and for damage that a read has met.
	maintainAll = 4
)

// maintainLoop makes engines durable, truncates their logs and reclaims space: one engine at a
// time, so that background work takes a bounded part of the disk.
func (c *Cluster) maintainLoop() {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	dirtySince := make(map[storage.Engine]time.Time)
	var scrubbing scrubber
	c.lookAtDisk(time.Now(), true)
	c.countHeld(true)
	for round := 0; ; round++ {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		case <-c.disk.low:
		}
		now := time.Now()
		all := round%maintainAll == 0 || c.tight()
		c.lookAtDisk(now, all)
		c.countHeld(all)
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
			if touched := s.touched.Swap(false); touched || all || s.unfinished {
				s.configure()
				s.unfinished = c.maintain(s, dirtySince, now)
			}
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

// maintain does what one stream needs, and tells whether there will be more to do, though nothing happens.
func (c *Cluster) maintain(s *Stream, since map[storage.Engine]time.Time, now time.Time) (unfinished bool) {
	s.maint.Lock()
	defer s.maint.Unlock()
	l := s.local.Load()
	if l == nil || l.closed {
		return false
	}
	if !c.checkEngine(s, l) {
		return !l.told
	}
	written := max(0, l.engine.Dirty()-l.dirty)
	defer func() { l.dirty = l.engine.Dirty() }()
	if c.due(l.engine, since, now) {
		if err := l.machine.Checkpoint(); err != nil {
			c.report(s.key.Account+" > "+s.key.Name, err)
			return true
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
	more, err := l.compact(written)
	c.report(s.key.Account+" > "+s.key.Name, err)
	return more || l.engine.Dirty() > 0 || l.engine.Reclaimable() > 0
}

// compactStep is about what one call of Compact looks at.
const compactStep = 16 << 20

// compact reclaims space, as fast as it may be wasted: what is written replaces at most as much, and to
// get that back out of blocks that are half live takes looking at twice as much; twice that lets it
// catch up. So the wasted space stays bounded whatever the load is, and a purge of very many messages
// is worked off at leisure.
func (l *local) compact(written int64) (more bool, err error) {
	for steps := 1 + 4*written/compactStep; steps > 0; steps-- {
		if more, err = l.engine.Compact(); err != nil || !more {
			return false, err
		}
	}
	return true, nil
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
		c.lookAtSyncs(now)
		c.emergency(now)
		c.forward.expire(now)
		if c.heldCommands.Load() > 0 {
			for _, g := range c.groups() {
				g.held.flush()
				g.held.expire(now)
			}
		}
		for _, s := range c.timed.list() {
			s.expire(now.UnixNano())
		}
		env{c}.TurnEnd()
	}
}

// timed are the streams that have something that expires some time, led here or not.
type timed struct {
	mu  sync.Mutex
	all map[*Stream]bool
}

// note is called whenever a deadline may have come to be; most of the time the stream is known to have one.
func (t *timed) note(s *Stream) {
	m := s.Machine()
	if m == nil {
		return
	}
	if _, ok := m.NextDeadline(); !ok || s.isTimed.Swap(true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = make(map[*Stream]bool)
	}
	t.all[s] = true
}

// list forgets those that have no deadline any more, and gives the others.
func (t *timed) list() (all []*Stream) {
	var doubtful []*Stream
	t.mu.Lock()
	for s := range t.all { // order: each is handled alone
		if m := s.Machine(); m != nil && !s.gone.Load() {
			if _, ok := m.NextDeadline(); ok {
				all = append(all, s)
				continue
			}
		}
		delete(t.all, s)
		s.isTimed.Store(false)
		doubtful = append(doubtful, s)
	}
	t.mu.Unlock()
	for _, s := range doubtful { // A deadline may have come between the look and the forgetting.
		if !s.gone.Load() {
			t.note(s)
		}
	}
	return all
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
