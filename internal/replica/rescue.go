package replica

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
)

// amnesia looks whether a message shows that this member does not have what it once acknowledged. A
// leader tells a member to commit no more than that member has acknowledged; if its log ends before, the
// disk has lost something, or is that of a backup. Raft would panic. It may have forgotten votes as well, so
// it must not speak under its id again.
func (r *Replica) amnesia(m *pb.Message) error {
	if m.GetType() != pb.MsgHeartbeat || m.GetCommit() <= r.applied || m.GetTerm() < r.term || r.installing {
		return nil
	}
	st, ok := r.cfg.Log.State(r.cfg.Group)
	if ok && m.GetCommit() <= st.Last {
		return nil
	}
	return fmt.Errorf("%w: it acknowledged log entries up to %d or more, and its log ends at %d; is the disk an older one?",
		ErrLost, m.GetCommit(), st.Last)
}

// logFailure is what raftLog panics with when the log cannot give back what it holds: Raft has no other
// way out of there.
type logFailure struct{ err error }

// rescue stops the replica, and no other, if its log failed under Raft's hands. It is deferred by whatever
// calls into Raft.
func (r *Replica) rescue() {
	switch p := recover().(type) {
	case nil:
	case logFailure:
		r.fail(fmt.Errorf("its log cannot be read: %w", p.err))
	default:
		panic(p)
	}
}
