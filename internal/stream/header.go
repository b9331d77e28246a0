package stream

import (
	"bytes"
	"strconv"
	"time"
)

// Headers that the server understands on a published message. Names are compared byte by byte.
const (
	hdrMsgID           = "Nats-Msg-Id"
	hdrExpectedStream  = "Nats-Expected-Stream"
	hdrExpectedSeq     = "Nats-Expected-Last-Sequence"
	hdrExpectedSubjSeq = "Nats-Expected-Last-Subject-Sequence"
	hdrExpectedSubject = "Nats-Expected-Last-Subject-Sequence-Subject"
	hdrExpectedMsgID   = "Nats-Expected-Last-Msg-Id"
	hdrRollup          = "Nats-Rollup"
	hdrTTL             = "Nats-TTL"
	hdrIncr            = "Nats-Incr"
	hdrBatchID         = "Nats-Batch-Id"
	hdrSchedule        = "Nats-Schedule"
	hdrStreamSource    = "Nats-Stream-Source"
	hdrMarkerReason    = "Nats-Marker-Reason"
	hdrKVOperation     = "KV-Operation"

	// HeaderLine begins every header block.
	HeaderLine = "NATS/1.0\r\n"
)

// marks are the headers of one published message that a stream looks at; empty where absent: a
// header without a value asks for nothing. They alias the message.
type marks struct {
	msgID, expectedStream, expectedSeq, expectedSubjSeq, expectedSubject []byte
	expectedMsgID, rollup, ttl, incr, batchID, schedule, streamSource    []byte
}

// scan finds the headers in one pass. The first occurrence of a name counts.
func (m *marks) scan(block []byte) {
	for rest := block; ; {
		var name, value []byte
		var ok bool
		if name, value, rest, ok = nextHeader(rest); !ok {
			return
		}
		if len(name) < 8 || name[0] != 'N' || string(name[:5]) != "Nats-" {
			continue
		}
		if field := m.field(name); field != nil && *field == nil {
			*field = value
		}
	}
}

func (m *marks) field(name []byte) *[]byte {
	switch string(name) {
	case hdrMsgID:
		return &m.msgID
	case hdrExpectedStream:
		return &m.expectedStream
	case hdrExpectedSeq:
		return &m.expectedSeq
	case hdrExpectedSubjSeq:
		return &m.expectedSubjSeq
	case hdrExpectedSubject:
		return &m.expectedSubject
	case hdrExpectedMsgID:
		return &m.expectedMsgID
	case hdrRollup:
		return &m.rollup
	case hdrTTL:
		return &m.ttl
	case hdrIncr:
		return &m.incr
	case hdrBatchID:
		return &m.batchID
	case hdrSchedule:
		return &m.schedule
	case hdrStreamSource:
		return &m.streamSource
	}
	return nil
}

// nextHeader splits the first header off a block. The value lacks leading blanks, as readers of
// headers drop them, and is never nil.
func nextHeader(block []byte) (name, value, rest []byte, ok bool) {
	for len(block) > 0 {
		line := block
		if i := bytes.IndexByte(block, '\n'); i >= 0 {
			line, block = block[:i], block[i+1:]
		} else {
			block = nil
		}
		line = bytes.TrimSuffix(line, []byte{'\r'})
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			continue // The first line, the last one, or nothing that we know.
		}
		return line[:colon], bytes.TrimLeft(line[colon+1:], " "), block, true
	}
	return nil, nil, nil, false
}

// HeaderValue returns the value of the first header of that name; nil if there is none, empty but
// not nil if it has no value.
func HeaderValue(block []byte, name string) []byte {
	for rest := block; ; {
		n, v, r, ok := nextHeader(rest)
		if !ok {
			return nil
		}
		if string(n) == name {
			return v
		}
		rest = r
	}
}

// setHeader returns a copy of the block with the first header of that name given a new value.
func setHeader(block []byte, name, value string) []byte {
	for rest := block; ; {
		n, v, r, ok := nextHeader(rest)
		if !ok {
			return block
		}
		if string(n) != name {
			rest = r
			continue
		}
		at := len(block) - len(r) // behind the line
		end := at - len("\r\n")   // of the value
		out := append([]byte(nil), block[:end-len(v)]...)
		return append(append(out, value...), block[end:]...)
	}
}

// withoutStatus drops an inline status from the first line of a block: only the server sends
// those, stored messages have none.
func withoutStatus(block []byte) []byte {
	i := bytes.IndexByte(block, '\n')
	if i < 0 || i+1 == len(HeaderLine) {
		return block
	}
	return append([]byte(HeaderLine), block[i+1:]...)
}

// messageTTL is the value of a Nats-TTL header.
type messageTTL struct {
	never bool
	after time.Duration // whole seconds, at least one
}

// parseTTL reads whole seconds, a duration of at least one second, or "never".
func parseTTL(value []byte) (t messageTTL, ok bool) {
	if bytes.EqualFold(value, []byte("never")) {
		return messageTTL{never: true}, true
	}
	text := string(value)
	d, err := time.ParseDuration(text)
	if err != nil {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > int64(ttlMax/time.Second) {
			return t, false
		}
		d = time.Duration(n) * time.Second
	}
	d = d.Truncate(time.Second)
	return messageTTL{after: d}, d >= time.Second && d <= ttlMax
}

// ttlMax bounds a TTL so that adding it to a time does not overflow.
const ttlMax = 100 * 365 * 24 * time.Hour

// parseUint reads an unsigned decimal number without allocating.
func parseUint(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}
