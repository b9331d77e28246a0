package consumer

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// AckKind is what an acknowledgement says.
type AckKind uint8

// The kinds of acknowledgements.
const (
	Acked    AckKind = iota + 1
	Naked            // send it again, after Delay
	Working          // still at it, restart the time
	Finished         // never send it again, though it was not processed
	AckNext          // acknowledged; the body asks for more, see Next
)

// Ack is a parsed acknowledgement.
type Ack struct {
	Kind   AckKind
	Seq    uint64 // stream sequence
	Delay  time.Duration
	Reason string
	Next   []byte // body of the pull request behind +NXT
}

// ParseAck reads an acknowledgement from the subject and the body of a message. Both forms of the
// subject are understood, the one with nine tokens that we send and the longer one with a domain.
func ParseAck(subject string, body []byte) (Ack, bool) {
	tokens := strings.Split(subject, ".")
	at := 5 // $JS.ACK.<stream>.<consumer>.<count>.<stream seq>...
	if len(tokens) >= 11 {
		at = 7
	}
	if len(tokens) <= at {
		return Ack{}, false
	}
	seq, err := strconv.ParseUint(tokens[at], 10, 64)
	if err != nil {
		return Ack{}, false
	}
	a := Ack{Kind: Acked, Seq: seq}
	word, rest, _ := bytes.Cut(bytes.TrimSpace(body), []byte(" "))
	rest = bytes.TrimSpace(rest)
	switch {
	case len(word) == 0, string(word) == "+ACK", string(word) == "+OK":
	case string(word) == "-NAK":
		a.Kind, a.Delay = Naked, nakDelay(rest)
	case string(word) == "+WPI":
		a.Kind = Working
	case string(word) == "+TERM":
		a.Kind, a.Reason = Finished, string(rest)
	case bytes.HasPrefix(word, []byte("+NXT")):
		a.Kind = AckNext
		a.Next = bytes.TrimSpace(bytes.TrimSpace(body)[len("+NXT"):])
	default:
		return Ack{}, false
	}
	return a, true
}

// nakDelay reads what follows -NAK: {"delay":ns}, a Go duration, or nothing.
func nakDelay(b []byte) time.Duration {
	if len(b) == 0 {
		return 0
	}
	if b[0] == '{' {
		var v struct {
			Delay time.Duration `json:"delay"`
		}
		if json.Unmarshal(b, &v) != nil {
			return 0
		}
		return max(v.Delay, 0)
	}
	d, err := time.ParseDuration(string(b))
	if err != nil {
		return 0
	}
	return max(d, 0)
}

// Acknowledge takes an acknowledgement and returns whether a turn has something to do now.
func (c *Consumer) Acknowledge(a Ack, t *Turn) (wake bool) {
	full := c.acks.Full()
	switch a.Kind {
	case Acked, AckNext:
		c.acks.Ack(a.Seq, t.Now)
	case Naked:
		count := c.acks.Count(a.Seq)
		if count == 0 || !c.acks.Delay(a.Seq, t.Now+int64(a.Delay)) {
			return false
		}
		t.advise(Advisory{Kind: AdvisoryNak, StreamSeq: a.Seq, ConsumerSeq: c.acks.consumerSeq(a.Seq), Count: count})
		return true
	case Working:
		c.acks.Progress(a.Seq, t.Now)
	case Finished:
		count, seq := c.acks.Count(a.Seq), c.acks.consumerSeq(a.Seq)
		if count > 0 {
			c.acks.Terminate(a.Seq, t.Now)
			t.advise(Advisory{Kind: AdvisoryTerminated, StreamSeq: a.Seq, ConsumerSeq: seq, Count: count, Reason: a.Reason})
		}
	}
	return full && !c.acks.Full()
}

// settleFlow makes the answer to a flow control request count as an acknowledgement of everything
// sent before it, for consumers that want it so.
func (c *Consumer) settleFlow(now int64) {
	if c.cfg.AckPolicy == api.AckFlowControl {
		c.acks.Ack(c.flow.askedSeq, now)
	}
}
