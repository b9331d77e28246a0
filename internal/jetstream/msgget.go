package jetstream

import (
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// msgGet answers STREAM.MSG.GET: one message as JSON.
func (c *call) msgGet() {
	if api.EmptyRequest(c.body) {
		c.refuse(api.ErrBadRequest)
		return
	}
	var req api.MsgGetRequest
	if !c.decode(&req) {
		return
	}
	if req.Batch != 0 || req.MaxBytes != 0 || conflicting(&req) || !selects(&req) {
		c.refuse(api.ErrBadRequest)
		return
	}
	cs := c.find(c.name())
	if cs == nil {
		return
	}
	c.atReplica(cs, func() { c.msgGetHere(cs, &req) })
}

func (c *call) msgGetHere(cs *cluster.Stream, req *api.MsgGetRequest) {
	kind, begun := opNone, sinceEpoch()
	if isBucket(cs.Name()) {
		kind = opGet
	}
	done := func(r opResult) { c.svc.ops.done(kind, r, begun) }
	c.read(cs, func(m *stream.Stream) {
		msg, ok, err := lookup(m, req)
		switch {
		case err != nil:
			done(resultUnavailable)
			c.broken(cs, err)
		case !ok:
			done(resultNotFound)
			c.refuse(api.ErrNoMessageFound)
		default:
			done(resultOK)
			stored := storedMessage(&msg)
			if req.NoHeaders {
				stored.Header = nil
			}
			c.respond(&api.MsgGetResponse{Header: c.header(), Message: stored})
		}
	})
}

func storedMessage(m *storage.Message) *api.StoredMessage {
	return &api.StoredMessage{Subject: m.Subject, Seq: m.Seq, Header: m.Header, Data: m.Data, Time: time.Unix(0, m.Time).UTC()}
}

// selects tells whether a request says which message it wants.
func selects(r *api.MsgGetRequest) bool {
	return r.Seq != 0 || r.LastFor != "" || r.NextFor != "" || r.StartTime != nil
}

// conflicting tells whether a request says so in more than one way.
func conflicting(r *api.MsgGetRequest) bool {
	last, next, timed := r.LastFor != "", r.NextFor != "", r.StartTime != nil
	return last && (r.Seq != 0 || next || timed) || timed && r.Seq != 0
}

// lookup finds the one message that a request asks for.
func lookup(m *stream.Stream, r *api.MsgGetRequest) (storage.Message, bool, error) {
	from := r.Seq
	if r.StartTime != nil {
		var err error
		if from, err = m.SeqAtTime(*r.StartTime); err != nil {
			return storage.Message{}, false, err
		}
	}
	switch {
	case r.LastFor != "":
		return m.Last(r.LastFor)
	case r.NextFor != "":
		return m.Next(r.NextFor, max(from, 1))
	case r.StartTime != nil:
		return m.Next("", from)
	}
	return m.Get(r.Seq)
}
