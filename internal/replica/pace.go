package replica

import (
	pb "go.etcd.io/raft/v3/raftpb"
)

// beatsMax is how many heartbeats a member may leave unanswered before it gets no more than one a
// tick.
const beatsMax = 16

// pace holds back some of what Raft wants sent to one member, which Raft has to stand: it takes what
// does not arrive for lost, and sends it again.
//
// The news that entries are committed waits for the next entries, or a moment (see Shard.SendLate):
// alone it would cost every member a wake-up and an answer for each write.
//
// A member that does not answer for a while is not sent the same again and again. Each round of reads
// sends it a heartbeat, and Raft answers each response to one, if the member's log lags, with as many
// entries as fit into a message. A member that was stopped for some seconds would answer thousands of
// heartbeats at once, and be sent the same megabyte thousands of times.
type pace struct {
	member uint64

	news *pb.Message // an append without entries that waits
	trail

	heard    uint64 // tick of the last message of the member, 0 for none
	beats    int    // heartbeats since then
	beatTick uint64 // of the last heartbeat

	agreed bool   // to the last offer to rest
	rested uint64 // tick of the shard at which it last did

	probe     uint64 // index before the entries that were sent last
	probeTerm uint64 // the term in which they were sent
	probeTick uint64
}

// heard is told that a message of a member came in.
func (r *Replica) heard(member uint64) {
	p := r.paceOf(member)
	p.heard, p.beats = r.ticks, 0
	if member == r.lead {
		r.heardLead = r.ticks
	}
}

// holdBack tells whether a message that Raft wants sent is not to be sent now.
func (r *Replica) holdBack(m *pb.Message) bool {
	switch m.GetType() {
	case pb.MsgHeartbeat:
		p := r.paceOf(m.GetTo())
		if p.beats++; p.beats > beatsMax && p.beatTick == r.ticks {
			return true
		}
		p.beatTick = r.ticks
		if r.rest.offering && len(m.GetContext()) == 0 {
			m.Context = restContext(restOffer, r.rest.round)
		}
	case pb.MsgApp:
		p := r.paceOf(m.GetTo())
		if len(m.GetEntries()) == 0 {
			p.news = m
			r.shard.late(r)
			return true
		}
		if p.probe == m.GetIndex() && p.probeTerm == m.GetTerm() && r.ticks-p.probeTick < heartbeatTicks {
			return true
		}
		p.probe, p.probeTerm, p.probeTick = m.GetIndex(), m.GetTerm(), r.ticks
		p.news = nil // These entries bring it.
		return r.holdTrail(p, m)
	case pb.MsgReadIndexResp:
		r.sendNews(r.paceOf(m.GetTo()), &r.shard.out) // The reader waits for what is committed.
	}
	return false
}

// sendLate sends what waits, but to members that trail and may do so a little longer, unless all is set. It tells
// whether something is left.
func (r *Replica) sendLate(out *turnOutput, all bool) (left bool) {
	for i := range r.paces {
		p := &r.paces[i]
		if p.turns++; len(p.behind) > 0 && p.turns < trailTurns && !all {
			left = true
			continue
		}
		r.sendNews(p, out)
	}
	return left
}

// sendNews sends a member all that waits for it.
func (r *Replica) sendNews(p *pace, out *turnOutput) {
	r.catchUp(p, out)
	if p.news != nil && p.news.GetTerm() == r.term && r.failed == nil {
		out.messages = append(out.messages, Outgoing{From: r, Message: p.news})
	}
	p.news = nil
}

func (r *Replica) paceOf(member uint64) *pace {
	for i := range r.paces {
		if r.paces[i].member == member {
			return &r.paces[i]
		}
	}
	r.paces = append(r.paces, pace{member: member})
	return &r.paces[len(r.paces)-1]
}
