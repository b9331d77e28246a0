package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
)

// How a cluster gets back to as many replicas as were asked for, and its leaders to where they were.
const (
	// movesMax bounds how many streams are brought to other servers at a time.
	movesMax = 8
	// A lead goes back when the server it belongs to has been back, and this one has led, for so long; one
	// at a time.
	balanceAfter = time.Minute
	balanceEvery = time.Second
)

// healer is what the plan loop remembers of servers that are out of reach. Who begins to lead the meta
// group counts anew: rather too late than because of a server that was seen by another one meanwhile.
type healer struct {
	absent   map[uint64]time.Time // since when
	balanced time.Time            // when the last lead was given back
}

// heal moves replicas off servers that were removed, or have been out of reach for too long, where this
// server leads the meta group. A stream whose other servers all have a replica already keeps its place
// for the next server that joins.
func (c *Cluster) heal(now time.Time) {
	if !c.metaGroup.leads() {
		c.healer.absent = nil
		return
	}
	m := c.Meta()
	up := func(server uint64) bool { return server == c.id.server || c.reachable(server) }
	gone := c.healer.gone(m.Servers(), up, c.opts.ReplaceAfter, now)
	moving := 0
	var due []*meta.Stream
	for _, s := range m.Streams("") {
		switch {
		case s.GivenUp:
		case s.Plan != nil:
			moving++
		case replicaToMove(m, s, gone) != 0 || missing(s) > 0:
			due = append(due, s)
		}
	}
	for _, s := range due {
		if moving >= movesMax {
			return
		}
		if c.healStream(s, replicaToMove(m, s, gone)) {
			moving++
		}
	}
}

// healStream has one replica moved, or those made that are missing, all at once: two replicas tolerate no loss
// either, and stop when one of them does. It tells whether there is room for it. The next round looks again.
func (c *Cluster) healStream(s *meta.Stream, move uint64) bool {
	if move != 0 {
		to := c.replacement(s, 0)
		if to != 0 {
			c.moveReplica(s, move, to, c.isAbsent(s, move), func(error) {})
		}
		return to != 0
	}
	free := c.free(s, 0)
	if len(free) < missing(s) {
		return false
	}
	c.ProposeMeta(meta.Encode(meta.KindChangeReplicas, &meta.ChangeReplicas{
		Account: s.Account, Name: s.Config.Name, Group: s.Group, Add: free[:missing(s)],
	}), metaOutcome(func(error) {}))
	return true
}

// missing is how many replicas a stream has too few, as it has when its cluster was recovered from one
// server.
func missing(s *meta.Stream) int { return max(0, s.Config.Replicas-len(s.Replicas)) }

// isAbsent tells whether a replica's server belongs to the cluster still.
func (c *Cluster) isAbsent(s *meta.Stream, member uint64) bool {
	i := slices.IndexFunc(s.Replicas, func(r meta.Replica) bool { return r.ID == member })
	server := c.Meta().Server(s.Replicas[i].Server)
	return server != nil && !server.Removed
}

// gone tells which servers have been out of reach for so long that their replicas are to be made anew. With
// fewer than two of three servers there, it is more likely that this one is cut off.
func (h *healer) gone(all []*meta.Server, up func(server uint64) bool, after time.Duration, now time.Time) map[uint64]bool {
	if after <= 0 {
		return nil
	}
	if h.absent == nil {
		h.absent = make(map[uint64]time.Time)
	}
	gone := map[uint64]bool{}
	absent := 0
	for _, s := range all {
		if up(s.ID) {
			delete(h.absent, s.ID)
			continue
		}
		absent++
		since, known := h.absent[s.ID]
		if !known {
			h.absent[s.ID] = now
			continue
		}
		if now.Sub(since) >= after {
			gone[s.ID] = true
		}
	}
	if 3*(len(all)-absent) < 2*len(all) {
		return nil
	}
	return gone
}

// replicaToMove is the raft id of a replica on a server that was removed or is gone, or 0. The only
// replica of a stream stays where it is: its server has all that there is.
func replicaToMove(m *meta.Machine, s *meta.Stream, gone map[uint64]bool) uint64 {
	for _, r := range s.Replicas {
		server := m.Server(r.Server)
		if server != nil && server.Removed || gone[r.Server] && len(s.Replicas) > 1 {
			return r.ID
		}
	}
	return 0
}

// balance gives one lead back that came to this server because another one was away. Each stream has
// a server that is to lead it, the first of its replicas, and those are spread evenly when streams are
// created. What an operator moved stays: the server that was to lead was there all the time.
func (c *Cluster) balance(now time.Time) {
	if now.Sub(c.healer.balanced) < balanceEvery {
		return
	}
	for _, s := range c.local() {
		r := s.rep.Load()
		if r == nil || s.gone.Load() || !r.Status().Leading {
			continue
		}
		if to := s.rightful(r, now, cmp.Or(c.opts.balanceAfter, balanceAfter)); to != 0 {
			c.healer.balanced = now
			c.opts.Logger.Debug(fmt.Sprintf("stream %s > %s: giving the lead back to server %q", s.key.Account, s.key.Name, c.PeerName(s.server(to))))
			s.shard.Call(func() { r.Transfer(to) })
			return
		}
	}
}

// rightful is the member that is to lead in the place of this one, 0 if there is none, or not yet.
func (s *Stream) rightful(r *replica.Replica, now time.Time, after time.Duration) uint64 {
	a := s.Assignment()
	if a.Plan != nil || len(a.Replicas) < 2 || a.Replicas[0].ID == r.ID() {
		return 0
	}
	first, led := a.Replicas[0], s.since.get()
	s.c.peers.mu.Lock()
	back := s.c.peers.since[first.Server]
	s.c.peers.mu.Unlock()
	if !s.c.reachable(first.Server) || !back.After(led) || now.Sub(back) < after || now.Sub(led) < after {
		return 0
	}
	st := r.Status()
	i := slices.IndexFunc(st.Members, func(m replica.Member) bool { return m.ID == first.ID })
	if i < 0 || st.Members[i].Learner || !ready(&st, first.ID) || s.blinds.has(first.ID) {
		return 0
	}
	return first.ID
}
