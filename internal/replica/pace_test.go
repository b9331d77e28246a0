package replica

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// A member that stood still for some seconds answers all heartbeats of that time at once. It must
// not be sent the same entries once for each: that was hundreds of megabytes, and the group's leader
// built them for ten seconds.
func TestStoppedMemberIsNotFlooded(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	m := b.genesis(7, 1, 2, 3)
	r := b.open(7, 1, m, 99)
	b.elect(r)

	var beats []*pb.Message // for member 3, which is silent
	deliver := func() {
		sent := b.sent
		b.sent = nil
		for _, o := range sent {
			msg := o.Message
			if msg.GetTo() == 3 {
				if msg.GetType() == pb.MsgHeartbeat {
					beats = append(beats, msg)
				}
				continue
			}
			resp := &pb.Message{From: msg.To, To: msg.From, Term: msg.Term}
			switch msg.GetType() {
			case pb.MsgApp:
				resp.Type = pb.MsgAppResp.Enum()
				resp.Index = new(msg.GetIndex() + uint64(len(msg.GetEntries())))
			case pb.MsgHeartbeat:
				resp.Type, resp.Context = pb.MsgHeartbeatResp.Enum(), msg.Context
			default:
				continue
			}
			b.shard.Receive(r, resp)
		}
	}
	value := strings.Repeat("v", 10_000)
	for range 50 {
		o := b.propose(r, value)
		b.until("acknowledged", func() bool { deliver(); return o.called > 0 })
	}
	const rounds = 2000
	for range rounds {
		read := false
		r.ReadIndex(func(err error) { read = err == nil })
		b.until("read", func() bool { deliver(); return read })
	}
	if len(beats) > 4*beatsMax {
		t.Errorf("%d heartbeats were sent to a member that answered none", len(beats))
	}

	// The same number of answers, as if none had been held back, a while later.
	for range heartbeatTicks {
		b.shard.Turn(true)
	}
	b.sent = nil
	for range rounds {
		b.shard.Receive(r, &pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: new(uint64(3)), To: new(uint64(1)), Term: new(r.Status().Term)})
	}
	b.shard.Turn(false)
	if n := entriesTo(b.sent, 3); n == 0 || n > 100 {
		t.Errorf("%d entries were sent to a member that lacks 50", n)
	}
	// What was held back, or lost, is sent again after a while.
	for range heartbeatTicks {
		b.shard.Turn(true)
	}
	b.sent = nil
	b.shard.Receive(r, &pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: new(uint64(3)), To: new(uint64(1)), Term: new(r.Status().Term)})
	b.shard.Turn(false)
	if entriesTo(b.sent, 3) == 0 {
		t.Error("a lost message is never sent again")
	}
}

func entriesTo(sent []Outgoing, member uint64) (n int) {
	for _, o := range sent {
		if o.Message.GetTo() == member && o.Message.GetType() == pb.MsgApp {
			n += len(o.Message.GetEntries())
		}
	}
	return n
}

// Members hear of a commit with the next entries, or when whoever drives the shard says so, and not in
// a message of its own at once.
func TestNewsOfCommitTravelsWithEntries(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	b.elect(r)
	b.shard.SendLate()

	var committed, alone uint64 // told with entries, and without
	deliver := func() {
		sent := b.sent
		b.sent = nil
		for _, o := range sent {
			m := o.Message
			if m.GetTo() != 2 || m.GetType() != pb.MsgApp {
				continue
			}
			if len(m.GetEntries()) == 0 {
				alone = max(alone, m.GetCommit())
				continue
			}
			committed = max(committed, m.GetCommit())
			b.shard.Receive(r, &pb.Message{
				Type: pb.MsgAppResp.Enum(), From: m.To, To: m.From, Term: m.Term,
				Index: new(m.GetIndex() + uint64(len(m.GetEntries()))),
			})
		}
	}
	deliver()
	alone = 0
	var last uint64
	for range 5 {
		o := b.propose(r, "v")
		b.until("acknowledged", func() bool { deliver(); return o.called > 0 })
		if committed < last {
			t.Errorf("entries tell of commit %d after %d", committed, last)
		}
		last = r.Status().Committed
	}
	if alone != 0 {
		t.Errorf("commit %d was told alone", alone)
	}
	b.shard.SendLate()
	deliver()
	if alone != last {
		t.Errorf("told late of commit %d instead of %d", alone, last)
	}
	alone = 0
	b.shard.SendLate()
	deliver()
	if alone != 0 {
		t.Error("told twice")
	}
}
