package replica

import (
	"cmp"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Bounds of what a member that trails is sent later than others.
const (
	trailRounds = 7        // messages with entries
	trailBytes  = 64 << 10 // payload of the entries
	trailTurns  = 4        // calls of Shard.SendLate; a tick ends the wait, too
	trailFrom   = 32       // rounds a tick may have before a member may trail: with fewer, trailTurns seldom joins two
	trailReads  = 10       // ticks after a read of a member in which it does not
)

// trail holds what is sent to one member some rounds at once.
//
// A round costs each member a sync, two messages and some switches between threads, however much it
// carries, and a majority is enough. So while many rounds follow one another, members beyond the
// majority get several of them together, a few milliseconds late at most. They are those that
// acknowledged least: the quickest decide how long a write takes, as ever, and if one of them falls
// silent, another one hears of the round a moment later, acknowledges it, and takes its place.
//
// A member that is asked for linearizable reads does not trail: they would wait for its sync.
type trail struct {
	behind []*pb.Message // appends that wait, in order
	bytes  int
	turns  int // calls of SendLate since there are any

	acked, ackedTerm uint64 // how far the member's log is known to be on its disk, and the leader's term then
	readUntil        uint64 // the tick until which it is taken for one that reads

	tick   uint64
	rounds int  // in that tick
	busy   bool // they are many
	after  bool // there were many in the one before
}

// count is told of a round.
func (t *trail) count(tick uint64, many int) {
	if t.tick != tick {
		t.after = t.busy && t.tick+1 == tick
		t.tick, t.rounds, t.busy = tick, 0, false
	}
	t.rounds++
	t.busy = t.rounds > many
}

// noteAck is told of an answer to an append.
func (r *Replica) noteAck(m *pb.Message) {
	if m.GetType() != pb.MsgAppResp || m.GetReject() || m.GetTerm() != r.term {
		return
	}
	t := &r.paceOf(m.GetFrom()).trail
	if t.ackedTerm != r.term {
		t.acked, t.ackedTerm = 0, r.term
	}
	t.acked = max(t.acked, m.GetIndex())
}

// noteRead is told that a member reads.
func (r *Replica) noteRead(member uint64) { r.paceOf(member).readUntil = r.ticks + trailReads }

// holdTrail keeps an append with entries for later, and tells whether it did.
func (r *Replica) holdTrail(p *pace, m *pb.Message) bool {
	t := &p.trail
	t.count(r.ticks, cmp.Or(r.cfg.TrailFrom, trailFrom))
	size := 0
	for _, e := range m.GetEntries() {
		size += len(e.GetData())
	}
	if len(t.behind) == trailRounds || t.bytes+size > trailBytes || !r.mayTrail(p) {
		r.catchUp(p, &r.shard.out)
		return false
	}
	t.behind = append(t.behind, m)
	t.bytes += size
	r.shard.late(r)
	return true
}

// mayTrail tells whether the members that are ahead of p are a majority together with this leader.
func (r *Replica) mayTrail(p *pace) bool {
	voters := r.conf.GetVoters()
	switch {
	case !p.busy && !p.after, r.ticks < p.readUntil, len(r.conf.GetVotersOutgoing()) > 0:
		return false
	case !slices.Contains(voters, r.cfg.ID) || !slices.Contains(voters, p.member):
		return false
	}
	ahead := 0
	for i := range r.paces {
		if o := &r.paces[i]; o.member != p.member && slices.Contains(voters, o.member) && r.isAhead(o, p) {
			ahead++
		}
	}
	return ahead >= len(voters)/2
}

func (r *Replica) isAhead(o, p *pace) bool {
	a, b := r.acked(o), r.acked(p)
	return a > b || a == b && o.member < p.member
}

func (r *Replica) acked(p *pace) uint64 {
	if p.ackedTerm != r.term {
		return 0
	}
	return p.acked
}

// catchUp sends what waits.
func (r *Replica) catchUp(p *pace, out *turnOutput) {
	t := &p.trail
	for _, m := range t.behind {
		if m.GetTerm() == r.term && r.failed == nil {
			out.messages = append(out.messages, Outgoing{From: r, Message: m})
		}
	}
	clear(t.behind)
	t.behind, t.bytes, t.turns = t.behind[:0], 0, 0
}
