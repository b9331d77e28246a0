package server

import (
	"strings"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
)

// A client that is asked to go elsewhere has requests under way: those it has sent and this server has not read, and
// those whose answers have not come. It does not send them again, so if its connection were just closed each
// would end in a time-out. Therefore, in lame duck mode,
//
//  1. the output is finished: the client sees the end of the stream, and connects to another server;
//  2. the input is read to its end, and what the client has sent is done;
//  3. answers that come meanwhile are kept until the client has subscribed to them on another server, and are
//     sent there.
const (
	// leaveTimeout bounds the whole of it. A client that is not back by then was not going to come.
	// Clients that have tried all servers that they know wait two seconds and some more before they try again.
	leaveTimeout = 3 * time.Second
	leaveLook    = 2 * time.Millisecond

	// leaveSettle is how long the last requests have to be answered before what answers them stops, and how long an
	// answer may be on its way to where the client was once it is elsewhere.
	leaveSettle = 200 * time.Millisecond

	lateMessagesMax = 1024
	lateBytesMax    = 4 << 20
)

// inboxPrefix is what the subjects of answers begin with. Messages to others are not kept: they have other
// receivers, which would get them twice.
const inboxPrefix = "_INBOX."

// lateMessages are answers for a client that has gone.
type lateMessages struct {
	mu    sync.Mutex
	msgs  []broker.Msg
	bytes int
}

// keep takes a message, unless it goes to another server, where the client is. See broker.Client.Leave.
func (l *lateMessages) keep(m *broker.Msg, far bool) {
	if far || !strings.HasPrefix(m.Subject, inboxPrefix) {
		return
	}
	size := len(m.Header) + len(m.Data)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.msgs) == lateMessagesMax || l.bytes+size > lateBytesMax {
		return
	}
	l.bytes += size
	l.msgs = append(l.msgs, broker.Msg{
		Subject: m.Subject, Reply: m.Reply, Header: append([]byte(nil), m.Header...), Data: append([]byte(nil), m.Data...),
	})
}

// leave begins to close a connection whose client is to go elsewhere.
func (c *conn) leave() {
	a := c.client.Account()
	// Without an account nothing is under way; a WebSocket has no half that could be closed.
	if a == nil || c.kind == auth.WebSocket || !c.srv.hasPeers() {
		c.end(ServerShutdown)
		return
	}
	c.leaving.Store(&lateMessages{})
	c.client.Leave(c.leaving.Load().keep)
}

// hasPeers tells whether there is another server for clients to go to.
func (s *Server) hasPeers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.peerURLs) > 0
}

// moved waits until the client is elsewhere and sends its late answers after it. It is the last thing the reader
// goroutine does before the subscriptions end.
func (c *conn) moved(l *lateMessages) {
	a := c.client.Account()
	var inboxes []string
	for _, s := range c.client.Subscriptions() {
		if strings.HasPrefix(s.Subject(), inboxPrefix) {
			inboxes = append(inboxes, strings.NewReplacer("*", "x", ">", "x").Replace(s.Subject()))
		}
	}
	for end := time.Now().Add(leaveTimeout); len(inboxes) > 0 && time.Now().Before(end) && c.srv.hasPeers(); {
		if !a.Far(inboxes[0]) {
			time.Sleep(leaveLook)
			continue
		}
		inboxes = inboxes[1:]
	}
	if len(inboxes) == 0 { // What was matched before it was known where the client is comes here still.
		l.send(a)
		time.Sleep(leaveSettle)
	}
	c.client.Close()
	l.send(a)
}

// send publishes what was kept again.
func (l *lateMessages) send(a *broker.Account) {
	l.mu.Lock()
	msgs := l.msgs
	l.msgs, l.bytes = nil, 0
	l.mu.Unlock()
	for _, m := range msgs {
		header := m.Header
		if len(header) == 0 {
			header = nil
		}
		a.Publish(nil, m.Subject, m.Reply, header, m.Data)
	}
}
