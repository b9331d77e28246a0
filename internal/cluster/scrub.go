package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/wal"
)

// What nobody reads can be damaged for long before anybody notices, perhaps on so many servers that no
// good copy is left. So all that lies on disk is read once a day, at a rate that nobody feels.
const (
	scrubEvery     = 24 * time.Hour
	scrubRate      = 2 << 20 // bytes a second
	scrubStep      = 1 << 20
	scrubCreditMax = 2 * scrubStep
	scrubDelay     = time.Minute // after the start
)

// scrubber spreads the reading over time. Maintenance owns it.
type scrubber struct {
	next   time.Time // when the next pass begins
	last   time.Time // of the last step
	left   []scrub   // of the pass under way, in order
	credit int64     // bytes that may be read now; below 0 after a large piece
}

// scrub reads a piece of what there is to be checked of one kind, and tells whether that was the last.
type scrub func(limit int64) (read int64, done bool)

// step reads as much as the time since the last step allows. all lists what there is.
func (b *scrubber) step(now time.Time, all func() []scrub) {
	if b.last.IsZero() {
		b.last, b.next = now, now.Add(scrubDelay)
	}
	b.credit = min(b.credit+int64(now.Sub(b.last).Seconds()*scrubRate), scrubCreditMax)
	b.last = now
	if len(b.left) == 0 && !now.Before(b.next) {
		b.next = now.Add(scrubEvery)
		b.left = all()
	}
	for len(b.left) > 0 && b.credit > 0 {
		read, done := b.left[0](min(b.credit, scrubStep))
		b.credit -= read
		if done {
			b.left = b.left[1:]
		}
	}
}

// scrubs lists what this server has on disk: streams, the meta group, and the log of all.
func (c *Cluster) scrubs() (all []scrub) {
	streams := c.local()
	slices.SortFunc(streams, func(x, y *Stream) int { return cmp.Compare(x.id, y.id) })
	for _, s := range streams {
		all = append(all, func(limit int64) (int64, bool) { return c.scrubStream(s, limit) })
	}
	return append(all, c.scrubMeta, c.scrubLog)
}

// scrubStream reads a piece of what a stream has on disk here. Damage takes it out of service, see checkEngine;
// after another error the stream is left to the next pass.
func (c *Cluster) scrubStream(s *Stream, limit int64) (read int64, done bool) {
	s.maint.Lock()
	defer s.maint.Unlock()
	l := s.local.Load()
	if l == nil || l.closed {
		return 0, true
	}
	return c.scrubEngine(s.key.Account+" > "+s.key.Name, l.engine, limit)
}

// scrubMeta does the same for the meta group. Damage stops its member, see checkMeta.
func (c *Cluster) scrubMeta(limit int64) (read int64, done bool) {
	read, done = c.scrubEngine("meta", c.metaEngine, limit)
	if err := c.metaEngine.Err(); err != nil {
		c.metaGroup.shard.Call(func() { c.metaGroup.rep.Load().Fail(err) })
	}
	return read, done
}

func (c *Cluster) scrubEngine(what string, engine storage.Engine, limit int64) (read int64, done bool) {
	e, ok := engine.(storage.Scrubber)
	if !ok || engine.Err() != nil {
		return 0, true
	}
	read, done, err := e.Scrub(limit)
	if err != nil {
		c.report(what, err)
	}
	return read, done || err != nil
}

// scrubLog reads a piece of the log.
func (c *Cluster) scrubLog(limit int64) (read int64, done bool) {
	out := c.log.Scrub(limit)
	for _, f := range out.Findings {
		c.warn("log: " + f.String())
	}
	for _, d := range out.Damage {
		c.logDamaged(d)
	}
	return out.Read, out.Done
}

// logDamaged handles log entries that can not be read any more. What is applied need not be read again: a
// checkpoint makes it durable, and the log begins behind. Else the replica stops, as if it had met them itself.
func (c *Cluster) logDamaged(d *wal.DamageError) {
	c.mu.RLock()
	g := c.byGroup[d.Group]
	c.mu.RUnlock()
	if g == nil || g.rep.Load() == nil {
		c.warn(d.Error())
		return
	}
	r := g.rep.Load()
	if err := g.checkpoint(); err != nil {
		c.report(r.Name(), err)
	}
	g.shard.Call(func() {
		if r.Outlive(d) {
			c.warn(fmt.Sprintf("%v; they are applied, so nothing is lost, and the log of %s begins behind them", d, r.Name()))
		}
	})
}

// checkpoint makes what the group has applied durable.
func (g *group) checkpoint() error {
	s := g.stream
	if s == nil {
		return g.c.Meta().Checkpoint()
	}
	s.maint.Lock()
	defer s.maint.Unlock()
	if l := s.local.Load(); l != nil && !l.closed {
		return l.machine.Checkpoint()
	}
	return nil
}
