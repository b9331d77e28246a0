package consumer

import "strconv"

// Flow control bounds what is on its way to a client that has not been processed. The window
// starts small and doubles each time the client keeps up.
const (
	flowWindowMin = 2 << 20
	flowWindowMax = 32 << 20
)

// flow is the flow control of a push consumer.
//
// Every message adds its size to outstanding. When that exceeds half the window the client is sent
// a request; the answer says that everything sent before it has been processed. Beyond the window
// nothing is sent until then. One request is open at a time.
type flow struct {
	window      int
	outstanding int
	asked       int    // what of outstanding the open request covers
	askedSeq    uint64 // the last stream sequence it covers
	token       uint64 // of the open request, or of the last one
	reply       string // subject the client is to answer on; empty if no request is open
}

func newFlow() flow { return flow{window: flowWindowMin} }

func (f *flow) stalled() bool { return f.outstanding > f.window }

// answered takes the answer to the open request.
func (f *flow) answered() {
	f.outstanding -= f.asked
	f.asked = 0
	f.reply = ""
	f.window = min(2*f.window, flowWindowMax)
}

// FlowReply takes a client's answer to a flow control request. Answers to requests other than the
// open one change nothing. It returns whether a turn has something to do now.
func (c *Consumer) FlowReply(subject string, now int64) (wake bool) {
	if c.flow.reply == "" || subject != c.flow.reply {
		return false
	}
	stalled := c.flow.stalled()
	c.settleFlow(now)
	c.flow.answered()
	return stalled
}

// bind notices whether the deliver subject has interest.
func (c *Consumer) bind(t *Turn) {
	has := t.Interest(c.cfg.DeliverSubject, c.cfg.DeliverGroup)
	if has == c.bound {
		return
	}
	c.bound = has
	if has {
		c.putOffHeartbeat(t.Now)
		return
	}
	// Whoever answers next is another subscriber, which was sent nothing so far.
	c.unbound = t.Now
	token := c.flow.token
	c.flow = newFlow()
	c.flow.token = token
}

// servePush delivers while the client keeps up and there is something to deliver.
func (c *Consumer) servePush(t *Turn) {
	for t.room() && !c.flow.stalled() {
		d, ok := c.peek(t)
		if !ok {
			return
		}
		seq := d.msg.Seq
		size := c.send(d, c.cfg.DeliverSubject, c.cfg.DeliverGroup, "", t)
		c.putOffHeartbeat(t.Now)
		if c.cfg.FlowControl {
			c.flow.outstanding += size
			c.askFlow(seq, t)
		}
	}
}

// askFlow sends a flow control request if it is time for one.
func (c *Consumer) askFlow(seq uint64, t *Turn) {
	f := &c.flow
	if f.reply != "" || f.outstanding <= f.window/2 {
		return
	}
	f.token++
	f.reply = "$JS.FC." + c.stream + "." + c.name + "." + strconv.FormatUint(f.token, 36)
	f.asked, f.askedSeq = f.outstanding, seq
	t.Out = append(t.Out, Out{
		To: c.cfg.DeliverSubject, Queue: c.cfg.DeliverGroup, Subject: c.cfg.DeliverSubject, Reply: f.reply,
		Header: []byte("NATS/1.0 100 FlowControl Request\r\n\r\n"),
	})
}

// beat sends the heartbeat of a push consumer if nothing else was sent for long enough.
func (c *Consumer) beat(t *Turn) {
	if !c.bound || c.heartbeat == 0 || c.heartbeat > t.Now {
		return
	}
	t.heartbeat(c.cfg.DeliverSubject, c.cfg.DeliverGroup, c, c.flow.reply)
	c.putOffHeartbeat(t.Now)
}

func (c *Consumer) putOffHeartbeat(now int64) {
	c.heartbeat = 0
	if c.cfg.IdleHeartbeat > 0 {
		c.heartbeat = now + int64(c.cfg.IdleHeartbeat)
	}
}
