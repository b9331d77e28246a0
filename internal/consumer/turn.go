package consumer

import (
	"errors"
	"strconv"

	"github.com/cleatkv/cleat/internal/storage"
)

// Turn is what a consumer is given when it may act: the stream to look at, the time, and room for
// what it wants sent.
type Turn struct {
	Reader   storage.Reader
	Load     func(r storage.Reader, seq uint64) (storage.Message, error) // nil: Reader.Load
	Interest func(subject, queue string) bool
	Now      int64 // Unix nanoseconds
	MsgsMax  int   // messages to deliver at most
	BytesMax int   // stop after the message that makes it that many bytes

	Out []Out // appended to
	Err error // the stream could not be read: nothing may be concluded from what was not delivered

	msgs  int
	bytes int
	ahead []storage.Message // loaded, in order; those from behind on are not delivered yet

	behind int
}

// Bounds of what a turn loads at once.
const (
	aheadMsgs  = 64
	aheadBytes = 128 << 10
)

// Out is something to be sent.
type Out struct {
	To       string // subject whose subscriptions get it
	Queue    string // only that queue group's members, if set
	Subject  string // in the MSG line
	Reply    string
	Header   []byte
	Data     []byte
	Advisory *Advisory // instead of all the above: an event to be published
}

// AdvisoryKind tells advisories apart.
type AdvisoryKind uint8

// The events a consumer reports.
const (
	AdvisoryMaxDeliver AdvisoryKind = iota + 1
	AdvisoryNak
	AdvisoryTerminated
	AdvisoryPinned
	AdvisoryUnpinned
)

// Advisory is an event worth telling whoever watches the server.
type Advisory struct {
	Kind        AdvisoryKind
	StreamSeq   uint64
	ConsumerSeq uint64
	Count       int    // deliveries
	Reason      string // why it was terminated
	Group       string
	PinID       string
}

// Messages and Bytes are what was delivered in this turn.
func (t *Turn) Messages() int { return t.msgs }
func (t *Turn) Bytes() int    { return t.bytes }

// Reset makes the turn ready for another use, keeping its memory.
func (t *Turn) Reset(now int64) {
	clear(t.Out)
	t.Out = t.Out[:0]
	clear(t.ahead)
	t.ahead, t.behind = t.ahead[:0], 0
	t.Now, t.Err, t.msgs, t.bytes = now, nil, 0, 0
}

func (t *Turn) load(r storage.Reader, seq uint64) (storage.Message, error) {
	if t.Load == nil {
		return r.Load(seq)
	}
	return t.Load(r, seq)
}

// loaded returns the first of the messages read ahead that is at or above a position.
func (t *Turn) loaded(from uint64) *storage.Message {
	for ; t.behind < len(t.ahead); t.behind++ {
		if m := &t.ahead[t.behind]; m.Seq >= from {
			return m
		}
	}
	return nil
}

// next returns the next message for a cursor on r if it was, or now is, loaded together with others.
func (t *Turn) next(r storage.Reader, c *Cursor) *storage.Message {
	m := t.loaded(c.Position())
	if m == nil {
		t.readAhead(r, c)
		m = t.loaded(c.Position())
	}
	return m
}

// readAhead loads the next messages for a cursor on r, if several are to be delivered. They are good as
// long as the stream does not change: for this turn.
func (t *Turn) readAhead(r storage.Reader, c *Cursor) {
	t.ahead, t.behind = t.ahead[:0], 0
	want := int(min(c.Pending(), aheadMsgs, uint64(t.MsgsMax-t.msgs)))
	if plan := c.Planned(r, want); len(plan) > 0 {
		t.readPlanned(r, plan)
	} else if s, ok := r.(storage.Scanner); ok && c.Dense(r) {
		bytes := 0
		// Should this fail, the load of a single message will tell.
		_ = s.Scan(c.filters, c.next, want, func(m *storage.Message) bool {
			t.ahead = append(t.ahead, *m)
			bytes += len(m.Data)
			return len(t.ahead) < want && bytes < aheadBytes
		})
	}
}

// readPlanned loads those of the sequences that are in the stream.
func (t *Turn) readPlanned(r storage.Reader, plan []uint64) {
	bytes := 0
	for _, seq := range plan {
		m, err := t.load(r, seq)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil || bytes >= aheadBytes {
			return
		}
		t.ahead = append(t.ahead, m)
		bytes += len(m.Data)
	}
}

// silence takes back what was to be sent.
func (t *Turn) silence(err error) {
	clear(t.Out)
	t.Out, t.Err = t.Out[:0], err
}

func (t *Turn) room() bool { return t.msgs < t.MsgsMax && t.bytes < t.BytesMax }

func (t *Turn) message(o Out) {
	t.msgs++
	t.bytes += len(o.Header) + len(o.Data) + len(o.Subject) + len(o.Reply)
	t.Out = append(t.Out, o)
}

func (t *Turn) advise(a Advisory) { t.Out = append(t.Out, Out{Advisory: &a}) }

// status ends a pull request, or answers it, with a message that is only a status. With w it tells
// what the request still lacks.
func (t *Turn) status(to, line string, w *waiting) {
	if to == "" {
		return
	}
	h := append(make([]byte, 0, 96), "NATS/1.0 "...)
	h = append(h, line...)
	h = append(h, "\r\n"...)
	if w != nil {
		h = append(h, "Nats-Pending-Messages: "...)
		h = strconv.AppendInt(h, int64(w.batch), 10)
		h = append(h, "\r\nNats-Pending-Bytes: "...)
		h = strconv.AppendInt(h, int64(w.bytes), 10)
		h = append(h, "\r\n"...)
	}
	h = append(h, "\r\n"...)
	t.Out = append(t.Out, Out{To: to, Subject: to, Header: h})
}

// heartbeat tells a client where the consumer is. stalled is the subject of an unanswered flow
// control request, if there is one.
func (t *Turn) heartbeat(to, queue string, c *Consumer, stalled string) {
	h := append(make([]byte, 0, 160), "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: "...)
	h = strconv.AppendUint(h, c.acks.Delivered().Consumer, 10)
	h = append(h, "\r\nNats-Last-Stream: "...)
	h = strconv.AppendUint(h, max(c.position()-1, c.acks.Delivered().Stream), 10)
	if stalled != "" {
		h = append(h, "\r\nNats-Consumer-Stalled: "...)
		h = append(h, stalled...)
	}
	h = append(h, "\r\n\r\n"...)
	t.Out = append(t.Out, Out{To: to, Queue: queue, Subject: to, Header: h})
}

// ackSubject is the reply subject of a message; clients read its metadata from it.
func (c *Consumer) ackSubject(m *storage.Message, consumerSeq uint64, count int) string {
	b := append(c.scratch[:0], c.ackPrefix...)
	b = strconv.AppendInt(b, int64(count), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, m.Seq, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, consumerSeq, 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, m.Time, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, c.pending(), 10)
	c.scratch = b
	return string(b)
}

const headerStart = "NATS/1.0\r\n"

// withSize returns a copy of a header block that tells the length of the body left out.
func withSize(header []byte, size int) []byte {
	return withLine(header, "Nats-Msg-Size: "+strconv.Itoa(size))
}

// withLine returns a copy of a header block with one more line.
func withLine(header []byte, line string) []byte {
	h := make([]byte, 0, len(headerStart)+len(header)+len(line)+4)
	if len(header) >= 2 {
		h = append(h, header[:len(header)-2]...)
	} else {
		h = append(h, headerStart...)
	}
	h = append(h, line...)
	return append(h, "\r\n\r\n"...)
}
