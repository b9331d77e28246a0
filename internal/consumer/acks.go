package consumer

import (
	"math"
	"time"

	"github.com/tidwall/btree"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/invariant"
)

// AckRule is the part of a consumer's configuration that its acknowledgements follow.
type AckRule struct {
	Policy     api.AckPolicy
	Wait       time.Duration   // until an unacknowledged message is sent again
	Backoff    []time.Duration // instead of Wait: after the first, second, ... delivery; the last one stays
	MaxDeliver int             // deliveries of one message; 0 or less: no bound
	MaxPending int             // unacknowledged messages at a time; 0 or less: no bound
}

// never is a time that does not come.
const never = math.MaxInt64

// due is when a message sent for the count-th time at some moment is to be sent again.
func (r *AckRule) due(at int64, count int) int64 {
	switch n := len(r.Backoff); {
	case r.Policy == api.AckFlowControl:
		return never
	case n > 0:
		return at + int64(r.Backoff[min(count, n)-1])
	}
	return at + int64(r.Wait)
}

// Mark is a pair of sequences: how far a consumer is, counted in its own deliveries and in the
// stream.
type Mark struct {
	Consumer uint64
	Stream   uint64
	Active   int64 // when it last moved (Unix nanoseconds), 0 if it never did
}

// unacked is a message that was delivered and not acknowledged yet.
type unacked struct {
	consumer uint64 // consumer sequence of its first delivery
	count    int    // deliveries so far
	due      int64  // when it is to be sent again (Unix nanoseconds)
}

// dueKey orders unacknowledged messages by the time of their next delivery.
type dueKey struct {
	at  int64
	seq uint64
}

func (k dueKey) less(o dueKey) bool { return k.at < o.at || k.at == o.at && k.seq < o.seq }

// Acks is what a consumer remembers of its deliveries: how far it has delivered, what of it is
// not acknowledged, and when that is due again.
//
// Every change is one op. The leader's Acks applies an op when it happens and, for a consumer
// whose state is replicated, keeps its encoding in a journal that goes through the stream's log;
// the copies of the other servers apply the same ops in the same order.
type Acks struct {
	rule      AckRule
	delivered Mark
	floor     Mark // everything at or below it is settled
	pending   btree.Map[uint64, unacked]
	due       *btree.BTreeG[dueKey]
	again     int // pending messages delivered more than once

	journaling bool
	journal    []byte
}

// newAcks returns the state of a consumer that starts at a stream sequence.
func newAcks(rule AckRule, start uint64) *Acks {
	a := &Acks{rule: rule}
	if rule.Policy != api.AckNone { // Which saves most of the memory of a watcher.
		a.due = btree.NewBTreeGOptions(dueKey.less, btree.Options{NoLocks: true})
	}
	a.delivered.Stream = start - 1
	a.floor.Stream = start - 1
	return a
}

// resume goes on behind a delivery of before. It is for the time before the first.
func (a *Acks) resume(at Mark) { a.delivered, a.floor = at, at }

// Delivered is how far messages have been delivered. Floor is how far they are settled.
func (a *Acks) Delivered() Mark { return a.delivered }
func (a *Acks) Floor() Mark     { return a.floor }

// Outstanding is the number of unacknowledged messages, Redelivered how many of them have been
// delivered more than once.
func (a *Acks) Outstanding() int { return a.pending.Len() }
func (a *Acks) Redelivered() int { return a.again }

// Full tells whether nothing new may be delivered until something is acknowledged.
func (a *Acks) Full() bool {
	return a.rule.Policy != api.AckNone && a.rule.MaxPending > 0 && a.pending.Len() >= a.rule.MaxPending
}

// Deliver records that a message is sent now, for the first time or again, and returns the
// consumer sequence and the delivery count that it bears.
func (a *Acks) Deliver(seq uint64, now int64) (consumerSeq uint64, count int) {
	a.do(op{kind: opDeliver, seq: seq, at: now})
	if u, ok := a.pending.Get(seq); ok {
		return a.delivered.Consumer, u.count
	}
	return a.delivered.Consumer, 1
}

// Due returns a message to be sent again, if there is one. Messages that have used up their
// deliveries are given up on the way and handed to exceeded.
func (a *Acks) Due(now int64, exceeded func(seq uint64, count int)) (seq uint64, ok bool) {
	for a.due != nil {
		k, ok := a.due.Min()
		if !ok || k.at > now {
			return 0, false
		}
		u, _ := a.pending.Get(k.seq)
		if a.rule.MaxDeliver <= 0 || u.count < a.rule.MaxDeliver {
			return k.seq, true
		}
		a.do(op{kind: opGiveUp, seq: k.seq})
		exceeded(k.seq, u.count)
	}
	return 0, false
}

// NextDue is when Due will have something, 0 if never as things stand.
func (a *Acks) NextDue() int64 {
	if a.due == nil {
		return 0
	}
	if k, ok := a.due.Min(); ok && k.at != never {
		return k.at
	}
	return 0
}

// Ack settles a message, and with AckAll everything before it. It returns false if that changed
// nothing: it was settled already, or never delivered.
func (a *Acks) Ack(seq uint64, now int64) bool {
	switch {
	case a.rule.Policy == api.AckNone || seq > a.delivered.Stream:
		return false
	case a.rule.Policy == api.AckAll || a.rule.Policy == api.AckFlowControl:
		first, _, ok := a.pending.Min()
		if !ok || first > seq {
			return false
		}
		a.do(op{kind: opAckAll, seq: seq, at: now})
		return true
	}
	if _, ok := a.pending.Get(seq); !ok {
		return false
	}
	a.do(op{kind: opAck, seq: seq, at: now})
	return true
}

// Delay changes when a message is sent again: a negative acknowledgement, or a sign of progress.
func (a *Acks) Delay(seq uint64, due int64) bool {
	if u, ok := a.pending.Get(seq); !ok || u.due == due {
		return ok
	}
	a.do(op{kind: opDelay, seq: seq, at: due})
	return true
}

// Progress restarts the time a message has for its acknowledgement.
func (a *Acks) Progress(seq uint64, now int64) bool {
	u, ok := a.pending.Get(seq)
	return ok && a.Delay(seq, a.rule.due(now, u.count))
}

// Forget drops a message that is no longer in the stream.
func (a *Acks) Forget(seq uint64) bool {
	if _, ok := a.pending.Get(seq); !ok {
		return false
	}
	a.do(op{kind: opGiveUp, seq: seq})
	return true
}

// Terminate settles a message that is never to be sent again, processed or not.
func (a *Acks) Terminate(seq uint64, now int64) bool {
	if _, ok := a.pending.Get(seq); !ok {
		return false
	}
	a.do(op{kind: opAck, seq: seq, at: now})
	return true
}

// consumerSeq is the consumer sequence of the first delivery of a message, 0 if it is not
// outstanding.
func (a *Acks) consumerSeq(seq uint64) uint64 {
	u, _ := a.pending.Get(seq)
	return u.consumer
}

// Count is how often a message has been delivered, 0 if it is not outstanding.
func (a *Acks) Count(seq uint64) int {
	u, _ := a.pending.Get(seq)
	return u.count
}

// Skip records that messages up to seq were passed without a delivery, all before them being
// settled.
func (a *Acks) Skip(seq uint64) {
	if seq > a.delivered.Stream {
		a.do(op{kind: opSkip, seq: seq})
	}
}

// Reset starts over at a stream sequence: nothing is outstanding any more.
func (a *Acks) Reset(start uint64) { a.do(op{kind: opReset, seq: start}) }

// TakeJournal returns the encoded changes since the last call, nil if there are none.
func (a *Acks) TakeJournal() []byte {
	j := a.journal
	a.journal = nil
	return j
}

// restore puts an outstanding message back that was kept elsewhere.
func (a *Acks) restore(seq uint64, u unacked) {
	a.pending.Set(seq, u)
	a.due.Set(dueKey{u.due, seq})
	if u.count > 1 {
		a.again++
	}
}

// clone returns a copy that shares nothing that either changes.
func (a *Acks) clone() *Acks {
	c := *a
	c.pending = *a.pending.Copy()
	if a.due != nil {
		c.due = a.due.Copy()
	}
	c.journal = nil
	return &c
}

// setRule changes the rule for the deliveries and acknowledgements from here on.
func (a *Acks) setRule(rule AckRule) { a.rule = rule }

func (a *Acks) do(o op) {
	if a.journaling && len(a.journal) == 0 {
		a.journal = op{kind: opBase, seq: a.delivered.Consumer + 1}.append(nil)
	}
	a.apply(o)
	if a.journaling {
		a.journal = o.append(a.journal)
	}
}

// apply executes one op. It accepts any op that decodes, whatever the state, since the log may
// hold ops about messages that a later command has settled otherwise.
func (a *Acks) apply(o op) {
	switch o.kind {
	case opDeliver:
		a.applyDeliver(o.seq, o.at)
	case opAck:
		a.settle(o.seq)
		a.floor.Active = o.at
		a.raiseFloor()
	case opAckAll:
		a.settleThrough(o.seq, o.at)
	case opDelay:
		if u, ok := a.pending.Get(o.seq); ok {
			a.due.Delete(dueKey{u.due, o.seq})
			u.due = o.at
			a.pending.Set(o.seq, u)
			a.due.Set(dueKey{u.due, o.seq})
		}
	case opGiveUp:
		a.settle(o.seq)
		a.raiseFloor()
	case opSkip:
		a.delivered.Stream = max(a.delivered.Stream, o.seq)
		a.raiseFloor()
	case opReset:
		a.pending.Clear()
		if a.due != nil {
			a.due.Clear()
		}
		a.again = 0
		a.delivered = Mark{Stream: o.seq - 1}
		a.floor = Mark{Stream: o.seq - 1}
	}
}

func (a *Acks) applyDeliver(seq uint64, at int64) {
	a.delivered.Consumer++
	a.delivered.Stream = max(a.delivered.Stream, seq)
	a.delivered.Active = at
	if a.rule.Policy == api.AckNone {
		a.floor = a.delivered
		return
	}
	u, ok := a.pending.Get(seq)
	if ok {
		a.due.Delete(dueKey{u.due, seq})
	} else {
		u.consumer = a.delivered.Consumer
	}
	u.count++
	if u.count == 2 {
		a.again++
	}
	u.due = a.rule.due(at, u.count)
	a.pending.Set(seq, u)
	a.due.Set(dueKey{u.due, seq})
}

func (a *Acks) settle(seq uint64) {
	u, ok := a.pending.Delete(seq)
	if !ok {
		return
	}
	a.due.Delete(dueKey{u.due, seq})
	if u.count > 1 {
		a.again--
	}
	if a.due.Len() != a.pending.Len() {
		invariant.Assert(false, "consumer: %d due, %d pending", a.due.Len(), a.pending.Len())
	}
}

func (a *Acks) settleThrough(seq uint64, at int64) {
	for {
		first, u, ok := a.pending.Min()
		if !ok || first > seq {
			break
		}
		a.floor.Consumer = max(a.floor.Consumer, u.consumer)
		a.settle(first)
	}
	a.floor.Stream = max(a.floor.Stream, seq)
	a.floor.Active = at
	if a.pending.Len() == 0 {
		a.raiseFloor()
	}
}

// raiseFloor moves the floor up to just below the oldest outstanding message.
func (a *Acks) raiseFloor() {
	first, u, ok := a.pending.Min()
	if !ok {
		a.floor.Consumer, a.floor.Stream = a.delivered.Consumer, a.delivered.Stream
		return
	}
	a.floor.Consumer = max(a.floor.Consumer, u.consumer-1)
	a.floor.Stream = max(a.floor.Stream, first-1)
}
