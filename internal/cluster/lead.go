package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
)

// handOverFor is how long a change of leader may take before it is called failed.
const handOverFor = 2 * time.Second

// StepDown hands the stream's lead to another member: the preferred server, or with "" the one that is
// most up to date. It must be called where the leader is. done is called when another leads; a stream
// of one replica stays where it is.
func (s *Stream) StepDown(preferred string, done func(error)) { s.stepDown(preferred, done) }

// StepDownMeta does the same for the meta group.
func (c *Cluster) StepDownMeta(preferred string, done func(error)) {
	if c.Meta() == nil {
		done(ErrUnavailable)
		return
	}
	c.metaGroup.stepDown(preferred, done)
}

func (g *group) stepDown(preferred string, done func(error)) {
	r := g.rep.Load()
	if r == nil || !r.Status().Leading || g.c.ctx.Err() != nil {
		done(ErrUnavailable)
		return
	}
	st := r.Status()
	if len(st.Conf.GetVoters()) == 1 && preferred == "" {
		done(nil)
		return
	}
	g.c.wg.Go(func() {
		to, err := g.awaitSuccessor(r, preferred)
		if err != nil {
			done(err)
			return
		}
		g.shard.Call(func() { r.Transfer(to) })
		done(g.awaitLeader(r))
	})
}

// A leader that was elected a moment ago has not heard of the others yet; it waits for them so long.
const successorFor = 500 * time.Millisecond

var errNoSuccessor = api.ErrNoPeers.With("no replacement peer connected")

func (g *group) awaitSuccessor(r *replica.Replica, preferred string) (uint64, error) {
	for end := time.Now().Add(successorFor); ; {
		st := r.Status()
		to, err := g.successor(&st, r.ID(), preferred)
		switch {
		case !st.Leading:
			return 0, ErrUnavailable
		case err != errNoSuccessor || time.Now().After(end):
			return to, err
		}
		select {
		case <-g.c.ctx.Done():
			return 0, ErrUnavailable
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// successor finds the member that is to lead next.
func (g *group) successor(st *replica.Status, self uint64, preferred string) (uint64, error) {
	var best uint64
	var match uint64
	known := false
	for _, m := range g.members() {
		name := g.c.PeerName(m.Server)
		if preferred != "" && name != preferred {
			continue
		}
		known = true
		if m.ID == self {
			if preferred != "" {
				return 0, api.ErrNoPeers.With(fmt.Sprintf("preferred server %q is already leader", preferred))
			}
			continue
		}
		i := slices.IndexFunc(st.Members, func(p replica.Member) bool { return p.ID == m.ID })
		if i < 0 || !slices.Contains(st.Conf.GetVoters(), m.ID) || !st.Members[i].Active || st.Members[i].Snap || g.blinds.has(m.ID) {
			continue
		}
		if best == 0 || st.Members[i].Match > match {
			best, match = m.ID, st.Members[i].Match
		}
	}
	switch {
	case !known && preferred != "":
		return 0, api.ErrNoPeers.With(fmt.Sprintf("preferred server %q not known", preferred))
	case best == 0:
		return 0, errNoSuccessor
	}
	return best, nil
}

// awaitLeader waits until another member leads.
func (g *group) awaitLeader(r *replica.Replica) error {
	for end := time.Now().Add(handOverFor); time.Now().Before(end); {
		if st := r.Status(); st.Leader != 0 && st.Leader != r.ID() {
			return nil
		}
		select {
		case <-g.c.ctx.Done():
			return ErrUnknown
		case <-time.After(5 * time.Millisecond):
		}
	}
	return ErrUnavailable
}

// RemovePeer has a replica of the stream moved from a server to another one. done is called when that
// is decided; it then happens by itself.
func (s *Stream) RemovePeer(server string, done func(error)) {
	a := s.Assignment()
	i := slices.IndexFunc(a.Replicas, func(r meta.Replica) bool { return s.c.PeerName(r.Server) == server })
	if i < 0 {
		done(api.ErrPeerNotMember)
		return
	}
	to := s.c.replacement(a, a.Replicas[i].Server)
	if to == 0 {
		done(api.ErrPeerRemap)
		return
	}
	s.c.moveReplica(a, a.Replicas[i].ID, to, false, done)
}

// replacement picks a server for a replica that has to leave another one, 0 if none will do.
func (c *Cluster) replacement(a *meta.Stream, from uint64) uint64 {
	if fit := c.free(a, from); len(fit) > 0 {
		return fit[0]
	}
	return 0
}

// free lists the servers that could take one more replica of a stream, best first; not the one with id from.
func (c *Cluster) free(a *meta.Stream, from uint64) []uint64 {
	not := []uint64{from}
	for _, m := range a.Members() {
		not = append(not, m.Server)
	}
	return c.candidates(&a.Config, not)
}

// moveReplica has a replica made on another server in the place of one; absent tells that this is since the
// server of that one is out of reach.
func (c *Cluster) moveReplica(a *meta.Stream, member, to uint64, absent bool, done func(error)) {
	c.ProposeMeta(meta.Encode(meta.KindChangeReplicas, &meta.ChangeReplicas{
		Account: a.Account, Name: a.Config.Name, Group: a.Group, Add: []uint64{to}, Remove: []uint64{member}, Absent: absent,
	}), metaOutcome(done))
}

// metaOutcome reports whether a command of the meta group was executed.
func metaOutcome(done func(error)) Waiter {
	return WaiterFunc(func(result any, err error) {
		if r, ok := result.(*meta.Result); err == nil && ok && r.Err != nil {
			err = r.Err
		}
		done(err)
	})
}

// RemoveServer declares a server gone for good. Its replicas move to others as far as there are any
// that have none yet.
func (c *Cluster) RemoveServer(server uint64, done func(error)) {
	if c.Meta() == nil {
		done(ErrUnavailable)
		return
	}
	c.ProposeMeta(meta.Encode(meta.KindRemoveServer, &meta.RemoveServer{ID: server}), metaOutcome(done))
}
