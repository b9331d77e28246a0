package replica

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// The trap: while a member takes in a state, the log goes on; if its beginning is given up meanwhile, the
// member needs another state as soon as it has this one, and under load never gets anywhere.
func TestCompactLeavesWhatMembersNeed(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	m := b.genesis(7, 1, 2, 3)
	r := b.open(7, 1, m, 99)
	b.elect(r)
	term := r.Status().Term
	var silent uint64 // the member that is not heard of
	ack := func(member, index uint64) {
		if member == silent {
			return
		}
		resp := message(pb.MsgAppResp, member, 1, term)
		resp.Index = &index
		b.shard.Receive(r, resp)
	}
	ack(3, r.Status().Applied)
	write := func(n int) {
		for range n {
			o := b.propose(r, "v")
			b.until("written", func() bool {
				st, _ := b.log.State(7)
				ack(2, st.Last)
				return o.called > 0
			})
		}
	}
	first := func() uint64 {
		b.shard.Turn(true)
		if err := m.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		b.shard.Call(r.Compact)
		b.shard.Turn(true)
		st, _ := b.log.State(7)
		return st.First
	}
	hear := func() {
		for range 2 {
			ack(3, 11)
			b.shard.Turn(true)
		}
	}

	write(keepEntries + 500)
	hear()
	if at := first(); at > 12 {
		t.Errorf("member 3 is late, and there; the log begins at %d already", at)
	}
	silent = 3
	for range 3 * activeTicks {
		st, _ := b.log.State(7)
		ack(2, st.Last)
		b.shard.Turn(true)
	}
	r.KeepLog(3)
	kept := r.Status().Applied
	write(keepEntries + 500)
	if at := first(); at != kept+1 {
		t.Errorf("the log begins at %d, and member 3 is sent a state of %d", at, kept)
	}
	r.ReportSnapshot(3, false)
	if at := first(); at <= kept+1 {
		t.Errorf("member 3 is away, and the log begins at %d still", at)
	}
}
