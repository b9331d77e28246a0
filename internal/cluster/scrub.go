package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/storage"
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
	left   []*Stream // of the pass under way, in order
	credit int64     // bytes that may be read now; below 0 after a large piece
}

// step reads as much as the time since the last step allows. all lists the streams, scrub reads a piece of
// one, and tells whether that was the last.
func (b *scrubber) step(now time.Time, all func() []*Stream, scrub func(s *Stream, limit int64) (read int64, done bool)) {
	if b.last.IsZero() {
		b.last, b.next = now, now.Add(scrubDelay)
	}
	b.credit = min(b.credit+int64(now.Sub(b.last).Seconds()*scrubRate), scrubCreditMax)
	b.last = now
	if len(b.left) == 0 && !now.Before(b.next) {
		b.next = now.Add(scrubEvery)
		b.left = all()
		slices.SortFunc(b.left, func(x, y *Stream) int { return cmp.Compare(x.id, y.id) })
	}
	for len(b.left) > 0 && b.credit > 0 {
		read, done := scrub(b.left[0], min(b.credit, scrubStep))
		b.credit -= read
		if done {
			b.left = b.left[1:]
		}
	}
}

// scrub reads a piece of what a stream has on disk here. Damage takes it out of service, see checkEngine;
// after another error the stream is left to the next pass.
func (c *Cluster) scrub(s *Stream, limit int64) (read int64, done bool) {
	s.maint.Lock()
	defer s.maint.Unlock()
	l := s.local.Load()
	if l == nil || l.closed || l.engine.Err() != nil {
		return 0, true
	}
	e, ok := l.engine.(storage.Scrubber)
	if !ok {
		return 0, true
	}
	read, done, err := e.Scrub(limit)
	if err != nil {
		c.report(s.key.Account+" > "+s.key.Name, err)
	}
	return read, done || err != nil
}
