package consumer

import (
	"slices"
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// Pull is a client's request for messages.
type Pull struct {
	Reply         string // where messages and status go
	Batch         int    // messages asked for
	MaxBytes      int    // bytes asked for; 0: no bound
	Expires       time.Duration
	NoWait        bool
	IdleHeartbeat time.Duration

	// Of priority groups.
	Group         string
	MinPending    int64
	MinAckPending int64
	PinID         string
	Priority      int
}

// waiting is a pull request in the queue.
type waiting struct {
	Pull
	batch     int   // messages still to come
	bytes     int   // bytes still to come, if MaxBytes is set
	sent      int   // messages delivered so far
	expires   int64 // Unix nanoseconds, 0: never
	heartbeat int64 // when the next heartbeat is due, 0: none wanted
}

// beat puts the next heartbeat off after something was sent.
func (w *waiting) beat(now int64) {
	if w.IdleHeartbeat > 0 {
		w.heartbeat = now + int64(w.IdleHeartbeat)
	}
}

// pulls is the queue of pull requests of one consumer. Requests take turns, one message each;
// within a prioritized group those with the lower number go first. It is not replicated: after a
// change of leader clients are told to ask again.
type pulls struct {
	list []*waiting
	max  int
}

func (q *pulls) len() int { return len(q.list) }

// asked is the number of messages that the waiting requests ask for in total.
func (q *pulls) asked() int {
	n := 0
	for _, w := range q.list {
		n += w.batch
	}
	return n
}

func (q *pulls) add(w *waiting, prioritized bool) {
	if !prioritized {
		q.list = append(q.list, w)
		return
	}
	i := len(q.list)
	for i > 0 && q.list[i-1].Priority > w.Priority {
		i--
	}
	q.list = slices.Insert(q.list, i, w)
}

func (q *pulls) remove(w *waiting) {
	if i := slices.Index(q.list, w); i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
}

// yield lets the others go first after w was served.
func (q *pulls) yield(w *waiting, prioritized bool) {
	if len(q.list) > 1 {
		q.remove(w)
		q.add(w, prioritized)
	}
}

// deadline is when the queue has to be looked at next, 0 if never.
func (q *pulls) deadline() int64 {
	d := int64(0)
	for _, w := range q.list {
		d = earlier(d, w.expires)
		d = earlier(d, w.heartbeat)
	}
	return d
}

// earlier is the smaller of two times, of which 0 means never.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Ask takes a pull request, and answers what can be answered at once.
func (c *Consumer) Ask(p Pull, t *Turn) {
	if err := c.refusal(&p); err != "" {
		t.status(p.Reply, err, nil)
		return
	}
	c.lastAsked = t.Now
	w := &waiting{Pull: p, batch: max(p.Batch, 1), bytes: p.MaxBytes}
	if p.Expires > 0 {
		w.expires = t.Now + int64(p.Expires)
	}
	w.beat(t.Now)
	if !c.admitPinned(w, t) {
		return
	}
	if p.NoWait && !c.worthWaiting(w, t) {
		return
	}
	if c.pulls.len() >= c.pulls.max {
		c.expirePulls(t)
	}
	if c.pulls.len() >= c.pulls.max {
		if p.IdleHeartbeat == 0 {
			t.status(p.Reply, "409 Exceeded MaxWaiting", nil)
		}
		return
	}
	c.pulls.add(w, c.cfg.PriorityPolicy == api.PriorityPrioritized)
}

// worthWaiting tells whether a request that does not want to wait has something to hope for, and
// answers it if not.
func (c *Consumer) worthWaiting(w *waiting, t *Turn) bool {
	available := int(min(c.pending(), 1<<30))
	if c.acks.NextDue() != 0 && c.acks.NextDue() <= t.Now {
		available++
	}
	if available == 0 {
		if w.expires != 0 {
			return true
		}
		t.status(w.Reply, "404 No Messages", nil)
		return false
	}
	if available <= c.pulls.asked() {
		t.status(w.Reply, "408 Requests Pending", nil)
		return false
	}
	return true
}

// refusal is the status for a request that breaks the consumer's rules, empty if it does not.
func (c *Consumer) refusal(p *Pull) string {
	cfg := &c.cfg
	switch {
	case !c.IsPull():
		return "409 Consumer is push based"
	case cfg.MaxRequestBatch > 0 && p.Batch > cfg.MaxRequestBatch:
		return "409 Exceeded MaxRequestBatch of " + strconv.Itoa(cfg.MaxRequestBatch)
	case cfg.MaxRequestExpires > 0 && p.Expires > cfg.MaxRequestExpires:
		return "409 Exceeded MaxRequestExpires of " + cfg.MaxRequestExpires.String()
	case cfg.MaxRequestMaxBytes > 0 && p.MaxBytes > cfg.MaxRequestMaxBytes:
		return "409 Exceeded MaxRequestMaxBytes of " + strconv.Itoa(cfg.MaxRequestMaxBytes)
	case p.IdleHeartbeat > 0 && p.Expires > 0 && 2*p.IdleHeartbeat > p.Expires:
		return "400 Bad Request - heartbeat value too large"
	}
	return c.groupRefusal(p)
}

// expirePulls ends the requests whose time has come or whose client has gone, and sends the
// heartbeats that are due.
func (c *Consumer) expirePulls(t *Turn) {
	for i := 0; i < len(c.pulls.list); {
		w := c.pulls.list[i]
		switch {
		case w.expires != 0 && w.expires <= t.Now:
			t.status(w.Reply, "408 Request Timeout", w)
		case !t.Interest(w.Reply, ""):
			t.status(w.Reply, "408 Interest Expired", w)
		default:
			if w.heartbeat != 0 && w.heartbeat <= t.Now {
				t.heartbeat(w.Reply, "", c, "")
				w.beat(t.Now)
			}
			i++
			continue
		}
		c.pulls.list = slices.Delete(c.pulls.list, i, i+1)
	}
}

// servePulls delivers to the waiting requests while there is something to deliver.
func (c *Consumer) servePulls(t *Turn) {
	for t.room() && c.pulls.len() > 0 {
		d, ok := c.peek(t)
		if !ok {
			break
		}
		w := c.choose(t)
		if w == nil {
			return // Nobody who waits may have it.
		}
		if w.MaxBytes > 0 && c.size(d) > w.bytes {
			t.status(w.Reply, "409 Message Size Exceeds MaxBytes", w)
			c.pulls.remove(w)
			continue
		}
		size := c.send(d, w.Reply, "", c.pinOf(w), t)
		c.served(w, size, t)
	}
	if !t.room() || c.pulls.len() == 0 {
		return
	}
	c.endNoWait(t)
}

// served accounts for one message sent to a request.
func (c *Consumer) served(w *waiting, size int, t *Turn) {
	w.batch--
	w.sent++
	if w.MaxBytes > 0 {
		w.bytes -= size
	}
	w.beat(t.Now)
	if w.batch > 0 {
		c.pulls.yield(w, c.cfg.PriorityPolicy == api.PriorityPrioritized)
		return
	}
	c.pulls.remove(w)
	c.lastAsked = t.Now
	if w.MaxBytes > 0 && w.bytes > 0 {
		t.status(w.Reply, "409 Batch Completed", w)
	}
}

// endNoWait ends the requests that do not wait and have got what there was.
func (c *Consumer) endNoWait(t *Turn) {
	if _, more := c.peek(t); more || t.Err != nil {
		return // What could not be read is not what is not there.
	}
	for i := 0; i < len(c.pulls.list); {
		w := c.pulls.list[i]
		if !w.NoWait || w.sent == 0 && w.expires != 0 {
			i++
			continue
		}
		t.status(w.Reply, "408 Request Timeout", w)
		c.pulls.list = slices.Delete(c.pulls.list, i, i+1)
	}
}

// Why all waiting requests end at once.
const (
	EndDeleted  = "409 Consumer Deleted"
	EndLeader   = "409 Leadership Change"
	EndShutdown = "409 Server Shutdown"
)

// EndPulls ends all waiting requests.
func (c *Consumer) EndPulls(t *Turn, why string) {
	for _, w := range c.pulls.list {
		if why == EndShutdown {
			t.status(w.Reply, why, w)
		} else {
			t.status(w.Reply, why, nil)
		}
	}
	c.pulls.list = nil
}

// PullOf makes a pull request of its JSON form.
func PullOf(r *api.NextRequest, reply string) Pull {
	return Pull{
		Reply: reply, Batch: r.Batch, MaxBytes: r.MaxBytes, Expires: r.Expires, NoWait: r.NoWait,
		IdleHeartbeat: r.IdleHeartbeat, Group: r.Group, MinPending: r.MinPending,
		MinAckPending: r.MinAckPending, PinID: r.ID, Priority: r.Priority,
	}
}
