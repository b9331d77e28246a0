package consumer

import (
	"errors"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// Spec is what a consumer is made of, besides the stream.
type Spec struct {
	Stream  string
	Name    string
	Config  api.ConsumerConfig // checked, with its defaults filled in
	Created int64              // Unix nanoseconds
	Start   Start
	// Delivered is where a consumer goes on that needs no acknowledgements; zero: it begins.
	Delivered Mark
	// First, if not nil, is what the stream holds now. The consumer delivers from it what there is to be
	// delivered so far, and releases it: see first.
	First storage.Frozen
}

// Consumer is the machine of one consumer, on the server that delivers for it. It has no lock: its
// owner calls one method at a time. Whatever it wants sent it appends to the Turn it is given.
//
// The stream must not change while a method that takes a Turn runs, and every change of it must be
// reported by Stored and Removed before the next one does.
type Consumer struct {
	stream  string
	name    string
	cfg     api.ConsumerConfig
	created int64
	start   Start

	first  *first // nil: everything that it held was delivered
	cursor Cursor
	acks   *Acks
	pulls  pulls
	flow   flow
	pins   pins

	ackPrefix string // of the reply subjects of messages
	bound     bool   // the deliver subject has interest
	unbound   int64  // since when it has not
	lastAsked int64  // when a pull request was last there
	heartbeat int64  // when the next heartbeat of a push consumer is due, 0: none
	notBefore int64  // nothing new is delivered before (rate limit, replay at original pace)
	replay    uint64 // messages up to this sequence are replayed at their original pace
	prevTime  int64  // when the message before was stored, for that
	scratch   []byte

	next    delivery // what peek has found
	peeked  bool
	relayed uint64 // messages sent since the start, for monitoring
}

// delivery is a message about to be sent.
type delivery struct {
	msg   storage.Message
	again bool // it was delivered before
}

// New makes a consumer. acks is its replicated state so far, nil for a new one.
func New(r storage.Reader, spec Spec, acks *Acks, now int64) *Consumer {
	c := &Consumer{
		stream: spec.Stream, name: spec.Name, cfg: spec.Config, created: spec.Created, start: spec.Start,
		acks:      acks,
		ackPrefix: "$JS.ACK." + spec.Stream + "." + spec.Name + ".",
		unbound:   now, lastAsked: now,
	}
	if acks == nil {
		c.acks = newAcks(ruleOf(&c.cfg), spec.Start.Seq)
		if spec.Delivered != (Mark{}) {
			c.acks.resume(spec.Delivered)
		}
	}
	at := max(spec.Start.Seq, c.acks.Delivered().Stream+1)
	c.cursor = newCursor(r, Filters(&c.cfg), at, spec.Start.Snap)
	if spec.First != nil {
		c.hold(spec.First, now)
	}
	c.flow = newFlow()
	c.pulls.max = c.cfg.MaxWaiting
	if c.cfg.ReplayPolicy == api.ReplayOriginal {
		c.replay = r.State().LastSeq
	}
	return c
}

// ruleOf is the part of a configuration that acknowledgements follow.
func ruleOf(cfg *api.ConsumerConfig) AckRule {
	return AckRule{
		Policy: cfg.AckPolicy, Wait: cfg.AckWait, Backoff: cfg.BackOff,
		MaxDeliver: cfg.MaxDeliver, MaxPending: cfg.MaxAckPending,
	}
}

// Filters is the list of filters of a configuration; empty: everything.
func Filters(cfg *api.ConsumerConfig) []string {
	if len(cfg.FilterSubjects) > 0 {
		return cfg.FilterSubjects
	}
	if cfg.FilterSubject != "" && cfg.FilterSubject != ">" {
		return []string{cfg.FilterSubject}
	}
	return nil
}

// Name, Config and the others say what the consumer is. The configuration is only read.
func (c *Consumer) Name() string                { return c.name }
func (c *Consumer) Stream() string              { return c.stream }
func (c *Consumer) Config() *api.ConsumerConfig { return &c.cfg }

// Progress is where the consumer began, and how far it has come.
func (c *Consumer) Progress() (Start, Mark) { return c.start, c.acks.Delivered() }
func (c *Consumer) Created() int64          { return c.created }

// Delivered tells whether a message has been delivered, or was passed.
func (c *Consumer) Delivered(seq uint64) bool { return seq <= c.acks.Delivered().Stream }

func (c *Consumer) Filters() []string { return c.cursor.filters }
func (c *Consumer) IsPull() bool      { return c.cfg.DeliverSubject == "" }
func (c *Consumer) IsDurable() bool   { return c.cfg.Durable != "" }
func (c *Consumer) Pending() uint64   { return c.pending() }
func (c *Consumer) Sent() uint64      { return c.relayed }

// Stored tells of a new message of the stream whose subject matches a filter, and returns whether
// a turn would do something about it.
func (c *Consumer) Stored(seq uint64) (wake bool) {
	c.cursor.Stored(seq)
	return c.wanted()
}

// Removed tells of a message that is gone, see Cursor.Removed; Settle ends the change.
func (c *Consumer) Removed(r storage.Reader, seq uint64, subject string) {
	c.cursor.Removed(r, seq, subject)
	if c.cfg.AckPolicy != api.AckNone {
		c.acks.Forget(seq)
	}
}

func (c *Consumer) Settle() { c.cursor.Settle() }

// Recount finds everything that depends on the stream's messages anew.
func (c *Consumer) Recount(r storage.Reader) { c.cursor.Recount(r) }

// wanted tells whether there is somebody to deliver to.
func (c *Consumer) wanted() bool { return c.bound || c.pulls.len() > 0 }

// Run does what is to be done now: deliver, redeliver, send heartbeats, expire requests. It
// returns whether it stopped because the turn was full rather than because nothing was left.
//
// Once the stream could not be read the consumer says nothing any more: that nothing is there, or how
// much is left, may be wrong.
func (c *Consumer) Run(t *Turn) (more bool) {
	if t.Err = c.readable(t); t.Err != nil {
		return false
	}
	more = c.run(t)
	if err := c.readable(t); err != nil {
		t.silence(err)
		return false
	}
	if c.first != nil && c.first.cursor.Pending() == 0 {
		c.Release()
	}
	return more
}

func (c *Consumer) run(t *Turn) (more bool) {
	c.peeked = false
	if c.first != nil && t.Now >= c.first.expiry {
		c.thaw(t.Reader)
	}
	c.resume(t.Now)
	if c.IsPull() {
		had := c.pulls.len() > 0
		c.expirePulls(t)
		c.expirePin(t)
		if had {
			c.lastAsked = t.Now
		}
	} else {
		c.bind(t)
	}
	if !c.wanted() {
		return false
	}
	if !c.paused(t.Now) {
		if c.IsPull() {
			c.servePulls(t)
		} else {
			c.servePush(t)
		}
	}
	c.peeked = false
	if t.room() {
		c.cursor.SkipTo(t.Reader.State().LastSeq)
		c.beat(t)
		return false
	}
	return true
}

// peek finds the message to send next: one to be sent again if any is due, else the next of the
// stream.
func (c *Consumer) peek(t *Turn) (*delivery, bool) {
	if c.peeked {
		return &c.next, true
	}
	c.peeked = c.again(t) || t.Err == nil && !c.acks.Full() && t.Now >= c.notBefore && c.fresh(t) && c.onPace(t.Now)
	return &c.next, c.peeked
}

// again finds a message that is to be sent once more.
func (c *Consumer) again(t *Turn) bool {
	for {
		seq, ok := c.acks.Due(t.Now, func(seq uint64, count int) {
			t.advise(Advisory{Kind: AdvisoryMaxDeliver, StreamSeq: seq, Count: count})
		})
		if !ok {
			return false
		}
		msg, err := t.load(t.Reader, seq)
		switch {
		case err == nil:
			c.next = delivery{msg: msg, again: true}
			return true
		case errors.Is(err, storage.ErrNotFound):
			c.acks.Forget(seq)
		default:
			t.Err = err
			return false
		}
	}
}

// fresh finds the next message of the stream.
func (c *Consumer) fresh(t *Turn) bool {
	if c.first != nil && c.firstOf(t) {
		return true
	}
	for t.Err == nil && c.cursor.Pending() > 0 {
		m := t.next(t.Reader, &c.cursor)
		if m == nil {
			return c.freshOne(t)
		}
		if c.cursor.Consider(t.Reader, m.Seq, m.Subject) {
			c.next = delivery{msg: *m}
			return true
		}
	}
	return false
}

// freshOne is fresh for a message that was not loaded together with others.
func (c *Consumer) freshOne(t *Turn) bool {
	seq, ok := c.cursor.Next(t.Reader)
	if !ok {
		t.Err = t.Reader.Err()
		return false
	}
	msg, err := t.load(t.Reader, seq)
	if err != nil {
		t.Err = err
		return false
	}
	c.next = delivery{msg: msg}
	return true
}

// onPace holds a message back that is replayed at its original pace and not due yet.
func (c *Consumer) onPace(now int64) bool {
	if c.next.msg.Seq > c.replay || c.prevTime == 0 {
		return true
	}
	due := c.acks.Delivered().Active + c.next.msg.Time - c.prevTime
	if due > now {
		c.notBefore = due
		return false
	}
	return true
}

// send delivers a message and returns its size as flow control and byte limits count it.
func (c *Consumer) send(d *delivery, to, queue, pin string, t *Turn) int {
	m := &d.msg
	if !d.again {
		c.advance(m.Seq)
		c.prevTime = m.Time
	}
	seq, count := c.acks.Deliver(m.Seq, t.Now)
	c.peeked = false
	c.relayed++
	o := Out{To: to, Queue: queue, Subject: m.Subject, Header: m.Header, Data: m.Data}
	o.Reply = c.ackSubject(m, seq, count)
	if c.cfg.HeadersOnly {
		o.Header, o.Data = withSize(m.Header, len(m.Data)), nil
	}
	if pin != "" {
		o.Header = withLine(o.Header, "Nats-Pin-Id: "+pin)
	}
	t.message(o)
	size := len(o.Subject) + len(o.Reply) + len(o.Header) + len(o.Data)
	c.limitRate(size, t.Now)
	return size
}

// size is what send would return, as far as it can be told beforehand.
func (c *Consumer) size(d *delivery) int {
	m := &d.msg
	size := len(m.Subject) + len(m.Header) + len(m.Data)
	if c.cfg.HeadersOnly {
		size = len(m.Subject) + len(withSize(m.Header, len(m.Data)))
	}
	return size + len(c.ackSubject(m, c.acks.Delivered().Consumer+1, c.acks.Count(m.Seq)+1))
}

// limitRate puts the next delivery off so that no more than the configured bits a second pass,
// up to an eighth of a second's worth at once.
func (c *Consumer) limitRate(size int, now int64) {
	if c.cfg.RateLimit == 0 {
		return
	}
	const burst = int64(time.Second / 8)
	cost := int64(float64(size) * 8 * float64(time.Second) / float64(c.cfg.RateLimit))
	c.notBefore = max(c.notBefore, now-burst) + cost
}

// Deadline is when Run has to be called at the latest even if nothing happens, 0: never.
func (c *Consumer) Deadline() int64 {
	d := c.expiry()
	if d == 0 && c.IsPull() && c.cfg.InactiveThreshold > 0 {
		d = c.lastAsked + int64(c.cfg.InactiveThreshold) // To see whether those who wait are still there.
	}
	if c.paused(0) {
		d = earlier(d, c.cfg.PauseUntil.UnixNano())
	} else if c.wanted() && !c.flow.stalled() {
		d = earlier(d, c.acks.NextDue())
		if c.pending() > 0 {
			d = earlier(d, c.notBefore)
		}
	}
	if c.first != nil {
		d = earlier(d, c.first.expiry)
	}
	if c.IsPull() {
		return earlier(earlier(d, c.pulls.deadline()), c.pins.deadline)
	}
	if c.bound {
		d = earlier(d, c.heartbeat)
	}
	return d
}

// Expired tells whether nobody has used the consumer for so long that it is to be deleted.
func (c *Consumer) Expired(now int64) bool {
	at := c.expiry()
	return at != 0 && at <= now
}

func (c *Consumer) expiry() int64 {
	if c.cfg.InactiveThreshold <= 0 || c.wanted() {
		return 0
	}
	if c.IsPull() {
		return c.lastAsked + int64(c.cfg.InactiveThreshold)
	}
	return c.unbound + int64(c.cfg.InactiveThreshold)
}

// paused tells whether delivery is suspended.
func (c *Consumer) paused(now int64) bool {
	return c.cfg.PauseUntil != nil && c.cfg.PauseUntil.UnixNano() > now
}

// resume ends a pause whose time is over.
func (c *Consumer) resume(now int64) {
	if c.cfg.PauseUntil != nil && !c.paused(now) {
		c.cfg.PauseUntil = nil
	}
}

// Bind looks whether the deliver subject has interest, without delivering anything yet.
func (c *Consumer) Bind(t *Turn) {
	if !c.IsPull() {
		c.bind(t)
	}
}

// Bound tells whether the deliver subject had interest when last looked at.
func (c *Consumer) Bound() bool { return c.bound }

// AwaitsFlow tells whether a flow control request is open.
func (c *Consumer) AwaitsFlow() bool { return c.flow.reply != "" }

// TakeJournal returns the changes of the acknowledgements since the last call, to be replicated.
func (c *Consumer) TakeJournal() []byte { return c.acks.TakeJournal() }

// Pause suspends delivery until a time; nil resumes it.
func (c *Consumer) Pause(until *time.Time) { c.cfg.PauseUntil = until }

// Update changes the configuration, which has been held against the present one.
func (c *Consumer) Update(r storage.Reader, cfg api.ConsumerConfig) {
	c.cfg = cfg
	c.acks.setRule(ruleOf(&cfg))
	c.thaw(r)
	c.cursor.setFilters(r, Filters(&cfg))
	c.bound = false // The deliver subject may be another one; the next turn looks.
	c.pulls.max = cfg.MaxWaiting
}

// ResetPoint is where a reset to a sequence leads, 0 standing for the floor of acknowledgements. A
// sequence may be given only where the consumer could have started there.
func (c *Consumer) ResetPoint(r storage.Reader, seq uint64) (uint64, *api.Error) {
	if seq == 0 {
		return c.acks.Floor().Stream + 1, nil
	}
	switch c.cfg.DeliverPolicy {
	case api.DeliverAll:
	case api.DeliverByStartSequence:
		if seq < c.cfg.OptStartSeq {
			return 0, api.ErrInvalidReset.With("below start seq")
		}
	case api.DeliverByStartTime:
		if seq < r.SeqAtTime(c.cfg.OptStartTime.UnixNano()) {
			return 0, api.ErrInvalidReset.With("below start time")
		}
	default:
		return 0, api.ErrInvalidReset.With("not allowed")
	}
	return seq, nil
}

// Reset starts over at a stream sequence.
func (c *Consumer) Reset(r storage.Reader, seq uint64) {
	c.acks.Reset(seq)
	c.Release()
	c.cursor = newCursor(r, c.cursor.filters, seq, c.start.Snap)
	c.flow = newFlow()
}

// Info describes the consumer as of now.
func (c *Consumer) Info(now int64) *api.ConsumerInfo {
	i := &api.ConsumerInfo{
		Stream: c.stream, Name: c.name, Config: c.cfg,
		Created:        time.Unix(0, c.created).UTC(),
		Delivered:      c.acks.Delivered().info(),
		AckFloor:       c.acks.Floor().info(),
		NumAckPending:  c.acks.Outstanding(),
		NumRedelivered: c.acks.Redelivered(),
		NumWaiting:     c.pulls.len(),
		NumPending:     c.pending(),
		PushBound:      c.bound,
		TimeStamp:      time.Unix(0, now).UTC(),
		PriorityGroups: c.groupStates(),
	}
	if c.paused(now) {
		i.Paused = true
		i.PauseRemaining = time.Duration(c.cfg.PauseUntil.UnixNano() - now)
	}
	return i
}

func (m Mark) info() api.SequenceInfo {
	s := api.SequenceInfo{Consumer: m.Consumer, Stream: m.Stream}
	if m.Active != 0 {
		at := time.Unix(0, m.Active).UTC()
		s.Last = &at
	}
	return s
}
