package broker

import (
	"math/rand/v2"
	"strings"

	"github.com/cleatkv/cleat/internal/subject"
)

// nestingMax bounds how deep publishing from within an internal subscription may go. It is far
// above any honest use and ends a circle of imports.
const nestingMax = 16

// Batch collects the clients that were sent something, so that each is flushed once by the loop
// that owns the batch and not once per message. It also owns the scratch memory of routing. The
// zero value is ready; it belongs to one goroutine.
type Batch struct {
	clients []*Client
	frames  []*frame
	depth   int
	backlog int
}

// frame is the scratch memory of one routing; internal subscriptions may publish in turn, so there
// is one per depth.
type frame struct {
	found subject.Result[*Sub]
	far   copies
	msg   Msg
}

// Flush writes what the collected clients were sent to their sockets, in this goroutine and
// without blocking. What a socket does not take is left to the writer of its connection.
func (o *Batch) Flush() {
	o.backlog = 0
	for i, c := range o.clients {
		o.clients[i] = nil
		o.backlog = max(o.backlog, c.flush(o))
	}
	o.clients = o.clients[:0]
}

// Backlog is the largest number of bytes that the last Flush left unsent at any one client. A loop
// that delivers much should pause while it is high, lest the client be cut off as too slow.
func (o *Batch) Backlog() int { return o.backlog }

func (o *Batch) push() *frame {
	if o.depth == len(o.frames) {
		o.frames = append(o.frames, new(frame))
	}
	f := o.frames[o.depth]
	o.depth++
	return f
}

func (o *Batch) pop(f *frame) {
	f.msg = Msg{}
	o.depth--
}

// route sends m to the subscriptions matching `to`, see Account.Deliver, and returns how many took
// it. from is the publishing client, if any. With borrowed set the strings of m lie in a read
// buffer and are copied before an internal subscription sees them.
func (o *Batch) route(a *Account, from *Client, to, queue string, m Msg, borrowed bool) (delivered int) {
	if o.depth == nestingMax {
		return 0
	}
	f := o.push()
	defer o.pop(f)
	a.subs.Match(to, &f.found)
	if f.found.Empty() {
		return 0
	}
	f.msg = m
	f.msg.Account, f.msg.Client, f.msg.Out = a, from, o
	d := delivery{batch: o, msg: &f.msg, from: from, to: to, borrowed: borrowed, plain: f.found.Plain}
	if queue == "" {
		delivered = d.sendPlain(f.found.Plain) + f.far.plan(f.found.Plain)
	}
	for _, g := range f.found.Groups {
		if (queue == "" || queue == g.Name) && (d.sendOne(g.Members) || f.far.planOne(g.Name, g.Members)) {
			delivered++
		}
	}
	f.far.forward(&d)
	return delivered
}

// delivery is one message on its way to several subscriptions.
type delivery struct {
	batch    *Batch
	msg      *Msg
	from     *Client
	to       string // What was matched; the message may bear another subject.
	borrowed bool
	arrived  bool // From another server, which has given it to its own internal subscriptions.
	plain    [][]*Sub
}

// goesFar tells whether another server had subscribed when the message was matched. That may have changed since.
func (d *delivery) goesFar() bool { return anyRemote(d.plain) }

func (d *delivery) sendPlain(lists [][]*Sub) (delivered int) {
	for _, list := range lists {
		for _, s := range list {
			if d.send(s) {
				delivered++
			}
		}
	}
	return delivered
}

// sendOne sends to one member of a queue group, chosen at random among those that take it.
func (d *delivery) sendOne(members []*Sub) bool {
	first := 0
	if len(members) > 1 {
		first = rand.IntN(len(members))
	}
	for i := range members {
		if d.send(members[(first+i)%len(members)]) {
			return true
		}
	}
	return false
}

// send gives the message to a subscription of this server and tells whether it took it.
func (d *delivery) send(s *Sub) bool {
	if s.client != nil {
		return s.client.deliver(d, s)
	}
	if s.closed.Load() || s.remote != nil || d.arrived && !s.announced() {
		return false
	}
	if s.relay != nil {
		return s.relay(d)
	}
	d.own()
	sent := *d.msg // A callback that publishes or scribbles must not change what the next one sees.
	s.fn(d.msg)
	*d.msg = sent
	return true
}

// own replaces borrowed strings by one copy that holds both.
func (d *delivery) own() {
	if !d.borrowed {
		return
	}
	d.borrowed = false
	m := d.msg
	both := m.Subject + m.Reply
	if m.Reply == "" {
		both = strings.Clone(m.Subject) // Concatenation with "" does not copy.
	}
	m.Subject, m.Reply = both[:len(m.Subject)], both[len(m.Subject):]
	d.to = m.Subject // Only a client's own publish borrows, and it goes where it says.
}
