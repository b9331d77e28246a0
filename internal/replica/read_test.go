package replica

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// request is what member from asks the leader for, having been in a term when it did.
func request(from, term uint64) *pb.Message {
	ctx := binary.LittleEndian.AppendUint64(make([]byte, 16, readContextBytes), term)
	return &pb.Message{Type: pb.MsgReadIndex.Enum(), From: &from, To: new(uint64(1)), Entries: []*pb.Entry{{Data: ctx}}}
}

// A leader and the member that asks it are two of three: the leader answers at once, and only if the
// member was in the leader's own term when it asked. Otherwise somebody else may lead already, of whom this
// leader has not heard.
func TestReadIndexOfMajorityByAsking(t *testing.T) {
	for _, c := range []struct {
		name   string
		voters []uint64
		from   uint64
		later  int64 // the asker's term less the leader's
		atOnce bool
	}{
		{"two of three", []uint64{1, 2, 3}, 3, 0, true},
		{"asked in an earlier term", []uint64{1, 2, 3}, 3, -1, false},
		{"asked in a later term", []uint64{1, 2, 3}, 3, 1, false},
		{"not a voter", []uint64{1, 2, 3}, 4, 0, false},
		{"two of four", []uint64{1, 2, 3, 4}, 3, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, vfs.NewMem())
			r := b.open(7, 1, b.genesis(7, c.voters...), 99)
			b.electBy(r, 2, 3)
			b.sent = nil
			b.shard.Receive(r, request(c.from, uint64(int64(r.Status().Term)+c.later)))
			b.shard.Turn(false)
			answers, beats := b.sentOf(pb.MsgReadIndexResp), b.sentOf(pb.MsgHeartbeat)
			switch {
			case c.atOnce && (len(answers) != 1 || len(beats) > 0 || answers[0].GetIndex() != r.Status().Committed || answers[0].GetTo() != c.from):
				t.Errorf("answered %v, and asked others %d times", answers, len(beats))
			case !c.atOnce && len(answers) > 0:
				t.Errorf("answered %v without asking anybody", answers)
			}
		})
	}
}

// A leader that has committed nothing in its term does not know yet what was committed before.
func TestReadIndexNotBeforeFirstCommit(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	b.campaign()
	b.until("elected", func() bool {
		b.play(r, []uint64{2}, pb.MsgPreVote, pb.MsgVote)
		return r.raft.BasicStatus().RaftState == raft.StateLeader
	})
	if r.Status().Leading {
		t.Fatal("it leads, though nobody has acknowledged its first entry")
	}
	b.sent = nil
	b.shard.Receive(r, request(3, r.raft.BasicStatus().GetTerm()))
	b.shard.Turn(false)
	if a := b.sentOf(pb.MsgReadIndexResp); len(a) > 0 {
		t.Errorf("answered %v", a)
	}
}

// ledTrio is a trio with a leader.
func ledTrio(t *testing.T) (g *trio, leader *Replica) {
	g = newTrio(t, nil)
	g.until("a leader", 200, func() bool {
		i := slices.IndexFunc(g.reps[:], func(r *Replica) bool { return r.Status().Leading })
		if i >= 0 {
			leader = g.reps[i]
		}
		return i >= 0
	})
	for range 5 {
		g.tick()
	}
	return g, leader
}

// The news of a commit waits for company. A follower's read, which needs it, does not wait for it.
func TestReadBringsNewsOfCommit(t *testing.T) {
	g, leader := ledTrio(t)
	w := &outcome{}
	if err := leader.Propose([]byte("value"), w); err != nil {
		t.Fatal(err)
	}
	g.deliver()
	if w.called != 1 || w.err != nil {
		t.Fatalf("the write: %+v", w)
	}
	for i, r := range g.reps {
		if r == leader {
			continue
		}
		done := false
		r.ReadIndex(func(err error) { done = err == nil })
		g.deliver()
		if !done || r.Status().Applied != leader.Status().Applied {
			t.Errorf("member %d: read %v, is at %d of %d", i+1, done, r.Status().Applied, leader.Status().Applied)
		}
	}
}

// A follower's read costs two messages, and a leader's is confirmed by others as ever.
func TestReadOfFollowerAsksLeaderAlone(t *testing.T) {
	g, l := ledTrio(t)
	asked := func(r *Replica) (all, context int) {
		g.lose = func(m *pb.Message) bool {
			if m.GetType() == pb.MsgHeartbeat && len(m.GetContext()) > 0 {
				context++
			}
			return false
		}
		done := false
		before := g.sent[pb.MsgReadIndex] + g.sent[pb.MsgReadIndexResp]
		r.ReadIndex(func(err error) {
			if err != nil {
				t.Error(err)
			}
			done = true
		})
		g.until("read", 10, func() bool { return done })
		return g.sent[pb.MsgReadIndex] + g.sent[pb.MsgReadIndexResp] - before, context
	}
	for _, r := range g.reps {
		all, beats := asked(r)
		if r == l && (all != 0 || beats == 0) || r != l && (all != 2 || beats != 0) {
			t.Errorf("leader %v: %d messages of a follower's read, %d heartbeats that ask", r == l, all, beats)
		}
	}
}

// The trap: a request for a read index was asked again under another id after a while, and only the last one's answer
// was taken. Where an answer takes longer than that, no read was ever answered.
func TestReadOverLongWay(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	beat := func() {
		b.shard.Receive(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)), Commit: new(uint64(GenesisIndex))})
		b.shard.Turn(true)
	}
	beat()
	b.until("follows", func() bool { return r.Status().Leader == 2 })
	b.sent = nil
	var answers []error
	r.ReadIndex(func(err error) { answers = append(answers, err) })
	for range readRetryTicks + 2 {
		beat()
	}
	asked := b.sentOf(pb.MsgReadIndex)
	if len(asked) != 2 {
		t.Fatalf("asked %d times", len(asked))
	}
	answer := func(m *pb.Message) {
		b.shard.Receive(r, &pb.Message{
			Type: pb.MsgReadIndexResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)), Index: new(uint64(GenesisIndex)), Entries: m.GetEntries(),
		})
		b.shard.Turn(false)
	}
	answer(asked[0])
	if len(answers) != 1 || answers[0] != nil {
		t.Fatalf("after the answer to the first request: %v", answers)
	}
	// A later read must not take what was asked for before it began.
	r.ReadIndex(func(err error) { answers = append(answers, err) })
	b.shard.Turn(false)
	answer(asked[1])
	if len(answers) != 1 {
		t.Error("a read was answered by a request that was sent before it")
	}
}
