package system

import (
	"fmt"
	"time"

	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/server"
)

// statszEvent is how a server does.
type statszEvent struct {
	Server server.ServerInfo `json:"server"`
	Stats  *monitor.Statsz   `json:"statsz"`
}

func (s *Service) stats() statszEvent {
	return statszEvent{s.opts.Describe(), s.opts.Monitor.Statsz()}
}

func (s *Service) statszSubject() string { return "$SYS.SERVER." + s.id + ".STATSZ" }

// tellStatsz tells how the server does, if anybody listens.
func (s *Service) tellStatsz() {
	if subject := s.statszSubject(); s.heard(subject) {
		s.publish(s.opts.Broker.System(), subject, nil, s.stats())
	}
}

// heard tells whether anybody listens, on whichever server.
func (s *Service) heard(subject string) bool { return s.opts.Broker.System().Interest(subject, "") }

// Kinds of events about a client.
const (
	connectEvent    = "io.nats.server.advisory.v1.client_connect"
	disconnectEvent = "io.nats.server.advisory.v1.client_disconnect"
)

// clientEvent is about a client that came or went.
type clientEvent struct {
	Type     string             `json:"type"`
	ID       string             `json:"id"`
	Time     time.Time          `json:"timestamp"`
	Server   server.ServerInfo  `json:"server"`
	Client   clientInfo         `json:"client"`
	Sent     *monitor.DataStats `json:"sent,omitempty"` // by the client
	Received *monitor.DataStats `json:"received,omitempty"`
	Reason   string             `json:"reason,omitempty"`
}

type clientInfo struct {
	Start   time.Time     `json:"start"`
	Host    string        `json:"host,omitempty"`
	ID      uint64        `json:"id"`
	Account string        `json:"acc,omitempty"`
	User    string        `json:"user,omitempty"`
	Name    string        `json:"name,omitempty"`
	Lang    string        `json:"lang,omitempty"`
	Version string        `json:"ver,omitempty"`
	RTT     time.Duration `json:"rtt,omitempty"`
	Stop    *time.Time    `json:"stop,omitempty"`
	Kind    string        `json:"kind"`
}

// Connection tells of a client that came or went, if anybody listens. See server.WatchConnections.
func (s *Service) Connection(account string, open bool, describe func() server.ConnInfo) {
	subject, kind := "$SYS.ACCOUNT."+account+".CONNECT", connectEvent
	if !open {
		subject, kind = "$SYS.ACCOUNT."+account+".DISCONNECT", disconnectEvent
	}
	if !s.heard(subject) {
		return
	}
	c := describe()
	e := clientEvent{
		Type: kind, ID: fmt.Sprintf("%s-%d", s.id, s.events.Add(1)), Time: time.Now().UTC(), Server: s.opts.Describe(),
		Client: clientInfo{
			Start: c.Start.UTC(), Host: c.IP, ID: c.ID, Account: account, User: c.User, Name: c.Name, Lang: c.Lang,
			Version: c.Version, RTT: c.RTT, Kind: "Client",
		},
	}
	if !open {
		stop := c.Stop.UTC()
		e.Client.Stop, e.Reason = &stop, c.Reason
		e.Sent, e.Received = &monitor.DataStats{Msgs: c.InMsgs, Bytes: c.InBytes}, &monitor.DataStats{Msgs: c.OutMsgs, Bytes: c.OutBytes}
	}
	s.publish(s.opts.Broker.System(), subject, nil, e)
}

// Leaving tells that this server takes no more clients, Stopping that it is about to end.
func (s *Service) Leaving()  { s.tellServer("LAMEDUCK") }
func (s *Service) Stopping() { s.tellServer("SHUTDOWN") }

func (s *Service) tellServer(what string) {
	if subject := "$SYS.SERVER." + s.id + "." + what; s.heard(subject) {
		s.publish(s.opts.Broker.System(), subject, nil, s.opts.Describe())
	}
}
