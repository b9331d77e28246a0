package replica

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// A group that nobody uses rests: its members do not tick, and its leader sends no heartbeats. Nothing
// that Raft promises depends on ticks; they are how a leader that died is found out. A resting group is told
// that by its servers, whose beats stand for the heartbeats of all groups that rest between them:
//
//	leader    nothing to do for restAfter: its heartbeats become offers to rest
//	follower  has and has executed all that the leader has: answers that it agrees, and rests
//	leader    all agreed: rests
//
// A member wakes, ticks again and so can elect, when anything reaches it but an offer: a proposal, a read, a
// message; when the server that it depends on was not heard of for silentTicks, or its connection was
// lost. A follower that wakes tells the leader, whose heartbeats wake the others. The time that a server was
// silent counts as if the group had been awake: its election comes no later.
//
// What nobody thought of has a bound: the leader repeats its offer every restRound ticks, and who misses three
// of them, or the answers, wakes.
const (
	restAfter   = 50
	silentTicks = 3 * BeatTicks
	restRound   = restSlices * restStep

	// Resting replicas are looked after in slices, one each restStep ticks.
	restSlices = 8
	restStep   = 16
)

// BeatTicks is how often a server has to tell others that it lives, in ticks; see Shard.Beat.
const BeatTicks = heartbeatTicks

// rest is what a replica knows of its group's rest.
type rest struct {
	asleep   bool
	ticking  bool   // in the shard's list of those that tick
	busy     uint64 // tick of the last work
	offering bool   // heartbeats are offers
	round    uint64 // of offers; agreements to older ones do not count
	heard    uint64 // tick of the shard at which a follower was last offered to rest
}

// An offer to rest and its answer are a heartbeat and a response to one, with a context that Raft's own
// never have: their contexts have eight bytes.
const (
	restOffer  = '?'
	restAgreed = '!'
)

func restContext(what byte, round uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{what}, round)
}

// restOf tells whether a message is of the given type and has such a context, and the round.
func restOf(m *pb.Message, typ pb.MessageType, what byte) (round uint64, ok bool) {
	c := m.GetContext()
	if m.GetType() != typ || len(c) != 9 || c[0] != what {
		return 0, false
	}
	return binary.LittleEndian.Uint64(c[1:]), true
}

// home is what a shard knows of another server.
type home struct {
	server uint64
	heard  uint64 // tick of the shard at which it last beat
	silent bool
}

// Beat tells the shard that another server lives, with all that it leads. Any goroutine.
func (s *Shard) Beat(server uint64) { s.push(event{kind: evBeat, server: server}) }

// Lost tells the shard that another server may be gone, before its silence does. Any goroutine.
func (s *Shard) Lost(server uint64) { s.push(event{kind: evLost, server: server}) }

// Ticks is how many ticks the shard has done. A server beats for as long as those of all its shards go
// on. Any goroutine.
func (s *Shard) Ticks() uint64 { return s.ticks.Load() }

func (s *Shard) home(server uint64) *home {
	for i := range s.homes {
		if s.homes[i].server == server {
			return &s.homes[i]
		}
	}
	s.homes = append(s.homes, home{server: server})
	return &s.homes[len(s.homes)-1]
}

func (s *Shard) beat(server uint64) {
	h := s.home(server)
	h.heard, h.silent = s.ticks.Load(), false
}

func (s *Shard) lost(server uint64) {
	if h := s.home(server); !h.silent {
		h.silent = true
		s.wakeHome(h)
	}
}

// listen wakes what depends on servers that have fallen silent.
func (s *Shard) listen() {
	for i := range s.homes {
		if h := &s.homes[i]; !h.silent && s.ticks.Load()-h.heard > silentTicks {
			h.silent = true
			s.wakeHome(h)
		}
	}
}

// wakeHome wakes the members that depend on a server: followers of a leader there, and leaders of a
// follower there.
func (s *Shard) wakeHome(h *home) {
	silence := min(s.ticks.Load()-h.heard, electionTicks-1)
	for _, r := range s.order {
		if r.rest.asleep && r.dependsOn(h.server) {
			s.mark(r)
			r.sleptThrough(silence)
		}
	}
}

func (r *Replica) dependsOn(server uint64) bool {
	if r.lead != r.cfg.ID {
		return r.cfg.Home(r.lead) == server
	}
	for _, id := range r.conf.GetVoters() {
		if id != r.cfg.ID && r.cfg.Home(id) == server {
			return true
		}
	}
	return false
}

// sleptThrough makes up for ticks without a word of the others.
func (r *Replica) sleptThrough(ticks uint64) {
	defer r.rescue()
	r.ticks += ticks
	r.rest.busy = r.ticks
	if r.lead != r.cfg.ID {
		for range ticks { // Fewer than any election timeout.
			r.raft.Tick()
		}
	}
}

// wake makes the replica tick again.
func (s *Shard) wake(r *Replica) {
	if !r.rest.asleep {
		return
	}
	r.rest.asleep, r.rest.offering, r.rest.busy = false, false, r.ticks
	s.tickFromNowOn(r)
}

func (s *Shard) tickFromNowOn(r *Replica) {
	if !r.rest.ticking {
		r.rest.ticking = true
		s.ticking = append(s.ticking, r)
	}
}

// mark is called when there is work for the replica. A follower that rested wakes its leader.
func (s *Shard) mark(r *Replica) {
	if r.rest.asleep && r.failed == nil {
		s.wake(r)
		r.nudge(r.lead)
	}
	r.rest.busy = r.ticks
	s.touch(r)
}

// nudge wakes another member: Raft makes nothing of such a response.
func (r *Replica) nudge(member uint64) {
	if member == 0 || member == r.cfg.ID {
		return
	}
	m := &pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: &r.cfg.ID, To: &member, Term: new(r.term)}
	r.shard.out.messages = append(r.shard.out.messages, Outgoing{From: r, Message: m})
}

// nudgeAll wakes those who trust that this member leads, when it ends without its server.
func (r *Replica) nudgeAll() {
	if r.lead == r.cfg.ID && (r.rest.asleep || r.rest.offering) {
		for _, id := range r.conf.GetVoters() {
			r.nudge(id)
		}
	}
}

// receive handles a message of another member.
func (s *Shard) receive(r *Replica, m *pb.Message) {
	if r.failed != nil {
		return
	}
	from := m.GetFrom()
	r.heard(from)
	r.noteAck(m)
	if round, ok := restOf(m, pb.MsgHeartbeat, restOffer); ok {
		s.offered(r, m, round)
	} else if round, ok := restOf(m, pb.MsgHeartbeatResp, restAgreed); ok {
		m.Context = nil
		if m.GetTerm() == r.term {
			s.agreed(r, from, round)
		}
	} else {
		switch m.GetType() {
		case pb.MsgHeartbeat:
			s.wake(r)
		case pb.MsgHeartbeatResp:
			s.wake(r)
			r.paceOf(from).agreed = false
			if len(m.GetContext()) != 8 {
				m.Context = nil // Raft would read eight bytes of any other.
			}
		default:
			if from == r.lead {
				s.wake(r) // It knows.
			}
			s.mark(r)
		}
	}
	if !r.answerRead(m) {
		r.step(m)
		r.standIn(m)
	}
	s.touch(r)
}

// offered answers an offer. Raft answers heartbeats with their context.
func (s *Shard) offered(r *Replica, m *pb.Message, round uint64) {
	if !r.mayFollowToRest(m) {
		m.Context = nil
		s.wake(r)
		return
	}
	m.Context = restContext(restAgreed, round)
	r.rest.asleep, r.rest.heard = true, s.ticks.Load()
}

// agreed takes an answer to an offer, and rests with the last one.
func (s *Shard) agreed(r *Replica, member, round uint64) {
	p := r.paceOf(member)
	if !r.rest.offering || round != r.rest.round {
		return
	}
	p.agreed, p.rested = true, s.ticks.Load()
	if r.rest.asleep || !r.mayRest() {
		return
	}
	for _, id := range r.conf.GetVoters() {
		if id != r.cfg.ID && !r.paceOf(id).agreed {
			return
		}
	}
	r.rest.asleep = true
}

// considerRest is called each tick of a leader: shall its heartbeats be offers?
func (r *Replica) considerRest() {
	if r.lead != r.cfg.ID || r.ticks-r.rest.busy <= restAfter || !r.mayRest() {
		r.rest.offering = false
		return
	}
	if soleVoter(r.conf, r.cfg.ID) {
		r.rest.asleep = true // Nobody to ask.
		return
	}
	if r.rest.offering {
		return
	}
	r.rest.offering = true
	r.rest.round++
	for i := range r.paces {
		r.paces[i].agreed = false
	}
}

// mayRest tells whether this member leads and has nothing to do, and all others have all that it has.
func (r *Replica) mayRest() bool {
	last, ok := r.nothingToDo()
	b := r.raft.BasicStatus()
	switch {
	case !ok, b.RaftState != raft.StateLeader, b.LeadTransferee != 0, r.isLate, r.appliedTerm != b.GetTerm(), b.GetCommit() != last:
		return false
	case len(r.conf.GetLearners()) > 0, len(r.conf.GetVotersOutgoing()) > 0, len(r.conf.GetLearnersNext()) > 0:
		return false
	}
	all := true
	r.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != r.cfg.ID {
			all = all && pr.State == tracker.StateReplicate && pr.Match == last && r.beating(id)
		}
	})
	return all
}

// mayFollowToRest tells whether this member follows the leader that offers, and has all that it has.
func (r *Replica) mayFollowToRest(m *pb.Message) bool {
	last, ok := r.nothingToDo()
	b := r.raft.BasicStatus()
	return ok && b.RaftState == raft.StateFollower && b.Lead == m.GetFrom() && b.GetTerm() == m.GetTerm() &&
		b.GetCommit() == last && m.GetCommit() == last && r.beating(m.GetFrom())
}

// nothingToDo tells whether nothing waits here, and where log and state end.
func (r *Replica) nothingToDo() (last uint64, ok bool) {
	q := &r.reads
	switch {
	case r.cfg.Home == nil, r.cfg.Blind, r.failed != nil, r.installing, r.held, r.rushAt != 0, r.appends > 0, len(r.applies) > 0, len(r.inflight) > 0,
		q.asked != nil, len(q.waiting) > 0, len(q.known) > 0:
		return 0, false
	}
	st, ok := r.cfg.Log.State(r.cfg.Group)
	return r.applied, ok && st.Last == r.applied
}

// beating tells whether the server of a member was heard of lately.
func (r *Replica) beating(member uint64) bool {
	server := r.cfg.Home(member)
	if server == 0 {
		return false
	}
	for i := range r.shard.homes {
		if h := &r.shard.homes[i]; h.server == server {
			return !h.silent
		}
	}
	return false
}

// lookAfterResting is called each tick, and now and then looks at a part of those that rest.
func (s *Shard) lookAfterResting() {
	now := s.ticks.Load()
	if now%restStep != 0 {
		return
	}
	for i := int(now / restStep % restSlices); i < len(s.order); i += restSlices {
		if r := s.order[i]; r.rest.asleep && r.failed == nil {
			s.lookAfter(r)
		}
	}
}

// lookAfter repeats the offer of a leader that rests, or wakes who does not hear of the others any more.
func (s *Shard) lookAfter(r *Replica) {
	missed := func(at uint64) bool { return s.ticks.Load()-at > 3*restRound }
	if r.lead != r.cfg.ID {
		if missed(r.rest.heard) {
			s.mark(r)
		}
		return
	}
	for _, id := range r.conf.GetVoters() {
		if id == r.cfg.ID {
			continue
		}
		if missed(r.paceOf(id).rested) {
			s.mark(r)
			return
		}
		m := &pb.Message{
			Type: pb.MsgHeartbeat.Enum(), From: &r.cfg.ID, To: &id, Term: new(r.term), Commit: new(r.applied),
			Context: restContext(restOffer, r.rest.round),
		}
		s.out.messages = append(s.out.messages, Outgoing{From: r, Message: m})
	}
}
