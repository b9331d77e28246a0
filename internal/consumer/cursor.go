package consumer

import (
	"slices"

	"github.com/cleatkv/cleat/internal/invariant"
	"github.com/cleatkv/cleat/internal/storage"
)

// Cursor knows which message a consumer gets next and how many more are waiting for it.
//
// Pending is exact: it equals what a count over the stream would give at this moment. That holds
// because the cursor is told of every message that is stored or removed (Stored, Removed), in the
// order in which it happened, and is only moved (Next, Advance) while none of that goes on. The
// caller sees to it; the cursor has no lock.
//
//	       next                    snap
//	|.......|#####################|+++++++++++++++++>
//	passed   of each subject the   every message
//	         newest at or below
//	         snap
//
// The middle part exists for deliver policy last_per_subject only. It is not kept as a list:
// whether a message belongs to it is looked up when the cursor gets there, and follows from snap
// alone, since nothing is ever stored at or below it any more.
type Cursor struct {
	filters []string
	next    uint64 // next stream sequence to look at
	snap    uint64 // see above; 0: no such part, or already past it
	pending uint64 // messages at or above next that are to be delivered

	// hint is the sequence of the next message if that is already known, else 0. A consumer
	// that is up to date learns it from Stored and need not search.
	hint uint64

	// plan is the next sequences to look at, where few messages match and a search for each would
	// pass over many; nil: search. What is stored after it was made comes after it.
	plan []uint64

	// dropped are the subjects for which Removed has already counted the loss of their
	// newest message at or below snap within the change in progress. See Removed.
	dropped map[string]struct{}
}

// newCursor returns a cursor at a position; snap as in Cursor, 0 for none.
func newCursor(r storage.Reader, filters []string, next, snap uint64) Cursor {
	c := Cursor{filters: filters, next: max(next, 1), snap: snap}
	c.Recount(r)
	return c
}

// Position is the next stream sequence to look at.
func (c *Cursor) Position() uint64 { return c.next }

// Pending is the number of messages still to be delivered, as things stand.
func (c *Cursor) Pending() uint64 { return c.pending }

// Next returns the sequence of the message to deliver next, if there is one. It may move past
// messages that are not for this consumer.
func (c *Cursor) Next(r storage.Reader) (seq uint64, ok bool) {
	if c.pending == 0 {
		return 0, false
	}
	if c.hint != 0 {
		return c.hint, true
	}
	for {
		seq, subject, ok := c.search(r)
		if !ok {
			if r.Err() != nil {
				return 0, false // The reader could not say.
			}
			// Pending says otherwise: we were not told of something. What is there counts.
			invariant.Assert(!invariant.Enabled, "consumer: %d pending, nothing at or above %d", c.pending, c.next)
			c.pending = 0
			return 0, false
		}
		if c.Consider(r, seq, subject) {
			return seq, true
		}
	}
}

// Consider tells whether the first matching message at or above the position is to be delivered, and
// moves past it if not.
func (c *Cursor) Consider(r storage.Reader, seq uint64, subject string) bool {
	if seq > c.snap {
		c.snap = 0
	} else if !newestBelow(r, subject, seq, c.snap) {
		c.next = seq + 1
		return false
	}
	c.hint = seq
	return true
}

// Dense tells whether most messages from the position on match, so that looking at all of them is no
// waste.
func (c *Cursor) Dense(r storage.Reader) bool {
	return c.hint == 0 && c.plan == nil && c.pending >= scanMin && !c.sparse(r)
}

const (
	scanMin  = 8       // pending messages that make a scan worth it
	sparseBy = 8       // one in how many messages is few
	planMax  = 1 << 16 // sequences in a plan
)

// sparse tells whether few of the messages from the position on match.
func (c *Cursor) sparse(r storage.Reader) bool {
	if len(c.filters) == 0 || c.pending < scanMin {
		return false
	}
	st := r.State()
	return c.pending < min(st.LastSeq+1-max(c.next, st.FirstSeq), st.Msgs)/sparseBy
}

// makePlan lists what is to be delivered where a search would pass over many messages for each that
// it finds. The list goes as soon as it is used up.
func (c *Cursor) makePlan(r storage.Reader) {
	if c.pending > planMax {
		return
	}
	plan := make([]uint64, 0, c.pending)
	r.Subjects(c.filters, "", func(subject string, s storage.SubjectState) bool {
		if s.Last < c.next {
			return true
		}
		if s.First == s.Last {
			plan = append(plan, s.Last)
			return true
		}
		newest := uint64(0) // at or below snap
		r.SubjectSeqs(subject, c.next, func(seq uint64) bool {
			if seq <= c.snap {
				newest = seq
			} else {
				plan = append(plan, seq)
			}
			return true
		})
		if newest != 0 {
			plan = append(plan, newest)
		}
		return true
	})
	slices.Sort(plan)
	c.plan = plan
}

// search finds the first matching message at or above the position.
func (c *Cursor) search(r storage.Reader) (seq uint64, subject string, ok bool) {
	for _, want := range c.Planned(r, 1) {
		if seq, subject, ok := r.NextSeq(nil, want); ok && seq == want {
			return seq, subject, true
		}
	}
	return r.NextSeq(c.filters, c.next)
}

// Planned returns at most n sequences, ascending, among which the next messages are to be looked for,
// if few messages match. Those that are in the stream match; none that is to be delivered is missing
// before the last of them.
func (c *Cursor) Planned(r storage.Reader, n int) []uint64 {
	if c.plan == nil && c.sparse(r) {
		c.makePlan(r)
	}
	for len(c.plan) > 0 && c.plan[0] < c.next {
		c.plan = c.plan[1:]
	}
	if len(c.plan) == 0 {
		c.plan = nil
	}
	return c.plan[:min(n, len(c.plan))]
}

// Advance moves past the message that Next returned.
func (c *Cursor) Advance(seq uint64) {
	if seq < c.next || c.pending == 0 { // Not asserted outright: the arguments would cost an allocation each time.
		invariant.Assert(false, "consumer: advance to %d, next %d, pending %d", seq, c.next, c.pending)
	}
	c.next = seq + 1
	c.pending--
	c.hint = 0
}

// SkipTo moves a cursor with nothing pending past last, the stream's last sequence.
func (c *Cursor) SkipTo(last uint64) {
	if c.pending == 0 && c.next <= last {
		c.next = last + 1
		c.snap = 0
	}
}

// Stored tells of a new message whose subject matches a filter.
func (c *Cursor) Stored(seq uint64) {
	if seq < c.next {
		return // The start lies beyond the end of the stream and is not reached yet.
	}
	if c.pending == 0 {
		c.hint = seq
	}
	c.pending++
}

// Removed tells that a message whose subject matches a filter is gone. r must show the stream
// without it, and without whatever else is removed by the same change; Settle ends the change.
func (c *Cursor) Removed(r storage.Reader, seq uint64, subject string) {
	if seq < c.next {
		return
	}
	if c.hint == seq {
		c.hint = 0
	}
	if seq <= c.snap {
		// One message of each subject counts in this part. Unless the subject has none
		// left there, an older one takes the place of the newest, or this was not it.
		if first, ok := firstFrom(r, subject, c.next); ok && first <= c.snap {
			c.plan = nil // Which lists the newest only.
			return
		}
		if _, counted := c.dropped[subject]; counted {
			return
		}
		if c.dropped == nil {
			c.dropped = make(map[string]struct{})
		}
		c.dropped[subject] = struct{}{}
	}
	invariant.Assert(c.pending > 0 || !invariant.Enabled, "consumer: message %d removed with nothing pending", seq)
	if c.pending > 0 {
		c.pending--
	}
	if c.pending == 0 {
		c.hint = 0
	}
}

// Settle ends a change of the stream that Removed was called for.
func (c *Cursor) Settle() {
	if len(c.dropped) > 0 {
		clear(c.dropped)
	}
}

// Recount finds the number of pending messages anew, for when the stream was replaced as a whole.
func (c *Cursor) Recount(r storage.Reader) {
	c.hint, c.plan = 0, nil
	st := r.State()
	if st.LastSeq < c.next {
		c.pending = 0
		return
	}
	if c.snap == 0 || c.next > c.snap {
		c.snap = 0
		c.pending = r.Count(c.filters, c.next, false)
		return
	}
	c.pending = r.Count(c.filters, c.snap+1, false)
	r.Subjects(c.filters, "", func(subject string, s storage.SubjectState) bool {
		if s.Last < c.next || s.First > c.snap {
			return true
		}
		if s.Last <= c.snap {
			c.pending++
		} else if first, ok := firstFrom(r, subject, c.next); ok && first <= c.snap {
			c.pending++
		}
		return true
	})
}

// setFilters changes what the cursor looks for from here on.
func (c *Cursor) setFilters(r storage.Reader, filters []string) {
	c.filters = filters
	c.Recount(r)
}

// firstFrom returns the oldest sequence of one subject at or above from.
func firstFrom(r storage.Reader, subject string, from uint64) (first uint64, ok bool) {
	r.SubjectSeqs(subject, from, func(seq uint64) bool {
		first, ok = seq, true
		return false
	})
	return first, ok
}

// newestBelow tells whether seq, a message of that subject, is its newest at or below bound.
func newestBelow(r storage.Reader, subject string, seq, bound uint64) bool {
	newer, ok := firstFrom(r, subject, seq+1)
	return !ok || newer > bound
}
