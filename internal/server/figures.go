package server

import (
	"fmt"
	"sync/atomic"
	"time"
)

// ConnInfo is what monitoring shows of a connection, open or closed.
type ConnInfo struct {
	ID            uint64
	Kind          string // A connection type of auth.
	IP            string
	Port          int
	Start         time.Time
	LastActivity  time.Time
	Stop          time.Time // Zero while it is open.
	Reason        string    // Why it was closed.
	RTT           time.Duration
	Pending       int
	InMsgs        int64
	InBytes       int64
	OutMsgs       int64
	OutBytes      int64
	Stalls        int64
	Subscriptions int
	Name          string
	Lang          string
	Version       string
	TLSVersion    string
	TLSCipher     string
	User          string
	Account       string
	Subs          []SubInfo // Only where they are asked for.
}

// SubInfo is what monitoring shows of a subscription.
type SubInfo struct {
	Account string
	Subject string
	Queue   string
	Sid     string
	Msgs    int64
	Max     int64
	Conn    uint64
}

// Totals are the figures of the whole front end since its start.
type Totals struct {
	InMsgs, InBytes, OutMsgs, OutBytes int64
	Connections                        int
	TotalConnections                   uint64
	SlowConsumers, StaleConnections    int64
	StalledClients                     int64
	Subscriptions                      int
	Start                              time.Time
}

// AccountTotals are the figures of the connections of one account, open and closed. A connection counts
// for an account once it belongs to it.
type AccountTotals struct {
	Connections, TotalConnections      int
	InMsgs, InBytes, OutMsgs, OutBytes int64
	SlowConsumers                      int64
}

func (t *AccountTotals) add(c *ConnInfo) {
	t.TotalConnections++
	t.InMsgs += c.InMsgs
	t.InBytes += c.InBytes
	t.OutMsgs += c.OutMsgs
	t.OutBytes += c.OutBytes
}

// AccountTotals sums up what the connections of an account have moved since the start.
func (s *Server) AccountTotals(account string) AccountTotals {
	s.mu.Lock()
	var t AccountTotals
	if gone := s.mu.accounts[account]; gone != nil {
		t = *gone
	}
	conns := make([]*conn, 0, len(s.mu.conns))
	for _, c := range s.mu.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if a := c.client.Account(); a != nil && a.Name() == account {
			info := c.describe(false)
			t.add(&info)
			t.Connections++
		}
	}
	return t
}

// settle adds a connection that has gone to the totals of its account. s.mu is held.
func (s *Server) settle(c *ConnInfo) {
	if c.Account == "" {
		return // It never said who it was.
	}
	t := s.mu.accounts[c.Account]
	if t == nil {
		t = new(AccountTotals)
		s.mu.accounts[c.Account] = t
	}
	t.add(c)
	if c.Reason == SlowConsumer.String() {
		t.SlowConsumers++
	}
}

type tlsFigures struct{ version, cipher string }

// figures is what was moved, by one connection or by many.
type figures struct{ inMsgs, inBytes, outMsgs, outBytes, stalls atomic.Int64 }

type moved struct{ inMsgs, inBytes, outMsgs, outBytes, stalls int64 }

func (f *figures) add(m moved) {
	f.inMsgs.Add(m.inMsgs)
	f.inBytes.Add(m.inBytes)
	f.outMsgs.Add(m.outMsgs)
	f.outBytes.Add(m.outBytes)
	f.stalls.Add(m.stalls)
}

func (c *conn) figures() moved {
	m := moved{inMsgs: c.stats.msgs.Load(), inBytes: c.stats.bytes.Load(), stalls: c.stats.stalls.Load()}
	m.outMsgs, m.outBytes, _ = c.client.Output()
	return m
}

// describe is the connection as monitoring shows it.
func (c *conn) describe(withSubs bool) ConnInfo {
	m := c.figures()
	t := c.client.Traits()
	info := ConnInfo{
		ID: c.id, Kind: c.kind, Start: c.start, LastActivity: c.start.Add(time.Duration(c.stats.last.Load())),
		InMsgs: m.inMsgs, InBytes: m.inBytes, OutMsgs: m.outMsgs, OutBytes: m.outBytes, Stalls: m.stalls,
		Subscriptions: c.client.NumSubscriptions(),
		Name:          t.Name, Lang: t.Lang, Version: t.Version,
		User: c.client.User(),
	}
	_, _, info.Pending = c.client.Output()
	if c.remote.IsValid() {
		info.IP, info.Port = c.remote.Addr().String(), int(c.remote.Port())
	}
	if a := c.client.Account(); a != nil {
		info.Account = a.Name()
	}
	c.mu.Lock()
	info.RTT = c.mu.rtt
	info.Stop = c.mu.stop
	info.Reason = c.mu.reason.String()
	if c.mu.tls != nil {
		info.TLSVersion, info.TLSCipher = c.mu.tls.version, c.mu.tls.cipher
	}
	c.mu.Unlock()
	if withSubs {
		for _, s := range c.client.Subscriptions() {
			info.Subs = append(info.Subs, SubInfo{Account: info.Account, Subject: s.Subject(), Queue: s.Queue(),
				Sid: s.Sid(), Msgs: s.Sent(), Max: s.Max(), Conn: c.id})
		}
	}
	return info
}

func (c *conn) String() string { return fmt.Sprintf("%s - cid:%d", c.remote, c.id) }

// Connections describes the open connections, with their subscriptions if asked.
func (s *Server) Connections(withSubs bool) []ConnInfo {
	conns := s.connections()
	list := make([]ConnInfo, 0, len(conns))
	for _, c := range conns {
		list = append(list, c.describe(withSubs))
	}
	return list
}

// Connection describes one open connection.
func (s *Server) Connection(id uint64, withSubs bool) (ConnInfo, bool) {
	s.mu.Lock()
	c := s.mu.conns[id]
	s.mu.Unlock()
	if c == nil {
		return ConnInfo{}, false
	}
	return c.describe(withSubs), true
}

// Closed describes the connections closed last, oldest first.
func (s *Server) Closed() []ConnInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.closed.list()
}

// Kick closes a connection, without an error line so that its client may come back.
func (s *Server) Kick(id uint64) bool {
	s.mu.Lock()
	c := s.mu.conns[id]
	s.mu.Unlock()
	if c != nil {
		c.end(Kicked)
	}
	return c != nil
}

// Totals sums up what all connections, open and closed, have moved.
func (s *Server) Totals() Totals {
	t := Totals{
		InMsgs: s.gone.inMsgs.Load(), InBytes: s.gone.inBytes.Load(),
		OutMsgs: s.gone.outMsgs.Load(), OutBytes: s.gone.outBytes.Load(),
		StalledClients: s.gone.stalls.Load(),
		SlowConsumers:  s.slow.Load(), StaleConnections: s.stale.Load(),
		TotalConnections: s.total.Load(), Start: s.start,
	}
	for _, c := range s.connections() {
		m := c.figures()
		t.Connections++
		t.InMsgs += m.inMsgs
		t.InBytes += m.inBytes
		t.OutMsgs += m.outMsgs
		t.OutBytes += m.outBytes
		t.StalledClients += m.stalls
	}
	for _, a := range s.broker.Accounts() {
		t.Subscriptions += a.Subscriptions()
	}
	return t
}

// closedRing remembers the last closed connections.
type closedRing struct {
	limit int
	next  int
	infos []ConnInfo
}

func (r *closedRing) add(i ConnInfo) {
	switch {
	case r.limit <= 0:
	case len(r.infos) < r.limit:
		r.infos = append(r.infos, i)
	default:
		r.infos[r.next] = i
		r.next = (r.next + 1) % r.limit
	}
}

func (r *closedRing) list() []ConnInfo {
	return append(append([]ConnInfo(nil), r.infos[r.next:]...), r.infos[:r.next]...)
}
