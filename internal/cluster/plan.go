package cluster

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	pb "go.etcd.io/raft/v3/raftpb"
)

// caughtUp is how many log entries a learner may be behind when it is made a voter.
const caughtUp = 256

// planner executes changes of membership, where this server leads the group. Each step is decided
// from what is, so that it may be repeated by whoever leads next:
//
//	add the new members as learners -> they catch up -> one joint change: promote and remove
//	-> tell meta
type planner struct {
	mu   sync.Mutex
	told time.Time // when meta was last told what has become of the plan
}

// planLoop looks after all plans, and after the membership of the meta group.
func (c *Cluster) planLoop() {
	ticker := time.NewTicker(planEvery)
	defer ticker.Stop()
	var moving []*Stream
	for round := 0; ; round++ {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		c.introduce()
		c.planMeta()
		if round%healRounds == 0 {
			c.heal(now)
			c.balance(now)
			c.metaGroup.compare(now)
			for _, s := range c.local() {
				s.compare(now)
			}
		}
		if c.plansChanged.Swap(false) || round%healRounds == 0 {
			moving = slices.DeleteFunc(c.local(), func(s *Stream) bool { return s.Assignment().Plan == nil && s.lost.Load() == nil })
		}
		for _, s := range moving {
			s.plan()
			s.replace()
		}
	}
}

// introduce dials the servers that meta knows, and corrects what meta knows of this one.
func (c *Cluster) introduce() {
	for _, s := range c.Meta().Servers() {
		if s.ID != c.id.server && s.Route != "" {
			c.transport.Dial(s.Route)
		}
	}
	self := c.self()
	known := c.Meta().Server(self.ID)
	if known == nil || known.Removed || known.Name == self.Name && known.Route == self.Route && slices.Equal(known.Tags, self.Tags) {
		return
	}
	if c.metaGroup.leader() != 0 {
		c.ProposeMeta(meta.Encode(meta.KindJoinServer, &meta.JoinServer{Server: self}), WaiterFunc(func(any, error) {}))
	}
}

const (
	planEvery  = 200 * time.Millisecond
	healRounds = 5 // between two looks at servers that are gone, or back, and at all streams
)

// plan takes the next step of a stream's plan.
func (s *Stream) plan() {
	a := s.Assignment()
	r := s.rep.Load()
	if a.Plan == nil || r == nil || !r.Status().Leading || s.gone.Load() {
		return
	}
	var voters []uint64
	for _, m := range a.Members() {
		if !slices.Contains(a.Plan.Remove, m.ID) {
			voters = append(voters, m.ID)
		}
	}
	st := r.Status()
	if a.Plan.Absent && areBack(&st, a.Plan) {
		s.tellMeta(meta.KindCancelPlan, &meta.CancelPlan{Account: a.Account, Name: a.Config.Name, Group: a.Group, Epoch: a.Plan.Epoch})
		return
	}
	if s.change(r, voters, nil) {
		s.tellMeta(meta.KindPlanDone, &meta.PlanDone{Account: a.Account, Name: a.Config.Name, Group: a.Group, Epoch: a.Plan.Epoch})
	}
}

// areBack tells whether all whom a plan replaces because of their absence take part again, before it has
// come to the change that they were to be removed by.
func areBack(st *replica.Status, p *meta.Plan) bool {
	return len(st.Conf.GetVotersOutgoing()) == 0 && len(p.Remove) > 0 && !slices.ContainsFunc(p.Remove, func(id uint64) bool {
		return !slices.Contains(st.Conf.GetVoters(), id) || !ready(st, id)
	})
}

// tellMeta tells meta what has become of the plan, again now and then until the assignment changes.
func (s *Stream) tellMeta(kind meta.Kind, what any) {
	s.planning.mu.Lock()
	due := time.Since(s.planning.told) > time.Second
	if due {
		s.planning.told = time.Now()
	}
	s.planning.mu.Unlock()
	if !due {
		return
	}
	s.c.ProposeMeta(meta.Encode(kind, what), WaiterFunc(func(any, error) {}))
}

// planMeta makes the meta group's members match its servers: at most five vote, the others learn.
func (c *Cluster) planMeta() {
	r := c.metaGroup.rep.Load()
	st := r.Status()
	if !st.Leading {
		return
	}
	var voters, learners []uint64
	servers := c.Meta().Servers()
	// Who votes already keeps voting.
	slices.SortStableFunc(servers, func(a, b *meta.Server) int {
		return vote(&st, b.Member) - vote(&st, a.Member)
	})
	for _, s := range servers {
		if len(voters) < metaVotersMax {
			voters = append(voters, s.Member)
		} else {
			learners = append(learners, s.Member)
		}
	}
	c.metaGroup.change(r, voters, learners)
}

const metaVotersMax = 5

func vote(st *replica.Status, member uint64) int {
	if slices.Contains(st.Conf.GetVoters(), member) {
		return 1
	}
	return 0
}

// change takes one step towards the wanted membership and tells whether it is reached.
func (g *group) change(r *replica.Replica, voters, learners []uint64) bool {
	st := r.Status()
	conf := st.Conf
	switch {
	case len(conf.GetVotersOutgoing()) > 0:
		// Raft leaves a joint state by itself once it is committed. If a leader was lost
		// between, its successor has to ask.
		g.proposeConf(r, &pb.ConfChangeV2{})
		return false
	case sameMembers(conf.GetVoters(), voters) && sameMembers(conf.GetLearners(), learners):
		return true
	case !slices.Contains(voters, r.ID()):
		g.handOver(r, &st, voters)
		return false
	}
	cc := &pb.ConfChangeV2{}
	add := func(t pb.ConfChangeType, id uint64) {
		cc.Changes = append(cc.Changes, &pb.ConfChangeSingle{Type: &t, NodeId: &id})
	}
	for _, id := range append(slices.Clone(voters), learners...) {
		if !slices.Contains(conf.GetVoters(), id) && !slices.Contains(conf.GetLearners(), id) {
			add(pb.ConfChangeAddLearnerNode, id)
		}
	}
	if len(cc.Changes) > 0 {
		g.proposeConf(r, cc)
		return false
	}
	for _, id := range voters {
		if slices.Contains(conf.GetVoters(), id) {
			continue
		}
		if !ready(&st, id) || g.blinds.has(id) {
			return false // Never remove first: all or nothing, when all have caught up.
		}
		add(pb.ConfChangeAddNode, id)
	}
	for _, id := range append(slices.Clone(conf.GetVoters()), conf.GetLearners()...) {
		if !slices.Contains(voters, id) && !slices.Contains(learners, id) {
			add(pb.ConfChangeRemoveNode, id)
		}
	}
	if !survives(&st, voters) {
		return false
	}
	// Jointly, also if it is one member alone: then whoever knows of the new membership has all that was committed
	// under the old one, on which replica.Reform and replica.Mend rely.
	cc.Transition = pb.ConfChangeTransitionJointImplicit.Enum()
	g.proposeConf(r, cc)
	return false
}

// survives tells whether a majority of the voters to be is alive.
func survives(st *replica.Status, voters []uint64) bool {
	alive := 0
	for _, id := range voters {
		if slices.ContainsFunc(st.Members, func(m replica.Member) bool { return m.ID == id && m.Active }) || id == st.Leader {
			alive++
		}
	}
	return alive > len(voters)/2
}

// ready tells whether a learner has caught up.
func ready(st *replica.Status, id uint64) bool {
	return slices.ContainsFunc(st.Members, func(m replica.Member) bool {
		return m.ID == id && m.Active && !m.Snap && m.Match > 0 && m.Match+caughtUp >= st.Committed
	})
}

// handOver gives the lead to a member that stays.
func (g *group) handOver(r *replica.Replica, st *replica.Status, voters []uint64) {
	for _, id := range voters {
		if slices.Contains(st.Conf.GetVoters(), id) && ready(st, id) && !g.blinds.has(id) {
			g.shard.Call(func() { r.Transfer(id) })
			return
		}
	}
	// Nobody can take over yet: first make those voters who are to stay.
	withSelf := append(slices.Clone(voters), r.ID())
	if !sameMembers(withSelf, st.Conf.GetVoters()) {
		g.change(r, withSelf, st.Conf.GetLearners())
	}
}

func (g *group) proposeConf(r *replica.Replica, cc *pb.ConfChangeV2) {
	g.shard.Call(func() {
		if err := r.ProposeConf(cc); err != nil {
			g.c.opts.Logger.Debug(fmt.Sprintf("membership of group %d: %v", g.id, err))
		}
	})
}

func sameMembers(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for _, id := range a {
		if !slices.Contains(b, id) {
			return false
		}
	}
	return true
}
