package replica

import (
	pb "go.etcd.io/raft/v3/raftpb"
)

// beatsMax is how many heartbeats a member may leave unanswered before it gets no more than one a
// tick.
const beatsMax = 16

// pace holds back what Raft would send again and again to a member that does not answer for a while.
// Each round of reads sends it a heartbeat, and Raft answers each response to one, if the member's log
// lags, with as many entries as fit into a message. A member that was stopped for some seconds then
// answers thousands of heartbeats at once, and would be sent the same megabyte thousands of times.
// Raft takes what is held back for lost, and sends it again at a later heartbeat.
type pace struct {
	heard    uint64 // tick of the last message of the member, 0 for none
	beats    int    // heartbeats since then
	beatTick uint64 // of the last heartbeat

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

// holdBack tells whether a message that Raft wants sent is one too many.
func (r *Replica) holdBack(m *pb.Message) bool {
	switch m.GetType() {
	case pb.MsgHeartbeat:
		p := r.paceOf(m.GetTo())
		if p.beats++; p.beats > beatsMax && p.beatTick == r.ticks {
			return true
		}
		p.beatTick = r.ticks
	case pb.MsgApp:
		if len(m.GetEntries()) == 0 {
			return false
		}
		p := r.paceOf(m.GetTo())
		if p.probe == m.GetIndex() && p.probeTerm == m.GetTerm() && r.ticks-p.probeTick < heartbeatTicks {
			return true
		}
		p.probe, p.probeTerm, p.probeTick = m.GetIndex(), m.GetTerm(), r.ticks
	}
	return false
}

func (r *Replica) paceOf(member uint64) *pace {
	p := r.paces[member]
	if p == nil {
		if r.paces == nil {
			r.paces = make(map[uint64]*pace)
		}
		p = &pace{}
		r.paces[member] = p
	}
	return p
}
