package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
)

// group is one Raft group as seen from this server: its local replica, if there is one, and the
// way to its leader. The meta group and every stream have one.
type group struct {
	c     *Cluster
	id    wal.GroupID
	held  held
	away  away
	gates gates

	shard *replica.Shard
	rep   atomic.Pointer[replica.Replica]

	// hint is the server that was last said to lead, for groups without a replica here.
	hint atomic.Uint64

	// unknowing is the server that was last asked to lead a command and did not know who does. Until then all
	// commands go to one server, so that they stay in order.
	unknowing atomic.Uint64

	since instant // when the local replica last heard of another leader

	blinds    blinds
	comparing comparing

	awaits instant // when the local replica was opened, or was last offered a state

	// members lists who may speak for the group; stream is nil for the meta group.
	stream *Stream
}

// blinds are the members that said a moment ago that they have no state: they cannot lead.
type blinds struct {
	sync.Mutex
	at map[uint64]time.Time
}

func (b *blinds) note(member uint64) {
	b.Lock()
	defer b.Unlock()
	if b.at == nil {
		b.at = make(map[uint64]time.Time)
	}
	b.at[member] = time.Now()
}

func (b *blinds) has(member uint64) bool {
	b.Lock()
	defer b.Unlock()
	return time.Since(b.at[member]) < blindFor
}

func newGroup(c *Cluster, id wal.GroupID, shard *replica.Shard, s *Stream) *group {
	g := &group{c: c, id: id, shard: shard, stream: s}
	g.held.offer, g.held.total = g.offer, &c.heldCommands
	return g
}

// leads tells whether the local replica leads.
func (g *group) leads() bool {
	r := g.rep.Load()
	return r != nil && r.Status().Leading
}

// leader is the server that leads, as far as is known here, or 0.
func (g *group) leader() uint64 {
	if lead := g.leaderHere(); lead != 0 {
		return lead
	}
	if r := g.rep.Load(); r != nil && len(r.Status().Conf.GetVoters()) > 0 {
		return 0 // A member knows better than hearsay.
	}
	return g.hint.Load()
}

// leaderHere is the server that leads, as far as the local replica knows, or 0.
func (g *group) leaderHere() uint64 {
	if r := g.rep.Load(); r != nil {
		if st := r.Status(); st.Leader != 0 && !st.CutOff {
			return g.server(st.Leader)
		}
	}
	return 0
}

// server finds where a member lives.
func (g *group) server(member uint64) uint64 {
	for _, m := range g.members() {
		if m.ID == member {
			return m.Server
		}
	}
	return 0
}

// name says which group this is, for people.
func (g *group) name() string {
	if g.stream == nil {
		return "the meta group"
	}
	return fmt.Sprintf("stream %s > %s", g.stream.key.Account, g.stream.key.Name)
}

// members lists the replicas that may speak for the group now.
func (g *group) members() []meta.Replica {
	if g.stream != nil {
		return g.stream.Assignment().Members()
	}
	return g.c.metaMembers()
}

// offer proposes to the leader, here or elsewhere.
func (g *group) offer(h heldCommand) error {
	if r := g.rep.Load(); r != nil {
		switch {
		case g.away.stale(h.order):
			return ErrUnavailable
		case g.away.home():
			if err := g.propose(r, h.command, h.waiter); !errors.Is(err, replica.ErrNotLeader) {
				return err
			}
		case g.leads():
			return errNoLeader // What was sent elsewhere comes first.
		}
	}
	to, unreached := g.leader(), uint64(0)
	if g.rep.Load() == nil && (to == 0 || !g.c.responsive(to)) {
		// What this server was told may be of a leader that is gone, or is out of its reach alone.
		if other := g.memberAfter(g.unknowing.Load()); other != 0 && other != to {
			to, unreached = other, to
		}
	}
	switch {
	case to == 0 || to == g.c.id.server:
		return errNoLeader
	case g.away.stale(h.order):
		return ErrUnavailable
	}
	return g.c.forward.propose(to, unreached, g, h)
}

// propose offers to the local replica, unless there is no room for what the command stores. One that gives
// others back will know of a leader in a moment.
func (g *group) propose(r *replica.Replica, command []byte, w replica.Waiter) error {
	if g.stream != nil && !g.c.hasRoom(g.stream.Config().Storage, command) {
		return ErrNoSpace
	}
	err := r.Propose(command, w)
	if errors.Is(err, replica.ErrReturning) {
		return errNoLeader
	}
	return err
}

// again keeps commands that the local replica did not take for the next leader; those of another server
// go back there. Whoever is told of a leader first goes on with them.
func (g *group) again(commands [][]byte, waiters []replica.Waiter) {
	var own [][]byte
	var mine []replica.Waiter
	for i, w := range waiters {
		if f, ok := w.(*forwardedHere); ok && !f.passed {
			f.Done(nil, errNoLeader)
			continue
		}
		own, mine = append(own, commands[i]), append(mine, w)
	}
	if len(mine) > 0 {
		g.held.back(own, mine)
	}
}

// memberAfter picks a server that has a replica and answers, or at least can be reached, the first in order behind the
// given one; it will say who leads. One that is cut off from the others does not know, and must not be asked for ever.
func (g *group) memberAfter(last uint64) uint64 {
	members := g.members()
	first := 1 + slices.IndexFunc(members, func(m meta.Replica) bool { return m.Server == last })
	for _, fit := range []func(uint64) bool{g.c.responsive, g.c.reachable} {
		for i := range members {
			to := members[(first+i)%len(members)].Server
			if to != g.c.id.server && fit(to) {
				return to
			}
		}
	}
	return 0
}
