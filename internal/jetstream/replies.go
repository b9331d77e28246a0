package jetstream

import (
	"sync"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/stream"
)

// replies gathers the acknowledgements of one turn of the loops that own replicas, so that they are
// routed together and each connection is flushed once.
type replies struct {
	mu   sync.Mutex
	next *turn
	idle []*turn // to be reused
}

// turn is what has been gathered: acknowledgements with their bytes in one buffer, and messages to
// publish.
type turn struct {
	out  broker.Batch
	acks []ack
	buf  []byte
}

type ack struct {
	account   *broker.Account
	reply     string
	end       int // of its bytes in buf; they begin where those of the one before end
	republish *stream.Republished
}

// add takes one acknowledgement (if reply is not empty) and one message to publish (if not nil).
func (r *replies) add(a *broker.Account, reply string, p *api.PubAck, republish *stream.Republished) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.next
	if t == nil {
		t = r.take()
		r.next = t
	}
	if reply != "" {
		t.buf = p.AppendJSON(t.buf)
	}
	t.acks = append(t.acks, ack{account: a, reply: reply, end: len(t.buf), republish: republish})
}

func (r *replies) take() *turn {
	if n := len(r.idle); n > 0 {
		t := r.idle[n-1]
		r.idle = r.idle[:n-1]
		return t
	}
	return new(turn)
}

// send routes and flushes everything gathered so far.
func (r *replies) send() {
	r.mu.Lock()
	t := r.next
	r.next = nil
	r.mu.Unlock()
	if t == nil {
		return
	}
	begin := 0
	for i := range t.acks {
		a := &t.acks[i]
		if a.reply != "" {
			a.account.Publish(&t.out, a.reply, "", nil, t.buf[begin:a.end])
		}
		if m := a.republish; m != nil {
			a.account.Publish(&t.out, m.Subject, "", m.Header, m.Data)
		}
		begin = a.end
	}
	t.out.Flush()
	clear(t.acks)
	t.acks, t.buf = t.acks[:0], t.buf[:0]
	r.mu.Lock()
	r.idle = append(r.idle, t)
	r.mu.Unlock()
}
