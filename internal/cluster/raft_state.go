package cluster

import (
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
)

// RaftState is what a server knows of a group that it has a member of.
type RaftState struct {
	Stream  *Stream // nil: the meta group
	Status  replica.Status
	Learner bool // the member here does not vote
	Lacking bool // the member here has no state yet

	Leader, Vote uint64    // servers; 0 if there is none, or it is not known here
	Since        time.Time // since when this server has known of that leader
	Proposals    int       // batches of commands that wait

	Log      wal.State
	LastTerm uint64 // of the last entry of the log

	Others []RaftMember
}

// RaftMember is another member of a group. How far it is only the leader knows.
type RaftMember struct {
	Server  uint64
	Member  bool          // the group counts it in already
	Match   uint64        // its log is known to be equal up to here
	Silent  time.Duration // since it was last heard of, at most
	Watched bool          // Match and Silent are known
}

// RaftStates describes the groups of an account that have a member here, in no order; with account "" the meta
// group.
func (c *Cluster) RaftStates(account string) (all []RaftState) {
	for _, g := range c.groups() {
		r := g.rep.Load()
		if r == nil || account != g.account() {
			continue
		}
		all = append(all, g.raftState(r))
	}
	return all
}

// account is whose stream the group carries, "" if none.
func (g *group) account() string {
	if g.stream == nil {
		return ""
	}
	return g.stream.key.Account
}

func (g *group) raftState(r *replica.Replica) RaftState {
	s := RaftState{Stream: g.stream, Status: r.Status(), Leader: g.leader(), Proposals: r.Queued()}
	conf := s.Status.Conf
	s.Learner = slices.Contains(conf.GetLearners(), r.ID())
	s.Lacking = s.Status.Blind || s.Status.Applied < replica.GenesisIndex
	s.Log, _ = g.c.log.State(g.id)
	s.Vote = g.server(s.Log.Hard.Vote)
	if t, err := g.c.log.Term(g.id, s.Log.Last); err == nil { // Else it was cut off meanwhile.
		s.LastTerm = t
	}
	if at := g.since.get(); !at.IsZero() && s.Leader != 0 {
		s.Since = at
	}
	for _, m := range g.seats() {
		if m.ID == r.ID() {
			continue
		}
		o := RaftMember{Server: m.Server, Member: slices.Contains(conf.GetVoters(), m.ID) || slices.Contains(conf.GetLearners(), m.ID)}
		i := slices.IndexFunc(s.Status.Members, func(k replica.Member) bool { return k.ID == m.ID })
		if s.Status.Leading && i >= 0 {
			k := &s.Status.Members[i]
			o.Watched, o.Match, o.Silent = true, k.Match, time.Duration(k.Silent+1)*replica.TickInterval
		}
		s.Others = append(s.Others, o)
	}
	return s
}
