package replica

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// The trap: a leader that hears of nobody leads until Raft has looked twice, and what it takes until then is
// lost or not, nobody knows. It must hold back soon, and ask others to campaign who may hear it still.
func TestLeaderWithoutMajorityStepsAside(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	b.elect(r)
	b.sent = nil
	began := r.ticks
	for !r.Status().CutOff {
		b.shard.Turn(true)
		if r.ticks-began > activeTicks+2 {
			t.Fatalf("not cut off after %d ticks without a word", r.ticks-began)
		}
	}
	if err := r.Propose([]byte("x"), &outcome{}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("took a command: %v", err)
	}
	asked := map[uint64]bool{}
	for r.ticks-began < electionTicks+3*heartbeatTicks {
		b.shard.Turn(true)
		for _, o := range b.sent {
			if o.Message.GetType() == pb.MsgTimeoutNow {
				asked[o.Message.GetTo()] = true
			}
		}
		b.sent = nil
	}
	if !asked[2] || !asked[3] {
		t.Errorf("asked to take over: %v", asked)
	}
}

// A follower that hears nothing of its leader says so, before its election timeout, and that it is all right
// again with the next heartbeat.
func TestFollowerWithoutLeaderSaysSo(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	beat := func() {
		b.shard.Receive(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5)), Commit: new(uint64(GenesisIndex))})
	}
	beat()
	b.until("follows", func() bool { return r.Status().Leader == 2 })
	for i := range activeTicks + 1 {
		if r.Status().CutOff {
			t.Fatalf("cut off after %d ticks", i)
		}
		b.shard.Turn(true)
	}
	if st := r.Status(); !st.CutOff || st.Leader != 2 {
		t.Fatalf("%+v", st)
	}
	beat()
	b.until("is back", func() bool { return !r.Status().CutOff })
}
