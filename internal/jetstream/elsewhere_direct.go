package jetstream

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/peer"
)

// returnsDirect is the name under which servers tell that they return direct gets which they can not answer.
const returnsDirect = "returns_direct"

// attempt counts how often a direct get was sent to a server that could not answer it.
//
//	attempt: | begun 8, of the clock of the server that sends it | tried 1 |
type attempt struct {
	begun time.Time
	tried byte
	last  uint64 // the server that tried last
}

const attemptBytes = 9

func (a attempt) appendTo(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(a.begun.UnixNano())), a.tried)
}

// forwardDirect sends a direct get to a server with a replica, which answers to the reply subject. It
// tells whether it was sent; an answer that is lost is like any that is lost on the way to a client.
//
//	direct:   | length-prefixed account, stream, subject, reply, header | data |
//	try:      | attempt | direct |
//	returned: | attempt | direct |
func (e *elsewhere) forwardDirect(cs *cluster.Stream, m *broker.Msg, a attempt) bool {
	to := cs.NearestBut(a.last)
	kind := kindDirect
	if e.cluster.Told(to, returnsDirect) != nil {
		kind = kindTry
	}
	return to != 0 && nil == e.cluster.SendPeer(to, peer.LaneRequests, kind, func(b []byte) []byte {
		if kind == kindTry {
			b = a.appendTo(b)
		}
		for _, s := range []string{cs.Account(), cs.Name(), m.Subject, m.Reply, string(m.Header)} {
			b = appendString(b, s)
		}
		return append(b, m.Data...)
	})
}

// directFrame is what is sent of a direct get.
type directFrame struct {
	account, stream string
	m               broker.Msg
}

func (e *elsewhere) openDirect(payload []byte) (f directFrame, ok bool) {
	var s [5]string
	for i := range s {
		if s[i], payload, ok = takeString(payload); !ok {
			return f, false
		}
	}
	f = directFrame{s[0], s[1], broker.Msg{Account: e.svc.opts.Broker.Account(s[0]), Subject: s[2], Reply: s[3], Data: payload}}
	if s[4] != "" {
		f.m.Header = []byte(s[4])
	}
	return f, true
}

func (e *elsewhere) receiveDirect(_ uint64, payload []byte) error {
	return e.answerDirect(payload, nil)
}

// receiveTry answers a direct get or, if that is not possible here, returns it.
func (e *elsewhere) receiveTry(from uint64, payload []byte) error {
	if len(payload) < attemptBytes {
		return errMalformed
	}
	return e.answerDirect(payload[attemptBytes:], func() {
		// If it cannot be sent, the answer is lost like any other.
		_ = e.cluster.SendPeer(from, peer.LaneRequests, kindReturned, func(b []byte) []byte { return append(b, payload...) })
	})
}

// answerDirect answers a direct get of another server's client. failed, if not nil, is called in place of an answer that
// says that there is none.
func (e *elsewhere) answerDirect(payload []byte, failed func()) error {
	f, ok := e.openDirect(payload)
	if !ok {
		return errMalformed
	}
	cs := e.cluster.Stream(f.account, f.stream)
	if failed != nil && (cs == nil || cs.Machine() == nil) {
		failed()
		return nil
	}
	var out broker.Batch
	f.m.Out = &out
	if cs == nil || !e.svc.serveDirect(cs, &f.m, failed) {
		f.m.Account.Publish(&out, f.m.Reply, "", []byte("NATS/1.0 "+statusUnavailable+"\r\n\r\n"), nil)
	}
	out.Flush()
	return nil
}

// receiveReturned sends a direct get that one server could not answer to another one. When all were asked there may be
// an election, and it begins again in a moment, as long as the client waits.
func (e *elsewhere) receiveReturned(from uint64, payload []byte) error {
	if len(payload) < attemptBytes {
		return errMalformed
	}
	a := attempt{begun: time.Unix(0, int64(binary.LittleEndian.Uint64(payload))), tried: payload[8] + 1, last: from}
	f, ok := e.openDirect(payload[attemptBytes:])
	if !ok {
		return errMalformed
	}
	cs := e.cluster.Stream(f.account, f.stream)
	if cs == nil {
		f.refuse()
		return nil
	}
	cs.NotLeading(from)
	var not time.Time // before
	if int(a.tried) >= len(cs.Servers()) {
		a.tried, a.last, not = 0, 0, time.Now().Add(retryGap)
	}
	e.hold(&held{until: a.begun.Add(returnFor), late: f.refuse, try: func() bool {
		return !time.Now().Before(not) && e.forwardDirect(cs, &f.m, a)
	}})
	return nil
}

// returnFor is how long servers are asked for a direct get. The last of them may then take four seconds to find
// out that it is cut off, and clients wait for five.
const returnFor = 3 * time.Second

// refuse says that there is no answer now.
func (f *directFrame) refuse() {
	var out broker.Batch
	f.m.Account.Publish(&out, f.m.Reply, "", []byte("NATS/1.0 "+statusUnavailable+"\r\n\r\n"), nil)
	out.Flush()
}

// orElsewhere is fn where there is a replica to read from. Where there is none, or none that is up to date, the
// request goes to a server that has one.
func (d *direct) orElsewhere(fn func(*broker.Msg)) func(*broker.Msg) {
	return func(m *broker.Msg) {
		cs, far := d.h.stream, d.h.svc.elsewhere
		switch {
		case cs.Machine() != nil:
			if far == nil || !cs.Lags() || d.mayBeStale(m) || !far.forwardDirect(cs, m, attempt{begun: time.Now()}) {
				fn(m)
			}
		case far == nil || !far.forwardDirect(cs, m, attempt{begun: time.Now()}):
			w := d.answerOne(m)
			w.unavailable()
		}
	}
}

// serveDirect answers a direct get that another server sent here, and tells whether it can.
func (s *Service) serveDirect(cs *cluster.Stream, m *broker.Msg, failed func()) bool {
	h := s.of(cs)
	if h == nil || cs.Machine() == nil {
		return false
	}
	for _, p := range h.parts {
		d, ok := p.(*direct)
		if !ok {
			continue
		}
		one := &direct{h: d.h, prefix: d.prefix, failed: failed}
		if strings.HasPrefix(m.Subject, d.prefix) {
			one.subjectForm(m)
		} else {
			one.wholeForm(m)
		}
	}
	return true
}
