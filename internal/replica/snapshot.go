package replica

import (
	"fmt"

	"github.com/cleatkv/cleat/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// install begins to put the snapshot of m into the machine. The order is:
// machine first, atomically and durably, then the log's reset, then the responses. If a crash falls between, the machine is ahead of the log and open redoes the
// reset.
func (r *Replica) install(m *pb.Message) {
	r.installing = true
	r.localReads.Store(false)
	r.shard.env.Install(r, m.GetSnapshot().GetData(), func(err error) {
		r.shard.push(event{kind: evInstalled, r: r, message: m, err: err})
	})
}

// installed goes on when the state is in the machine.
func (r *Replica) installed(m *pb.Message, err error, out *turnOutput) {
	at, want := r.cfg.Machine.Applied(), m.GetSnapshot().GetMetadata()
	switch {
	case err != nil:
		r.fail(fmt.Errorf("install snapshot of %s: %w", r.cfg.Name, err))
		return
	case at.Index != want.GetIndex() || at.Term != want.GetTerm():
		r.fail(fmt.Errorf("install snapshot of %s: the state is at %d/%d, announced was %d/%d",
			r.cfg.Name, at.Term, at.Index, want.GetTerm(), want.GetIndex()))
		return
	}
	r.applied, r.appliedTerm = at.Index, at.Term
	r.forgetCovered()
	r.setConf(want.GetConfState())
	r.installing = false
	r.write(m, &wal.Position{Index: at.Index, Term: at.Term}, out)
	waiting := r.behind
	r.behind = nil
	for _, m := range waiting {
		r.submit(m, out)
	}
	out.applied = append(out.applied, r)
}

// KeepLog has the log entries from now on kept for a member that is about to be sent the state, until
// ReportSnapshot: without them it would need another state as soon as it has this one. Owner only.
func (r *Replica) KeepLog(member uint64) {
	if r.kept == nil {
		r.kept = make(map[uint64]uint64)
	}
	r.kept[member] = max(r.applied, r.passed)
}

// Installing tells whether a snapshot is on its way into the machine. Owner only.
func (r *Replica) Installing() bool { return r.installing }

// ReportSnapshot tells Raft how the sending of a snapshot to a member ended. It must be called once
// for each MsgSnap that was handed to Env.Send, or the member is never sent anything again. Owner
// only.
func (r *Replica) ReportSnapshot(member uint64, ok bool) {
	if r.failed != nil {
		return
	}
	delete(r.kept, member)
	status := raft.SnapshotFailure
	if ok {
		status = raft.SnapshotFinish
	}
	r.raft.ReportSnapshot(member, status)
	r.shard.mark(r)
}
