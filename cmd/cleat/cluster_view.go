package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/server"
)

// quiet is how long after an answer no other is expected, where it is not known how many servers there
// are.
const quiet = 300 * time.Millisecond

// clusterView is a cluster as one user sees it at one moment.
type clusterView struct {
	Name    string
	System  bool   // everything is seen; else what one account has
	Account string // that one
	Meta    *metaView
	Servers []*serverView // by name
	Groups  []*groupView  // by account and name
}

// metaView is the group that knows what exists where. Only the system account sees it.
type metaView struct {
	Leader string // "" if there is none
	Size   int
	Quorum int
	Others []*api.PeerInfo // as the leader sees them
}

// serverView is one server. Figures are known of those only that answer, and to the system account.
type serverView struct {
	Name        string
	Online      bool
	Silent      time.Duration // since it was last seen, if known
	Version     string
	Figures     bool
	Uptime      string
	Memory      int64
	CPU         float64
	Connections int
	Unhealthy   string // what its health check says, or ""

	Streams int    // that have a replica there
	Leaders int    // that it leads
	Behind  int    // replicas there that are not current
	Lag     uint64 // the largest of a replica there
}

// groupView is a bucket or stream and its replicas.
type groupView struct {
	Account  string
	Stream   string
	Leader   string // "" if there is none
	Replicas int    // as configured
	Members  []*api.PeerInfo
}

// answerOf is what one server said.
type answerOf[T any] struct {
	Server server.ServerInfo `json:"server"`
	Data   T                 `json:"data"`
	Error  *struct {
		Description string `json:"description"`
	} `json:"error"`
}

// askServers asks all servers and returns what those say that answer in time. expect is how many there are if it
// is known, else 0.
func askServers[T any](ctx context.Context, r *clientRun, subject, body string, expect int) ([]answerOf[T], error) {
	inbox := r.Conn.NewRespInbox()
	sub, err := r.Conn.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // The connection ends soon.
	if err := r.Conn.PublishRequest(subject, inbox, []byte(body)); err != nil {
		return nil, err
	}
	var all []answerOf[T]
	deadline := time.Now().Add(r.Timeout)
	for expect == 0 || len(all) < expect {
		wait := time.Until(deadline)
		if len(all) > 0 && expect == 0 {
			wait = min(wait, quiet)
		} else if len(all) > 0 {
			wait = min(wait, time.Second) // One that is lost just now does not cost the whole time-out.
		}
		next, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(next)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && len(all) > 0:
			return all, nil
		case err != nil:
			return nil, err
		}
		var a answerOf[T]
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return nil, fmt.Errorf("the answer to %s cannot be read: %w", subject, err)
		}
		if a.Error == nil {
			all = append(all, a)
		}
	}
	return all, nil
}

// look asks who is there and what they hold: everything, or without access to the system account what the
// user's account has.
func (r *clientRun) look(ctx context.Context) (*clusterView, error) {
	v := &clusterView{System: true}
	servers, err := askServers[monitor.Varz](ctx, r, "$SYS.REQ.SERVER.PING.VARZ", "", 0)
	if errors.Is(err, nats.ErrNoResponders) {
		v.System = false
		err = v.lookAtAccount(ctx, r)
	} else if err == nil {
		err = v.lookAtAll(ctx, r, servers)
	}
	if err != nil {
		return nil, explain(err, "", "")
	}
	v.count()
	return v, nil
}

// lookAtAll fills the view of the system account.
func (v *clusterView) lookAtAll(ctx context.Context, r *clientRun, servers []answerOf[monitor.Varz]) error {
	for _, s := range servers {
		d := &s.Data
		version := cmp.Or(d.Metadata[monitor.MetadataVersion], d.Version)
		v.Servers = append(v.Servers, &serverView{
			Name: s.Server.Name, Online: true, Version: version, Figures: true,
			Uptime: d.Uptime, Memory: d.Mem, CPU: d.CPU, Connections: d.Connections,
		})
		v.Name = s.Server.Cluster
	}
	healthy, err := askServers[monitor.Healthz](ctx, r, "$SYS.REQ.SERVER.PING.HEALTHZ", "", len(servers))
	if err != nil {
		return err
	}
	for _, h := range healthy {
		if s := v.server(h.Server.Name); s != nil && h.Data.Status != "ok" {
			s.Unhealthy = cmp.Or(h.Data.Error, h.Data.Status)
		}
	}
	held, err := askServers[monitor.Jsz](ctx, r, "$SYS.REQ.SERVER.PING.JSZ", `{"streams":true,"config":true,"lost":true}`, len(servers))
	if err != nil {
		return err
	}
	v.addMeta(held)
	v.addStreams(held)
	return nil
}

// addMeta takes the meta group as its leader sees it, or as anybody does if nobody leads it.
func (v *clusterView) addMeta(held []answerOf[monitor.Jsz]) {
	for _, h := range held {
		m := h.Data.Meta
		if m == nil || v.Meta != nil && m.Leader != h.Server.Name {
			continue
		}
		v.Meta = &metaView{Leader: m.Leader, Size: m.Size, Quorum: m.Size/2 + 1, Others: allButLeader(m.Replicas, m.Leader, h.Server.Name)}
		if m.Leader == h.Server.Name {
			break
		}
	}
	if v.Meta == nil {
		return
	}
	if s := v.server(v.Meta.Leader); s == nil {
		v.Meta.Leader = "" // Nobody has noticed yet that it is gone.
	}
	v.addLost(v.Meta.Others)
}

// allButLeader lists the other members of a group. One that does not lead tells of the leader, and not of itself.
func allButLeader(peers []*api.PeerInfo, leader, teller string) []*api.PeerInfo {
	if leader == "" || leader == teller {
		return peers
	}
	named := func(name string) func(*api.PeerInfo) bool {
		return func(p *api.PeerInfo) bool { return p.Name == name }
	}
	peers = slices.DeleteFunc(slices.Clone(peers), named(leader))
	if !slices.ContainsFunc(peers, named(teller)) {
		peers = append(peers, &api.PeerInfo{Name: teller})
	}
	return peers
}

// addLost adds servers that others tell of and that do not answer.
func (v *clusterView) addLost(peers []*api.PeerInfo) {
	for _, p := range peers {
		if p.Name != "" && v.server(p.Name) == nil {
			v.Servers = append(v.Servers, &serverView{Name: p.Name, Silent: p.Active})
		}
	}
}

// addStreams takes each stream as its leader sees it, or as anybody does if nobody leads it.
func (v *clusterView) addStreams(held []answerOf[monitor.Jsz]) {
	type key struct{ account, stream string }
	found := make(map[key]*groupView)
	for _, h := range held {
		for _, a := range h.Data.Accounts {
			for _, s := range a.Streams {
				k, c := key{a.Name, s.Name}, s.Cluster
				if c == nil || found[k] != nil && c.Leader != h.Server.Name {
					continue
				}
				g := &groupView{Account: a.Name, Stream: s.Name, Leader: c.Leader, Replicas: 1, Members: allButLeader(c.Replicas, c.Leader, h.Server.Name)}
				if s.Config != nil {
					g.Replicas = max(1, s.Config.Replicas)
				}
				found[k] = g
			}
		}
	}
	for _, h := range held {
		for _, s := range h.Data.Lost {
			if k := (key{s.Account, s.Name}); found[k] == nil {
				g := &groupView{Account: s.Account, Stream: s.Name, Replicas: s.Replicas}
				for _, name := range s.Servers {
					g.Members = append(g.Members, &api.PeerInfo{Name: name, Offline: true})
				}
				found[k] = g
			}
		}
	}
	for _, g := range found { // order: sorted by count
		if v.server(g.Leader) == nil {
			g.Leader = ""
		}
		v.Groups = append(v.Groups, g)
	}
}

// lookAtAccount fills the view of an account: the servers say who they are, the streams who has them.
func (v *clusterView) lookAtAccount(ctx context.Context, r *clientRun) error {
	servers, err := askServers[monitor.Connz](ctx, r, "$SYS.REQ.SERVER.PING.CONNZ", `{"limit":1,"auth":true}`, 0)
	if err != nil {
		return err
	}
	for _, s := range servers {
		version := cmp.Or(s.Server.Metadata[monitor.MetadataVersion], s.Server.Version)
		v.Servers = append(v.Servers, &serverView{Name: s.Server.Name, Online: true, Version: version})
		v.Name = s.Server.Cluster
	}
	var who answerOf[struct {
		Account string `json:"account"`
	}]
	if m, err := r.Conn.RequestWithContext(ctx, "$SYS.REQ.USER.INFO", nil); err == nil && json.Unmarshal(m.Data, &who) == nil {
		v.Account = who.Data.Account
	}
	list := r.JS.ListStreams(ctx)
	for s := range list.Info() {
		g := &groupView{Account: v.Account, Stream: s.Config.Name, Replicas: max(1, s.Config.Replicas)}
		if c := s.Cluster; c != nil {
			g.Leader = c.Leader
			for _, p := range c.Replicas {
				g.Members = append(g.Members, &api.PeerInfo{Name: p.Name, Current: p.Current, Offline: p.Offline, Active: p.Active, Lag: p.Lag})
			}
			v.addLost(g.Members)
		}
		if v.Name == "" && len(v.Servers) == 1 {
			g.Leader = v.Servers[0].Name // A server alone does not say so.
		}
		v.Groups = append(v.Groups, g)
	}
	return list.Err()
}

// server returns a server by name, nil if there is none.
func (v *clusterView) server(name string) *serverView {
	i := slices.IndexFunc(v.Servers, func(s *serverView) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return v.Servers[i]
}

// count sorts, and adds up what each server has.
func (v *clusterView) count() {
	slices.SortFunc(v.Servers, func(a, b *serverView) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(v.Groups, func(a, b *groupView) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Stream, b.Stream))
	})
	for _, g := range v.Groups {
		if s := v.server(g.Leader); s != nil {
			s.Leaders++
			s.Streams++
		}
		for _, m := range g.Members {
			s := v.server(m.Name)
			if s == nil {
				continue
			}
			s.Streams++
			s.Lag = max(s.Lag, m.Lag)
			if g.Leader != "" && !m.Current {
				s.Behind++
			}
		}
	}
}

// online is how many members of a group can be reached, and how many it takes to decide.
func (v *clusterView) online(g *groupView) (online, quorum int) {
	members := map[string]bool{}
	if g.Leader != "" {
		members[g.Leader] = true
	}
	for _, m := range g.Members {
		members[m.Name] = members[m.Name] || !m.Offline
	}
	for up := range maps.Values(members) { // order: counted
		if up {
			online++
		}
	}
	return online, max(len(members), g.Replicas)/2 + 1
}
