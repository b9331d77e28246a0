package jetstream

import (
	"bytes"
	"strconv"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/stream"
)

// onAck takes an acknowledgement. One that wants an answer gets it once it is certain that the
// message will not be delivered again: for a replicated consumer when the log has it. One of a message that
// was not delivered as far as is known, since whoever delivered it no longer leads, gets none: the message will be
// delivered.
func (f *feed) onAck(m *broker.Msg) {
	a, ok := consumer.ParseAck(m.Subject, m.Data)
	if !ok {
		return
	}
	t := consumer.Turn{Now: f.set.sched.clock.now(), Interest: f.set.interest}
	f.mu.Lock()
	if f.closed || f.journal.broken || !f.machine.Delivered(a.Seq) {
		f.mu.Unlock()
		return
	}
	wake := f.machine.Acknowledge(a, &t)
	answer := m.Reply != "" && a.Kind != consumer.AckNext
	if a.Kind == consumer.AckNext && m.Reply != "" {
		if p, refused := parsePull(a.Next, m.Reply); refused == "" {
			f.machine.Ask(p, &t)
			wake = true
		}
	}
	f.collect()
	if answer && f.logged && (len(f.journal.next) > 0 || f.journal.underway) {
		f.journal.wait(m.Reply)
		answer = false
	}
	f.mu.Unlock()
	if answer {
		m.Respond(nil, nil)
	}
	f.send(m.Out, &t)
	f.propose()
	if wake {
		f.wake()
	}
}

// wait has a reply sent once everything journaled so far is applied.
func (j *journal) wait(reply string) {
	if len(j.next) > 0 {
		j.replies = append(j.replies, reply)
	} else {
		j.answers = append(j.answers, reply)
	}
}

// onNext takes a pull request.
func (f *feed) onNext(m *broker.Msg) {
	if m.Reply == "" {
		return
	}
	if api.CheckLevel(stream.HeaderValue(m.Header, api.RequiredLevelHeader)) != nil {
		m.Respond([]byte("NATS/1.0 412 Required Api Level\r\n\r\n"), nil)
		return
	}
	p, refused := parsePull(m.Data, m.Reply)
	if refused != "" {
		m.Respond([]byte("NATS/1.0 400 Bad Request - "+refused+"\r\n\r\n"), nil)
		return
	}
	if !p.NoWait {
		f.ask(p, m.Out)
		return
	}
	// That there is nothing has to be true of what was acknowledged before.
	f.set.st.ReadIndex(func(err error) {
		f.set.sched.do(func(w *worker) {
			if err != nil {
				f.set.account.Publish(&w.out, p.Reply, "", []byte("NATS/1.0 "+consumer.EndLeader+"\r\n\r\n"), nil)
				return
			}
			f.ask(p, &w.out)
		})
	})
}

// ask gives the machine a pull request.
func (f *feed) ask(p consumer.Pull, out *broker.Batch) {
	t := consumer.Turn{Now: f.set.sched.clock.now(), Interest: f.set.interest}
	f.mu.Lock()
	if !f.closed && f.source.Err() == nil { // Else it might say that there is nothing.
		f.machine.Ask(p, &t)
	}
	f.mu.Unlock()
	f.send(out, &t)
	f.wake()
}

// parsePull reads the body of a pull request: nothing, a number, or JSON. refused says what is
// wrong with it.
func parsePull(body []byte, reply string) (p consumer.Pull, refused string) {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return consumer.Pull{Reply: reply, Batch: 1}, ""
	case body[0] == '{':
		var r api.NextRequest
		if err := api.DecodeLenient(body, &r); err != nil {
			return p, err.Description
		}
		return consumer.PullOf(&r, reply), ""
	}
	n, err := strconv.Atoi(string(body))
	if err != nil {
		return p, err.Error()
	}
	return consumer.Pull{Reply: reply, Batch: max(n, 1)}, ""
}
