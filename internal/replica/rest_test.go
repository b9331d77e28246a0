package replica

import (
	"errors"
	"testing"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// trio is a group of three, each on a shard of its own, with a network that loses what it is told to.
type trio struct {
	t     *testing.T
	nodes [3]*bench
	reps  [3]*Replica
	dead  [3]bool // neither ticks nor speaks nor beats
	lose  func(*pb.Message) bool
	sent  map[pb.MessageType]int
}

func newTrio(t *testing.T, home func(member uint64) uint64) *trio {
	g := &trio{t: t, sent: map[pb.MessageType]int{}}
	for i := range g.nodes {
		b := newSteppedBench(t, vfs.NewMem())
		g.nodes[i] = b
		r, err := b.shard.Open(Config{
			Group: 7, ID: uint64(i + 1), Name: "test", Log: b.log, Machine: b.steppedGenesis(7, 1, 2, 3), Incarnation: uint64(i + 1),
			Logger: b.shard.logger, Home: home,
		})
		if err != nil {
			t.Fatal(err)
		}
		g.reps[i] = r
	}
	return g
}

// restingTrio is a trio that rests, with its leader first.
func restingTrio(t *testing.T) (g *trio, leader, follower *Replica) {
	g = newTrio(t, func(member uint64) uint64 { return member })
	g.until("all rest", 200, g.resting)
	for i, r := range g.reps {
		if r.Status().Leading {
			return g, r, g.reps[(i+1)%3]
		}
	}
	t.Fatal("nobody leads")
	return nil, nil, nil
}

// deliver lets all messages arrive.
func (g *trio) deliver() {
	for range 20 {
		for i, b := range g.nodes {
			if g.dead[i] {
				b.sent = nil
				continue
			}
			b.shard.Turn(false)
			b.sync()
			for _, o := range b.sent {
				to := o.Message.GetTo() - 1
				if !g.dead[to] && (g.lose == nil || !g.lose(o.Message)) {
					g.sent[o.Message.GetType()]++
					g.nodes[to].shard.Receive(g.reps[to], o.Message)
				}
			}
			b.sent = nil
		}
	}
}

// tick lets all messages arrive, and then a tick pass.
func (g *trio) tick() {
	g.deliver()
	for i, b := range g.nodes {
		if g.dead[i] {
			continue
		}
		b.shard.Turn(true)
		for j, other := range g.nodes {
			if j != i && b.shard.Ticks()%BeatTicks == 0 {
				other.shard.Beat(uint64(i + 1))
			}
		}
	}
}

func (g *trio) until(what string, ticks int, cond func() bool) {
	g.t.Helper()
	for range ticks {
		if cond() {
			return
		}
		g.tick()
	}
	g.t.Fatalf("not after %d ticks: %s", ticks, what)
}

func (g *trio) resting() bool {
	for i, r := range g.reps {
		if !g.dead[i] && !r.Status().Resting {
			return false
		}
	}
	return true
}

// counter is an Env that counts how often something is sent, and what.
type counter struct {
	*bench
	sends, messages int
}

func (c *counter) Send(all []Outgoing) {
	c.sends++
	c.messages += len(all)
	c.bench.Send(all)
}

// The heartbeats of all groups of a shard, and the answers to those that came together, leave together: what
// idle groups cost the network is counted in servers.
func TestHeartbeatCoalescing(t *testing.T) {
	const groups = 100
	env := &counter{bench: newSteppedBench(t, vfs.NewMem())}
	env.shard = NewShard(env, env.log, env.shard.logger)
	var leaders, followers []*Replica
	for g := range wal.GroupID(groups) {
		leaders = append(leaders, env.openFor(t, g+1, nil, 1, 2, 3))
	}
	env.lead(t, leaders...)
	for g := range wal.GroupID(groups) {
		followers = append(followers, env.openFor(t, groups+g+1, nil, 1, 2, 3))
	}
	offered := func() (beats []Incoming) {
		for _, r := range followers {
			m := message(pb.MsgHeartbeat, 2, 1, 50)
			beats = append(beats, Incoming{To: r, Message: m})
		}
		return beats
	}
	env.shard.ReceiveAll(offered())
	env.shard.Turn(false)
	env.sync()
	env.shard.Turn(false)

	env.sends, env.messages = 0, 0
	env.shard.ReceiveAll(offered())
	env.shard.Turn(false)
	if env.sends != 1 || env.messages != groups {
		t.Errorf("%d heartbeats were answered with %d messages, sent %d times", groups, env.messages, env.sends)
	}
	env.shard.SendLate()
	env.sends, env.messages = 0, 0
	for range heartbeatTicks {
		env.shard.Turn(true)
	}
	if env.sends > heartbeatTicks || env.messages < 2*groups {
		t.Errorf("%d leaders sent %d messages in %d ticks, sent %d times", groups, env.messages, heartbeatTicks, env.sends)
	}
}

// A group that nobody uses is silent, but for an offer now and then, and stays one group with one leader.
func TestIdleGroupRests(t *testing.T) {
	g, leader, _ := restingTrio(t)
	term := leader.Status().Term
	clear(g.sent)
	const ticks = 3 * restRound
	for range ticks {
		g.tick()
	}
	if n := g.sent[pb.MsgHeartbeat]; n < 2 || n > 2*(ticks/restRound+1) || len(g.sent) != 2 {
		t.Errorf("in %d ticks at rest were sent: %v", ticks, g.sent)
	}
	if st := leader.Status(); !g.resting() || st.Term != term || !st.Leading || st.CutOff {
		t.Errorf("%+v", st)
	}
}

func TestGroupWithoutHomesNeverRests(t *testing.T) {
	g := newTrio(t, nil)
	for range 5 * restAfter {
		g.tick()
		for _, r := range g.reps {
			if r.Status().Resting {
				t.Fatal("rests, and nobody would wake it")
			}
		}
	}
}

// A proposal and a read find a resting group as they find any other, and wake all of it.
func TestRestingGroupServes(t *testing.T) {
	g, leader, follower := restingTrio(t)
	o := &outcome{}
	if err := leader.Propose([]byte("v"), o); err != nil {
		t.Fatal(err)
	}
	g.until("acknowledged", 1, func() bool { g.tick(); return o.called == 1 && o.err == nil })
	g.until("all are awake", 5, func() bool {
		return !g.reps[0].Status().Resting && !g.reps[1].Status().Resting && !g.reps[2].Status().Resting
	})
	g.until("all rest again", 100, g.resting)
	read := errors.New("not answered")
	follower.ReadIndex(func(err error) { read = err })
	g.until("read", 1, func() bool { g.tick(); return read == nil })
	g.until("the leader is awake", 5, func() bool { return !leader.Status().Resting })
	g.until("all rest again", 100, g.resting)
}

// The trap: heartbeats are how a dead leader is found out. An election after the death of a resting group's
// leader comes no later than one of a group that is awake.
func TestRestingGroupElectsAfterItsLeadersDeath(t *testing.T) {
	for name, told := range map[string]bool{"by silence": false, "by the connection": true} {
		t.Run(name, func(t *testing.T) {
			g, leader, _ := restingTrio(t)
			dead := leader.cfg.ID
			g.dead[dead-1] = true
			if told {
				for i, b := range g.nodes {
					if uint64(i+1) != dead {
						b.shard.Lost(dead)
					}
				}
			}
			// A timeout is up to two electionTicks, and a vote may be split.
			g.until("another leads", 10*electionTicks, func() bool {
				for i, r := range g.reps {
					if !g.dead[i] && r.Status().Leading {
						return true
					}
				}
				return false
			})
		})
	}
}

// The trap: the leader's server lives and beats, but its replica has ended.
func TestRestingLeaderThatFailsWakesTheOthers(t *testing.T) {
	g, leader, follower := restingTrio(t)
	leader.shard.Call(func() { leader.Fail(errors.New("its disk")) })
	g.until("followers are awake", 2, func() bool { return !follower.Status().Resting })
	g.until("another leads", 10*electionTicks, func() bool {
		return follower.Status().Leader != leader.cfg.ID && follower.Status().Leader != 0
	})
}

// The trap: a leader that rests while a member lacks what it has would leave it behind.
func TestLeaderWaitsForAllBeforeItRests(t *testing.T) {
	g := newTrio(t, func(member uint64) uint64 { return member })
	g.lose = func(m *pb.Message) bool {
		return m.GetTo() == 3 && m.GetType() == pb.MsgApp || m.GetFrom() == 3 && m.GetType() == pb.MsgPreVote
	}
	for range 5 * restAfter {
		g.tick()
		for _, r := range g.reps[:2] {
			if st := r.Status(); st.Leading && st.Resting {
				t.Fatal("the leader rests, and a member has nothing")
			}
		}
	}
	g.lose = nil
	g.until("all rest", 200, g.resting)
}

// Answers to an offer that was taken back do not count: who gave them is awake.
func TestOldAgreementDoesNotCount(t *testing.T) {
	var kept []*pb.Message
	g := newTrio(t, func(member uint64) uint64 { return member })
	g.lose = func(m *pb.Message) bool {
		if _, ok := restOf(m, pb.MsgHeartbeatResp, restAgreed); ok {
			kept = append(kept, m)
			return true
		}
		return false
	}
	g.until("offers were made", 200, func() bool { return len(kept) >= 4 })
	var leader *Replica
	for _, r := range g.reps {
		if r.Status().Leading {
			leader = r
		}
	}
	o := &outcome{}
	if err := leader.Propose([]byte("v"), o); err != nil {
		t.Fatal(err)
	}
	g.until("acknowledged", 2, func() bool { return o.called == 1 })
	g.until("offers are made again", 100, func() bool { return leader.rest.offering })
	for _, m := range kept {
		leader.shard.Receive(leader, m)
	}
	leader.shard.Turn(false)
	if leader.Status().Resting {
		t.Error("rests on answers to an offer that was taken back")
	}
}

// Whatever was lost or forgotten, nobody rests for ever without a word of the others.
func TestRestEndsWithoutAWord(t *testing.T) {
	for name, lost := range map[string]pb.MessageType{"offers": pb.MsgHeartbeat, "answers": pb.MsgHeartbeatResp} {
		t.Run(name, func(t *testing.T) {
			g, leader, follower := restingTrio(t)
			g.lose = func(m *pb.Message) bool { return m.GetType() == lost }
			who := follower
			if lost == pb.MsgHeartbeatResp {
				who = leader
			}
			g.until("awake", 5*restRound, func() bool { return !who.Status().Resting })
		})
	}
}
