package consumer

import (
	"cmp"
	"errors"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// first is what the stream held when the consumer was made: the first values of a watch, which belong
// together. They are delivered as they were then, whatever was written since, or a key could be
// missing from them that was there all the time: the message that the consumer had counted on is gone, and
// the client, which counts, takes another one for it that was stored later.
//
//	       next              until
//	|.......|################|+++++++++++++++++>
//	passed   held, as it was  the stream as it is:
//	         first.cursor     Consumer.cursor
type first struct {
	held   storage.Frozen
	cursor Cursor // on held, where nothing changes
	expiry int64  // Unix nanoseconds from when on it is held no longer
}

// firstMax is how long the first values are held for a client that is slow to take them. What it has not
// got by then it gets as it is then.
const firstMax = 5 * time.Minute

// HoldsFirst tells whether a consumer that nobody shares is to have its first values held. Those of one
// key are one value.
func HoldsFirst(cfg *api.ConsumerConfig) bool {
	if cfg.AckPolicy != api.AckNone || cfg.DeliverPolicy == api.DeliverNew {
		return false
	}
	return cfg.DeliverPolicy != api.DeliverLastPerSubject || len(cfg.FilterSubjects) > 1 || subject.HasWildcard(cmp.Or(cfg.FilterSubject, ">"))
}

// hold has the consumer deliver the messages of held first, and then what was stored since. It is called
// before anything is delivered.
func (c *Consumer) hold(held storage.Frozen, now int64) {
	from, end := c.cursor.next, held.State().LastSeq+1
	if from >= end || c.cursor.pending == 0 {
		held.Release()
		return
	}
	c.first = &first{held: held, cursor: c.cursor, expiry: now + int64(firstMax)}
	c.cursor = Cursor{filters: c.cursor.filters, next: end}
}

// Release lets go of what the consumer holds. It is not used any more.
func (c *Consumer) Release() {
	if c.first != nil {
		c.first.held.Release()
		c.first = nil
	}
}

// thaw goes on with the stream as it is now.
func (c *Consumer) thaw(r storage.Reader) {
	if c.first != nil {
		c.cursor = newCursor(r, c.cursor.filters, c.first.cursor.next, c.first.cursor.snap)
		c.Release()
	}
}

// pending is the number of messages still to be delivered, as things stand.
func (c *Consumer) pending() uint64 {
	if c.first != nil {
		return c.first.cursor.Pending() + c.cursor.Pending()
	}
	return c.cursor.Pending()
}

// position is the next stream sequence to look at.
func (c *Consumer) position() uint64 {
	if c.first != nil {
		return c.first.cursor.Position()
	}
	return c.cursor.Position()
}

// advance moves past a message that was found.
func (c *Consumer) advance(seq uint64) {
	if c.first == nil || c.first.cursor.Pending() == 0 {
		c.cursor.Advance(seq)
		return
	}
	c.first.cursor.Advance(seq)
}

// readable tells what keeps the stream, or what is held of it, from being read.
func (c *Consumer) readable(t *Turn) error {
	if c.first != nil {
		if err := c.first.held.Err(); err != nil {
			return err
		}
	}
	return t.Reader.Err()
}

// firstOf finds the next message of what is held.
func (c *Consumer) firstOf(t *Turn) bool {
	f := c.first
	for f.cursor.Pending() > 0 {
		m := t.next(f.held, &f.cursor)
		if m == nil {
			return c.firstOne(t)
		}
		if f.cursor.Consider(f.held, m.Seq, m.Subject) {
			c.next = delivery{msg: *m}
			return true
		}
	}
	return false
}

// firstOne is firstOf for a message that was not loaded together with others.
func (c *Consumer) firstOne(t *Turn) bool {
	f := c.first
	for {
		seq, ok := f.cursor.Next(f.held)
		if !ok {
			t.Err = f.held.Err()
			return false
		}
		msg, err := f.held.Load(seq)
		if err != nil {
			msg, err = t.Reader.Load(seq) // Whether it is damaged or was erased only the stream can tell.
		}
		if errors.Is(err, storage.ErrNotFound) {
			f.cursor.Advance(seq)
			continue
		}
		c.next, t.Err = delivery{msg: msg}, err
		return err == nil
	}
}
