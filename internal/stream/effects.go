package stream

import (
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// Headers that the server adds to stored messages on their way out.
const (
	HdrStream       = "Nats-Stream"
	HdrSubject      = "Nats-Subject"
	HdrSequence     = "Nats-Sequence"
	HdrTimeStamp    = "Nats-Time-Stamp"
	HdrLastSequence = "Nats-Last-Sequence"
	HdrNumPending   = "Nats-Num-Pending"
	HdrMsgSize      = "Nats-Msg-Size"
)

// AppendWithin appends the lines of a header block that a message came with (nil: none), without
// the empty line at its end, so that more lines can follow. The caller ends the block with "\r\n".
func AppendWithin(b, block []byte) []byte {
	if n := len(block); n > len("\r\n") {
		return append(b, block[:n-len("\r\n")]...)
	}
	return append(b, HeaderLine...)
}

// AppendLine appends one header line.
func AppendLine(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// AppendUintLine appends one header line with a number.
func AppendUintLine(b []byte, name string, value uint64) []byte {
	b = append(append(b, name...), ": "...)
	return append(strconv.AppendUint(b, value, 10), "\r\n"...)
}

// AppendTimeLine appends one header line with a time in Unix nanoseconds.
func AppendTimeLine(b []byte, name string, nanos int64) []byte {
	b = append(append(b, name...), ": "...)
	return append(time.Unix(0, nanos).UTC().AppendFormat(b, time.RFC3339Nano), "\r\n"...)
}

// republisher makes the copies that a stream's republish configuration asks for. nil makes none.
type republisher struct {
	stream      string
	transform   *subject.Transform
	headersOnly bool
}

func newRepublisher(c *api.StreamConfig) (*republisher, error) {
	if c.Republish == nil {
		return nil, nil
	}
	t, err := subject.NewTransform(c.Republish.Source, c.Republish.Destination)
	if err != nil {
		return nil, err
	}
	return &republisher{stream: c.Name, transform: t, headersOnly: c.Republish.HeadersOnly}, nil
}

// make gives the copy of a message just stored; prior is the last sequence on its subject before.
func (p *republisher) make(m *storage.Message, prior uint64) *Republished {
	if p == nil {
		return nil
	}
	to, ok := p.transform.Apply(m.Subject, m.Seq)
	if !ok {
		return nil
	}
	h := make([]byte, 0, len(m.Header)+len(m.Subject)+192)
	h = AppendWithin(h, m.Header)
	h = AppendLine(h, HdrStream, p.stream)
	h = AppendLine(h, HdrSubject, m.Subject)
	h = AppendUintLine(h, HdrSequence, m.Seq)
	h = AppendTimeLine(h, HdrTimeStamp, m.Time)
	h = AppendUintLine(h, HdrLastSequence, prior)
	data := m.Data
	if p.headersOnly {
		h = AppendUintLine(h, HdrMsgSize, uint64(len(m.Data)))
		data = nil
	}
	return &Republished{Subject: to, Header: append(h, "\r\n"...), Data: data}
}

// transformer maps the subjects of messages on their way in. nil maps none.
type transformer struct{ transform *subject.Transform }

func newTransformer(c *api.StreamConfig) (*transformer, error) {
	t := c.SubjectTransform
	if t == nil || t.Source == "" && t.Destination == "" {
		return nil, nil
	}
	compiled, err := subject.NewTransform(t.Source, t.Destination)
	if err != nil {
		return nil, err
	}
	return &transformer{compiled}, nil
}

// apply maps the subject of the message that is to get the given sequence.
func (t *transformer) apply(subj string, seq uint64) string {
	if t == nil {
		return subj
	}
	if to, ok := t.transform.Apply(subj, seq); ok {
		return to
	}
	return subj
}
