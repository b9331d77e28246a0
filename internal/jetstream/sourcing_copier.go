package jetstream

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/internal/subject"
)

// Bounds on what one copier has under way before it reads another page, and how often it looks
// without being woken.
const (
	copiesMax     = 256
	copyBytesMax  = 4 << 20
	copyRetry     = 250 * time.Millisecond
	copyHeartbeat = time.Second
)

// copier reads one origin and proposes what it finds. It decides nothing: whether a message is the
// one to come next is judged where it is applied, and after any surprise the copier begins again
// where the stream says that it is.
type copier struct {
	h      *hosted
	source *api.StreamSource
	key    string
	mirror bool // what is stored is what the origin has, with its sequences
	maps   []mapping
	wake   chan struct{}
	done   chan struct{}

	far atomic.Pointer[farOrigin] // what is read while the origin has no replica here

	// Of the goroutine.
	origin  *hosted // followed
	group   uint64  // of the origin
	aligned bool    // prev and next are known
	prev    uint64  // the last message proposed
	next    uint64  // where to look on in the origin
	buf     []byte

	mu struct {
		sync.Mutex
		messages, bytes int  // proposed and not yet heard of
		astray          bool // one of them did not go well
		active          time.Time
		err             *api.Error // why the origin can not be read
		refused         *api.Error // why the stream does not take what was read
	}
}

// mapping says which subjects are copied and what they become.
type mapping struct {
	filter    string
	transform *subject.Transform // nil: they stay what they are
}

func newCopier(h *hosted, source *api.StreamSource, mirror bool) *copier {
	c := &copier{h: h, source: source, key: source.Key(), mirror: mirror, wake: make(chan struct{}, 1), done: make(chan struct{})}
	for i, filter := range source.Filters() {
		m := mapping{filter: filter}
		if i < len(source.SubjectTransforms) && source.SubjectTransforms[i].Destination != "" {
			m.transform, _ = subject.NewTransform(filter, source.SubjectTransforms[i].Destination) // Validated.
		}
		c.maps = append(c.maps, m)
	}
	return c
}

func (c *copier) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run copies until the copier is closed.
func (c *copier) run() {
	defer c.follow(nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-c.wake:
		case <-timer.C:
		}
		pause, err := c.turn()
		c.report(err)
		timer.Reset(pause)
		if pause == copyRetry {
			// New messages do not right what is wrong.
			select {
			case <-c.done:
				return
			case <-timer.C:
				timer.Reset(0)
			}
		}
	}
}

// report keeps what is to be told of the copier.
func (c *copier) report(err *api.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err = err; err == nil {
		c.mu.active = time.Now()
	}
}

// turn proposes what there is and what there is room for, and tells when to look again.
func (c *copier) turn() (time.Duration, *api.Error) {
	target := c.h.stream.Machine()
	origin, from, err := c.find()
	if err != nil || target == nil {
		return copyRetry, err
	}
	if astray, ready := c.ready(origin.Assignment().Group); !ready || astray {
		return copyRetry, nil
	}
	known, _, failed := target.SourcePosition(c.key)
	if failed == nil && c.mirror && known != 0 && known != c.group {
		return copyRetry, stream.ErrOriginReplaced
	}
	if failed == nil && !c.aligned {
		failed = c.align(target, from)
	}
	if failed != nil {
		return copyRetry, api.ErrMirrorConsumerSetup.With(failed)
	}
	for c.hasRoom() {
		msgs, through, err := from.page(c.source.Filters(), c.next)
		if err != nil {
			return copyRetry, api.ErrMirrorConsumerSetup.With(err)
		}
		c.report(nil) // Now: the next page may be long in coming.
		for i := range msgs {
			c.take(&msgs[i])
		}
		c.pass(through)
		if len(msgs) == 0 {
			return from.idle(), nil
		}
	}
	return copyHeartbeat, nil
}

// find gives the origin and what to read of it. If that is here, it wakes the copier.
func (c *copier) find() (*cluster.Stream, original, *api.Error) {
	cs := c.h.svc.cluster.Stream(c.h.stream.Account(), c.source.Name)
	if cs == nil {
		c.follow(nil)
		return nil, nil, api.ErrStreamNotFound
	}
	c.follow(c.h.svc.of(cs))
	from, err := c.originOf(cs)
	return cs, from, err
}

func (c *copier) follow(origin *hosted) {
	if origin == c.origin {
		return
	}
	if c.origin != nil {
		c.origin.sourcing().follow(c, false)
	}
	if c.origin = origin; origin != nil {
		origin.sourcing().follow(c, true)
	}
}

// ready tells whether the copier may go on. After something went wrong, or when the origin is
// another one, it may not until nothing is under way any more; then it has to be aligned.
func (c *copier) ready(group uint64) (astray, ready bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.astray || group != c.group {
		c.aligned = false
	}
	if c.aligned {
		return false, true
	}
	if c.mu.messages > 0 {
		return false, false
	}
	astray = c.mu.astray
	c.mu.astray, c.group = false, group
	return astray, true
}

// align finds where to go on.
func (c *copier) align(target *stream.Stream, from original) error {
	seq, err := c.position(target, c.group)
	if err != nil {
		return err
	}
	c.prev, c.next = seq, seq+1
	if seq == 0 {
		c.next = max(c.next, c.source.OptStartSeq)
		if t := c.source.OptStartTime; t != nil {
			at, err := from.seqAtTime(*t)
			if err != nil {
				return err
			}
			c.next = max(c.next, at)
		}
	}
	c.aligned = true
	return nil
}

// position is how far the origin of that group has been copied.
func (c *copier) position(target *stream.Stream, group uint64) (uint64, error) {
	if c.mirror {
		return target.State().LastSeq, nil
	}
	origin, seq, err := target.SourcePosition(c.key)
	if origin != group {
		seq = 0
	}
	return seq, err
}

// wants tells whether a message is to be copied, as far as the filters do not say it.
func (c *copier) wants(m *storage.Message) bool {
	t := c.source.OptStartTime
	return t == nil || m.Time >= t.UnixNano()
}

func (c *copier) hasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.mu.astray && c.mu.messages < copiesMax && c.mu.bytes < copyBytesMax
}

// propose offers a message to the stream's leader.
func (c *copier) propose(m *storage.Message) {
	if c.mirror {
		c.buf = stream.AppendMirrored(c.buf[:0], &stream.Mirrored{
			Origin: c.group, Prev: c.prev, Seq: m.Seq, Time: m.Time, Subject: c.subject(m), Header: m.Header, Data: m.Data,
		})
	} else {
		c.buf = stream.AppendCopied(c.buf[:0], &stream.Copied{
			Source: c.key, Origin: c.group, Prev: c.prev, Seq: m.Seq,
			Subject: c.subject(m), Header: stream.HeaderOfCopy(m, c.key), Data: m.Data,
		})
	}
	c.offer(m.Seq)
}

// take copies a message, if it is to be copied.
func (c *copier) take(m *storage.Message) {
	if c.wants(m) {
		c.propose(m)
	}
	c.next = m.Seq + 1
}

// pass goes on behind a sequence up to which there is nothing more to copy. A mirror does so too.
func (c *copier) pass(through uint64) {
	if through < c.next {
		return
	}
	c.next = through + 1
	if c.mirror {
		c.buf = stream.AppendMirrored(c.buf[:0], &stream.Mirrored{Origin: c.group, Prev: c.prev, Seq: through})
		c.offer(through)
	}
}

// offer proposes what is in the buffer, which brings the copy to the given sequence.
func (c *copier) offer(seq uint64) {
	c.prev = seq
	size := len(c.buf)
	c.mu.Lock()
	c.mu.messages++
	c.mu.bytes += size
	c.mu.Unlock()
	c.h.stream.Propose(c.buf, cluster.WaiterFunc(func(result any, err error) { c.heard(result, err, size) }))
	if cap(c.buf) > commandBufferMax {
		c.buf = nil
	}
}

// subject is what the message's subject becomes.
func (c *copier) subject(m *storage.Message) string {
	for _, mp := range c.maps {
		if !subject.Match(mp.filter, m.Subject) {
			continue
		}
		if mp.transform != nil {
			if to, ok := mp.transform.Apply(m.Subject, m.Seq); ok {
				return to
			}
		}
		break
	}
	return m.Subject
}

// heard takes the outcome of a proposal. Whatever it is but a success, the copier begins anew.
func (c *copier) heard(result any, err error, size int) {
	c.mu.Lock()
	c.mu.messages--
	c.mu.bytes -= size
	r, _ := result.(*stream.Result)
	switch {
	case err != nil:
		c.mu.astray = true
	case r.Err == nil:
		c.mu.refused = nil
	default:
		c.mu.astray = true
		if !errors.Is(r.Err, api.ErrWrongLastSequence) {
			c.mu.refused = r.Err
		}
	}
	idle := c.mu.messages == 0
	c.mu.Unlock()
	if err == nil && r.Republish != nil {
		c.h.svc.replies.add(c.h.account, "", &api.PubAck{}, r.Republish)
	}
	if idle {
		c.kick()
	}
}

// describe tells how far the copy is.
func (c *copier) describe(i *api.StreamSourceInfo) {
	c.mu.Lock()
	active := c.mu.active
	if i.Error = c.mu.err; i.Error == nil {
		i.Error = c.mu.refused
	}
	c.mu.Unlock()
	if !active.IsZero() {
		i.Active = time.Since(active)
	}
	if far := c.far.Load(); far != nil {
		i.Lag = far.pending.Load()
		return
	}
	target := c.h.stream.Machine()
	cs := c.h.svc.cluster.Stream(c.h.stream.Account(), c.source.Name)
	if target == nil || cs == nil || cs.Machine() == nil {
		return
	}
	seq, err := c.position(target, cs.Assignment().Group)
	if err != nil {
		return
	}
	if lag, err := cs.Machine().CountOf(c.source.Filters(), max(seq+1, c.source.OptStartSeq)); err == nil {
		i.Lag = lag
	}
}
