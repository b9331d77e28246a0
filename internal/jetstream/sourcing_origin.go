package jetstream

import (
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// original is what a copier reads: the replica of the origin on its server, or else one on another.
type original interface {
	// page gives the messages that match the filters, from a sequence on, as many as a page holds.
	// There are no others up to through, which is at least the sequence before from.
	page(filters []string, from uint64) (msgs []storage.Message, through uint64, err error)
	seqAtTime(t time.Time) (uint64, error)
	// idle is how long to wait after an empty page.
	idle() time.Duration
}

// A page ends with the message that reaches one of these.
const (
	pageMsgsMax  = 256
	pageBytesMax = 1 << 20
)

// nearOrigin is a replica here, which wakes the copier.
type nearOrigin struct{ *stream.Stream }

func (o nearOrigin) page(filters []string, from uint64) (msgs []storage.Message, through uint64, err error) {
	last := o.State().LastSeq // Before the look: what comes later is for the next page.
	for size := 0; len(msgs) < pageMsgsMax && size < pageBytesMax; {
		m, ok, err := o.NextOf(filters, from)
		if err != nil {
			return nil, 0, err
		}
		if !ok {
			return msgs, max(last, from-1), nil
		}
		msgs = append(msgs, m)
		size += len(m.Header) + len(m.Data)
		from = m.Seq + 1
	}
	return msgs, from - 1, nil
}

func (o nearOrigin) seqAtTime(t time.Time) (uint64, error) { return o.SeqAtTime(t) }
func (o nearOrigin) idle() time.Duration                   { return copyHeartbeat }

// farOrigin is a stream without a replica here: the pages come from a server that has one, which
// waits a moment for there to be something to send.
type farOrigin struct {
	svc     *Service
	stream  *cluster.Stream
	done    chan struct{} // of the copier
	pending atomic.Uint64 // messages behind the newest page, as of then
}

var errOriginSilent = errors.New("no server with a replica of the origin answers")

// pageWait is how long a server waits for there to be a page, and pageFor how long it is waited for.
const (
	pageWait = 500 * time.Millisecond
	pageFor  = 5 * time.Second
)

// pageRequest asks for a page of a stream or, with a time, for the sequence at that time.
type pageRequest struct {
	Group   uint64     `json:"group"` // another one of the same name is another stream
	Filters []string   `json:"filters,omitempty"`
	From    uint64     `json:"from,omitempty"`
	Time    *time.Time `json:"time,omitempty"`
}

type pageResponse struct {
	Messages []*api.StoredMessage `json:"messages,omitempty"`
	Through  uint64               `json:"through"` // or the sequence at that time
	Pending  uint64               `json:"pending"`
}

func (o *farOrigin) page(filters []string, from uint64) ([]storage.Message, uint64, error) {
	r, err := o.ask(&pageRequest{Filters: filters, From: from})
	if err != nil {
		return nil, 0, err
	}
	o.pending.Store(r.Pending)
	var msgs []storage.Message
	for _, m := range r.Messages {
		msgs = append(msgs, storage.Message{Seq: m.Seq, Time: m.Time.UnixNano(), Subject: m.Subject, Header: m.Header, Data: m.Data})
	}
	return msgs, r.Through, nil
}

func (o *farOrigin) seqAtTime(t time.Time) (uint64, error) {
	r, err := o.ask(&pageRequest{Time: &t})
	return r.Through, err
}

func (o *farOrigin) idle() time.Duration { return 0 } // The other server has waited.

// ask sends a request to a server with a replica and waits for the answer.
func (o *farOrigin) ask(q *pageRequest) (r pageResponse, err error) {
	to := o.stream.Nearest()
	if to == 0 {
		return r, errOriginSilent
	}
	q.Group = o.stream.Assignment().Group
	body, err := json.Marshal(q)
	if err != nil {
		return r, err
	}
	heard := make(chan outcome, 1)
	o.svc.elsewhere.ask(to, o.stream.Account(), pageSubject+o.stream.Name(), body, pageFor, func(out outcome) { heard <- out })
	select {
	case <-o.done:
		return r, errOriginSilent
	case out := <-heard:
		if out.verdict == notHere {
			o.stream.LeaderHint(out.leader)
		}
		if out.verdict != answered || out.refused {
			return r, errOriginSilent
		}
		return r, json.Unmarshal(out.body, &r)
	}
}

// pageSubject, with the name of a stream behind it, is for servers alone.
const pageSubject = apiPrefix + "STREAM.PAGE."

// streamPage answers another server's request for a page.
func (c *call) streamPage() {
	var q pageRequest
	if err := json.Unmarshal(c.body, &q); err != nil {
		c.refuse(api.ErrBadRequest)
		return
	}
	cs := c.find(c.name())
	if cs == nil {
		return
	}
	m := cs.Machine()
	if m == nil || cs.Assignment().Group != q.Group {
		c.refer(cs)
		return
	}
	give := func() { c.later(func() { c.givePage(nearOrigin{m}, &q) }) }
	c.svc.elsewhere.hold(&held{until: time.Now().Add(pageWait), late: give, try: func() bool {
		ready := q.Time != nil || m.State().LastSeq >= q.From
		if ready {
			give()
		}
		return ready
	}})
}

func (c *call) givePage(from nearOrigin, q *pageRequest) {
	var r pageResponse
	var msgs []storage.Message
	var err error
	if q.Time != nil {
		r.Through, err = from.seqAtTime(*q.Time)
	} else if msgs, r.Through, err = from.page(q.Filters, q.From); err == nil {
		r.Pending, err = from.CountOf(q.Filters, r.Through+1)
	}
	if err != nil {
		c.refuse(api.ErrUnavailable)
		return
	}
	for i := range msgs {
		r.Messages = append(r.Messages, storedMessage(&msgs[i]))
	}
	c.respond(&r)
}

// originOf is what to read a stream from.
func (c *copier) originOf(cs *cluster.Stream) (original, *api.Error) {
	if m := cs.Machine(); m != nil {
		c.far.Store(nil)
		return nearOrigin{m}, nil
	}
	if c.h.svc.elsewhere == nil {
		return nil, api.ErrUnavailable // It is not open yet.
	}
	far := c.far.Load()
	if far == nil || far.stream != cs {
		far = &farOrigin{svc: c.h.svc, stream: cs, done: c.done}
		c.far.Store(far)
	}
	return far, nil
}
