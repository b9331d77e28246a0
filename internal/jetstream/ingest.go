package jetstream

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/stream"
)

// ingest takes the publishes on a stream's subjects, makes commands of them, and answers when they
// are applied.
type ingest struct {
	h    *hosted
	subs []*broker.Sub
}

func newIngest(h *hosted) part { return &ingest{h: h} }

// updated makes the subscriptions those of the configuration. Those that stay are not interrupted.
func (g *ingest) updated() {
	want := g.h.stream.Config().Subjects
	var kept []*broker.Sub
	for _, sub := range g.subs {
		if slices.Contains(want, sub.Subject()) {
			kept = append(kept, sub)
		} else {
			sub.Close()
		}
	}
	for _, subj := range want {
		has := func(s *broker.Sub) bool { return s.Subject() == subj }
		if !slices.ContainsFunc(kept, has) {
			kept = append(kept, g.h.account.Subscribe(subj, "", g.publish))
		}
	}
	g.subs = kept
}

func (g *ingest) leaderChanged() {}
func (g *ingest) applied()       {}

func (g *ingest) stop() {
	for _, sub := range g.subs {
		sub.Close()
	}
	g.subs = nil
}

// commandBuffers are reused: proposing copies.
var commandBuffers = sync.Pool{New: func() any { return new([]byte) }}

// commandBufferMax bounds the buffers that are kept.
const commandBufferMax = 64 << 10

// publish runs on the publisher's goroutine.
func (g *ingest) publish(m *broker.Msg) {
	buf := commandBuffers.Get().(*[]byte)
	*buf = stream.AppendPublish((*buf)[:0], m.Subject, m.Header, m.Data)
	w := publishWaiters.Get().(*publishWaiter)
	w.h, w.reply = g.h, m.Reply
	if g.h.bucket {
		w.op, w.begun = writeOp(m.Header), sinceEpoch()
	}
	if g.h.quota.takes(g.h.stream.Config().Storage, m) {
		g.h.stream.Propose(*buf, w)
	} else {
		w.Done(nil, api.ErrAccountResourcesExceeded)
	}
	if cap(*buf) <= commandBufferMax {
		commandBuffers.Put(buf)
	}
}

// publishWaiter answers one publish.
type publishWaiter struct {
	h     *hosted
	reply string
	op    op
	begun time.Duration
}

var publishWaiters = sync.Pool{New: func() any { return new(publishWaiter) }}

// Done gathers the acknowledgement of an outcome; TurnEnd sends it.
func (w *publishWaiter) Done(result any, err error) {
	h, reply, op, begun := w.h, w.reply, w.op, w.begun
	*w = publishWaiter{}
	publishWaiters.Put(w)

	if c := h.stream.Config(); c.NoAck {
		reply = ""
	}
	p := api.PubAck{Stream: h.stream.Name(), Domain: h.svc.opts.Domain}
	if err != nil {
		p.Err = refusal(err)
		h.svc.ops.done(op, failure(p.Err), begun)
		if p.Err != nil && reply != "" {
			// Not within a turn, perhaps.
			h.account.Publish(nil, reply, "", nil, p.AppendJSON(nil))
		}
		return
	}
	r := result.(*stream.Result)
	h.svc.ops.done(op, writeResult(r.Err), begun)
	if reply == "" && r.Republish == nil {
		return
	}
	p.Seq, p.Duplicate, p.Err = r.Seq, r.Duplicate, r.Err
	h.svc.replies.add(h.account, reply, &p, r.Republish)
}

// refusal is the answer for a command that has no result: nil if nobody knows whether it will be
// executed, and so nothing may be answered.
func refusal(err error) *api.Error {
	var refused *api.Error
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, cluster.ErrOverloaded):
		return api.ErrTooManyRequests
	case errors.Is(err, cluster.ErrNoSpace):
		return api.ErrInsufficientResources
	case errors.Is(err, cluster.ErrUnavailable):
		return api.ErrUnavailable
	}
	return nil
}
