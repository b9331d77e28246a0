package replica

import (
	"encoding/binary"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// readQueue holds linearizable reads. At most one read index is asked for at a time; reads that
// arrive meanwhile share the next one, because the index must be asked for after they began.
type readQueue struct {
	waiting []*readBatch // not asked for yet; at most one batch, the last
	asked   *readBatch   // asked for, index unknown
	known   []*readBatch // index known, the machine is not that far yet
	next    uint64       // id of the next request
}

type readBatch struct {
	done     []func(error)
	first    uint64 // of the requests that asked for its index
	id       uint64 // of the last one
	index    uint64
	askTick  uint64
	bornTick uint64
}

func (b *readBatch) finish(err error) {
	for _, f := range b.done {
		f(err)
	}
	b.done = nil
}

func (q *readQueue) failAll(err error) {
	all := q.known
	if q.asked != nil {
		all = append(all, q.asked)
	}
	all = append(all, q.waiting...)
	*q = readQueue{next: q.next}
	for _, b := range all {
		b.finish(err)
	}
}

// ReadIndex calls done(nil) once the local machine shows every write that was acknowledged
// before the call: at once, on the caller's goroutine, if this is a group of one; else on the
// owner's goroutine. Any goroutine may call it.
func (r *Replica) ReadIndex(done func(error)) {
	if r.localReads.Load() {
		done(nil)
		return
	}
	r.shard.push(event{kind: evRead, r: r, read: done})
}

// addRead puts a read into the queue.
func (r *Replica) addRead(done func(error)) {
	if r.failed != nil {
		done(ErrStopped)
		return
	}
	if r.cfg.Blind {
		done(ErrUnavailable)
		return
	}
	q := &r.reads
	if len(q.waiting) == 0 {
		q.waiting = append(q.waiting, &readBatch{bornTick: r.ticks})
	}
	q.waiting[0].done = append(q.waiting[0].done, done)
}

// askReads sends the next request, if none is under way. A group of one must have applied an
// entry of its own term first: until then Raft's answer may be older than an acknowledged write.
func (r *Replica) askReads() {
	q := &r.reads
	if q.asked != nil || len(q.waiting) == 0 || r.lead == 0 {
		return
	}
	if r.lead == r.cfg.ID && r.appliedTerm != r.term {
		return
	}
	q.asked = q.waiting[0]
	q.waiting = q.waiting[:0]
	q.asked.first = q.next + 1
	r.ask(q.asked)
}

func (r *Replica) ask(b *readBatch) {
	r.reads.next++
	b.id, b.askTick = r.reads.next, r.ticks
	ctx := make([]byte, 0, readContextBytes)
	ctx = binary.LittleEndian.AppendUint64(ctx, r.cfg.Incarnation)
	ctx = binary.LittleEndian.AppendUint64(ctx, b.id)
	ctx = binary.LittleEndian.AppendUint64(ctx, r.raft.BasicStatus().GetTerm())
	r.raft.ReadIndex(ctx)
}

// readContextBytes is the length of a request's context: incarnation and id, which tell the answer to
// it from others, and the term in which it was asked.
const readContextBytes = 24

// answerRead answers the request of a member that is a majority together with this leader, and tells
// whether it did. The request itself says that the member was in the leader's term after the read
// began, and so had elected nobody else by then: there is nothing to ask the others.
func (r *Replica) answerRead(m *pb.Message) bool {
	if m.GetType() != pb.MsgReadIndex || len(m.GetEntries()) != 1 || r.failed != nil {
		return false
	}
	r.noteRead(m.GetFrom())
	ctx := m.GetEntries()[0].GetData()
	b := r.raft.BasicStatus()
	switch {
	case len(ctx) != readContextBytes || binary.LittleEndian.Uint64(ctx[16:]) != b.GetTerm():
		return false
	case b.RaftState != raft.StateLeader || r.appliedTerm != b.GetTerm():
		return false
	case !majority(r.conf, r.cfg.ID, m.GetFrom()):
		return false
	}
	answer := &pb.Message{
		Type: pb.MsgReadIndexResp.Enum(), From: &r.cfg.ID, To: new(m.GetFrom()), Term: new(b.GetTerm()),
		Index: new(b.GetCommit()), Entries: m.GetEntries(),
	}
	r.sendNews(r.paceOf(m.GetFrom()), &r.shard.out) // The reader waits for what is committed.
	r.shard.out.messages = append(r.shard.out.messages, Outgoing{From: r, Message: answer})
	return true
}

// majority tells whether two members are one.
func majority(c *pb.ConfState, a, b uint64) bool {
	v := c.GetVoters()
	return len(v) <= 3 && len(c.GetVotersOutgoing()) == 0 && a != b && slices.Contains(v, a) && slices.Contains(v, b)
}

// retryReads asks again, under a new id, what was lost on the way, and gives up on what is old.
func (r *Replica) retryReads() {
	q := &r.reads
	if b := q.asked; b != nil {
		switch {
		case r.ticks-b.bornTick > readTicksMax:
			q.asked = nil
			b.finish(ErrUnavailable)
		case r.ticks-b.askTick > readRetryTicks && r.lead != 0:
			r.ask(b)
		}
	}
	if len(q.waiting) > 0 && r.ticks-q.waiting[0].bornTick > readTicksMax {
		b := q.waiting[0]
		q.waiting = q.waiting[:0]
		b.finish(ErrUnavailable)
	}
	for len(q.known) > 0 && r.ticks-q.known[0].bornTick > readTicksMax {
		b := q.known[0]
		q.known = q.known[1:]
		b.finish(ErrUnavailable)
	}
}

// readConfirmed takes Raft's answer.
func (r *Replica) readConfirmed(ctx []byte, index uint64) {
	b := r.reads.asked
	if b == nil || len(ctx) != readContextBytes || binary.LittleEndian.Uint64(ctx) != r.cfg.Incarnation {
		return
	}
	// The first request was sent after the reads began, so an answer to any of them will do. On a long way each comes
	// when the next request is on its way already.
	if id := binary.LittleEndian.Uint64(ctx[8:]); id < b.first || id > b.id {
		return // An answer to a request that was given up.
	}
	r.reads.asked = nil
	b.index = index
	r.reads.known = append(r.reads.known, b)
}

// releaseReads finishes the reads whose index the machine has reached.
func (r *Replica) releaseReads() {
	q := &r.reads
	for len(q.known) > 0 && q.known[0].index <= r.applied {
		b := q.known[0]
		q.known = q.known[1:]
		b.finish(nil)
	}
}

func soleVoter(c *pb.ConfState, id uint64) bool {
	return len(c.GetVoters()) == 1 && c.GetVoters()[0] == id && len(c.GetVotersOutgoing()) == 0
}
