package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/server"
)

// clientFigures shows the client front end to the monitor.
type clientFigures struct {
	front *server.Server
	cfg   func() *config.Config
}

func (f clientFigures) Addresses() monitor.Addresses {
	c := f.cfg()
	a := monitor.Addresses{Host: c.Host, Port: listenPort(f.front.Addr()), TLSRequired: c.TLS != nil && !c.AllowNonTLS}
	if c.Cluster.Enabled() && !c.Cluster.NoAdvertise {
		for _, u := range f.front.OwnURLs() {
			if !strings.Contains(u, "://") {
				a.ConnectURLs = append(a.ConnectURLs, u)
			}
		}
	}
	return a
}

func (f clientFigures) Traffic() monitor.Traffic {
	t := f.front.Totals()
	return monitor.Traffic{
		Connections: t.Connections, TotalConnections: t.TotalConnections,
		InMsgs: t.InMsgs, InBytes: t.InBytes, OutMsgs: t.OutMsgs, OutBytes: t.OutBytes,
		SlowConsumers: t.SlowConsumers, StaleConnections: t.StaleConnections, Stalls: t.StalledClients,
		Subscriptions: t.Subscriptions,
	}
}

func (f clientFigures) Open() []monitor.Conn { return f.describe(f.front.Connections(false)) }

func (f clientFigures) Closed() []monitor.Conn { return f.describe(f.front.Closed()) }

func (f clientFigures) describe(list []server.ConnInfo) []monitor.Conn {
	out := make([]monitor.Conn, 0, len(list))
	for _, c := range list {
		out = append(out, monitor.Conn{
			ID: c.ID, Type: connType(c.Kind), IP: c.IP, Port: c.Port, Start: c.Start, LastActivity: c.LastActivity,
			Stop: c.Stop, Reason: c.Reason, RTT: c.RTT, Pending: c.Pending,
			InMsgs: c.InMsgs, InBytes: c.InBytes, OutMsgs: c.OutMsgs, OutBytes: c.OutBytes, Stalls: c.Stalls,
			Name: c.Name, Lang: c.Lang, Version: c.Version, User: c.User, Account: c.Account,
			TLSVersion: c.TLSVersion, TLSCipher: c.TLSCipher, NumSubs: c.Subscriptions,
			Subs: func() []monitor.Sub { return f.subs(c.ID) },
		})
	}
	return out
}

// connType is a connection type as monitoring names it.
func connType(kind string) string {
	if kind == auth.WebSocket {
		return "websocket"
	}
	return "nats"
}

// subs lists the subscriptions of an open connection.
func (f clientFigures) subs(id uint64) []monitor.Sub {
	c, ok := f.front.Connection(id, true)
	if !ok {
		return nil
	}
	out := make([]monitor.Sub, 0, len(c.Subs))
	for _, s := range c.Subs {
		out = append(out, monitor.Sub{
			Account: s.Account, Subject: s.Subject, Queue: s.Queue, SID: s.Sid, Msgs: s.Msgs, Max: s.Max, Client: s.Conn,
		})
	}
	return out
}

// accountFigures shows the broker's accounts to the monitor.
type accountFigures struct {
	broker *broker.Broker
	front  *server.Server
	cfg    func() *config.Config
}

func (f accountFigures) Names() []string {
	c, names := f.cfg(), []string(nil)
	for _, a := range f.broker.Accounts() {
		if a.Name() == config.DefaultSystemAccount && c.SystemAccount != a.Name() && c.Account(a.Name()) == nil {
			continue // The broker has it in any case; here another one is the system account.
		}
		names = append(names, a.Name())
	}
	return names
}

// Account implements monitor.Accounts.
func (f accountFigures) Account(name string) (monitor.Account, bool) {
	a := f.broker.Lookup(name)
	if a == nil {
		return monitor.Account{}, false
	}
	out := monitor.Account{Name: name, Subscriptions: a.Subscriptions()}
	if c := f.cfg(); c.JetStream.Enabled {
		configured := c.Account(name)
		out.JetStream = configured != nil && configured.JetStream != nil
	}
	t := f.front.AccountTotals(name)
	out.Connections, out.TotalConnections, out.SlowConsumers = t.Connections, t.TotalConnections, t.SlowConsumers
	out.SentMsgs, out.SentBytes = t.OutMsgs, t.OutBytes
	out.ReceivedMsgs, out.ReceivedBytes = t.InMsgs, t.InBytes
	return out, true
}

// routeFigures shows the connections to other servers. They are kept by both sides, so each counts as
// solicited here; a server that is silent is not among them, so each was active just now. What went
// over them is not counted.
func routeFigures(c *cluster.Cluster) []monitor.Route {
	var out []monitor.Route
	for _, l := range c.PeerLinks() {
		r := monitor.Route{
			ID: l.Server, RemoteID: fmt.Sprintf("%016x", l.Server), RemoteName: l.Name,
			Solicited: true, Configured: l.Configured, Start: l.Since, LastActivity: time.Now(),
		}
		if host, port, err := net.SplitHostPort(l.Route); err == nil {
			r.IP = host
			r.Port, _ = strconv.Atoi(port)
		}
		out = append(out, r)
	}
	return out
}
