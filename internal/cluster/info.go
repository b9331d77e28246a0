package cluster

import (
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
)

// GroupInfo is what this server knows of a group. How far others are only the leader knows. Another member knows whether
// it hears of the leader, and does not show itself.
type GroupInfo struct {
	Group  uint64
	Leader uint64        // server; 0 if unknown
	Since  time.Time     // when this server learned of that leader; zero if unknown
	Others []ReplicaInfo // members but the one that tells, or the leader where none of them is here
}

// ReplicaInfo is one member of a group.
type ReplicaInfo struct {
	Server  uint64
	Name    string
	Current bool          // it votes, was heard of lately, and has what the leader has, or it is the leader
	Offline bool          // it cannot be reached
	Silent  time.Duration // since it was last heard of, at most; 0 if that is not known
	Lag     uint64        // log entries that it is behind
}

// currentLag is how many log entries a member that counts as current may be behind: what is on its
// way at any moment.
const currentLag = 64

// Info describes the stream's group.
func (s *Stream) Info() GroupInfo { return s.info() }

// MetaInfo describes the meta group.
func (c *Cluster) MetaInfo() GroupInfo {
	if c.Meta() == nil {
		return GroupInfo{}
	}
	return c.metaGroup.info()
}

// Name is the name of the cluster, or "".
func (c *Cluster) Name() string {
	if c.opts.Route == nil {
		return ""
	}
	return c.opts.Route.Cluster
}

func (g *group) info() GroupInfo {
	i := GroupInfo{Group: uint64(g.id), Leader: g.leader()}
	if at := g.since.get(); !at.IsZero() && i.Leader != 0 {
		i.Since = at
	}
	var st replica.Status
	hides := i.Leader // Without a leader nobody, as for nats-server.
	if r := g.rep.Load(); r != nil {
		st = r.Status()
		if i.Leader != 0 {
			hides = g.c.id.server
		}
	}
	for _, m := range g.seats() {
		if m.Server != hides {
			i.Others = append(i.Others, g.member(m, i.Leader, &st))
		}
	}
	return i
}

// seats are the members that are to be shown: of the meta group, no server that was removed.
func (g *group) seats() []meta.Replica {
	if g.stream != nil {
		return g.members()
	}
	var all []meta.Replica
	for _, s := range g.c.Meta().Servers() {
		all = append(all, meta.Replica{ID: s.Member, Server: s.ID})
	}
	return all
}

// member describes a member, with what st knows of it.
func (g *group) member(m meta.Replica, leader uint64, st *replica.Status) ReplicaInfo {
	r := ReplicaInfo{Server: m.Server, Name: g.c.PeerName(m.Server)}
	r.Offline = m.Server != g.c.id.server && !g.c.reachable(m.Server)
	if m.Server == leader { // Which is heard of: of one that is not, nobody says that it leads.
		r.Current = !r.Offline
		return r
	}
	at := func(id uint64) int {
		return slices.IndexFunc(st.Members, func(m replica.Member) bool { return m.ID == id })
	}
	self, other := at(st.Leader), at(m.ID)
	if !st.Leading || self < 0 || other < 0 {
		return r
	}
	p := &st.Members[other]
	if head := st.Members[self].Match; head > p.Match {
		r.Lag = head - p.Match
	}
	r.Silent = time.Duration(p.Silent) * replica.TickInterval
	if p.Active {
		r.Silent += replica.TickInterval // It was in this tick, or some time in the one counted last; not never.
	}
	r.Current = p.Active && !p.Learner && !p.Snap && !r.Offline && r.Lag <= currentLag
	return r
}

// Gone tells whether the stream was deleted. There may be another one of its name by now.
func (s *Stream) Gone() bool { return s.gone.Load() }

// Servers lists the servers that have a replica of the stream, or are to get one.
func (s *Stream) Servers() []uint64 {
	var all []uint64
	for _, m := range s.members() {
		all = append(all, m.Server)
	}
	return all
}

// Nearest is a server to send a request to that only one with a replica can answer: the leader if
// it is known, else one after the other that has a replica and can be reached; 0 if there is none but this.
func (s *Stream) Nearest() uint64 {
	if to := s.leader(); to != 0 && to != s.c.id.server && s.c.responsive(to) {
		return to
	}
	to := s.memberAfter(s.asked.Load())
	s.asked.Store(to)
	return to
}

// NearestBut is Nearest for a request that one server could not answer: another than that.
func (s *Stream) NearestBut(not uint64) uint64 {
	to := s.Nearest()
	if not == 0 || to != not {
		return to
	}
	if to = s.memberAfter(not); to == not {
		return 0
	}
	return to
}

// NotLeading notes that a server does not lead.
func (s *Stream) NotLeading(server uint64) { s.hint.CompareAndSwap(server, 0) }

// LeaderHere is the server that leads, as far as a replica here knows, or 0. Another server is not to be told more.
func (s *Stream) LeaderHere() uint64 { return s.leaderHere() }

// LeaderOutOfReach tells that somebody is said to lead whom this server can not talk to: others have to pass on what
// only the leader can do.
func (s *Stream) LeaderOutOfReach() bool {
	lead := s.leader()
	return lead != 0 && lead != s.c.id.server && !s.c.responsive(lead)
}

// LeaderHint notes who leads according to another server.
func (s *Stream) LeaderHint(server uint64) {
	if server != 0 && server != s.c.id.server {
		s.hint.Store(server)
	}
}

// Reachable tells whether a server other than this one can be reached.
func (c *Cluster) Reachable(server uint64) bool { return c.reachable(server) }
