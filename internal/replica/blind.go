package replica

import (
	"fmt"

	"github.com/cleatkv/cleat/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// A blind member has its log, whole, and not its state: the disk spoiled that, or it is gone. What it has acknowledged
// and voted for is in its log, so it goes on to append and to vote under its id, and counts for a majority. Nothing
// else: it executes nothing, answers no read and never leads. To Raft it is a member that does not know the
// membership yet; only who campaigns or leads needs that, and who does not find itself there never campaigns.
//
// The state comes from another member by a way of its own (package cluster), since Raft sends one only to a member
// whose log ends too early. Any state will do that the log goes on from, whoever has it: what was executed is
// committed. Then the member is closed, and opened again with its state, see Fits.
//
// Meanwhile its log grows, and is bounded: blindEntries stay, and what comes while a state is on its way (KeepLog).
const blindEntries = 16 * keepEntries

// startOf is where a replica begins: where its machine is, or, for a blind one, where its log begins.
func startOf(cfg *Config, st *wal.State) Entry {
	if cfg.Blind {
		return Entry{Index: st.Snapshot.Index, Term: st.Snapshot.Term}
	}
	return cfg.Machine.Applied()
}

// forBlind tells whether a message means something to a blind member: not a demand to lead, nor a state by the way
// that replaces the log.
func forBlind(m *pb.Message) bool {
	return m.GetType() != pb.MsgTimeoutNow && m.GetType() != pb.MsgSnap
}

// Blind tells whether this member has its log and not its state. Any goroutine.
func (r *Replica) Blind() bool { return r.cfg.Blind }

// passOver takes note of committed entries without executing them.
func (r *Replica) passOver(entries []*pb.Entry) {
	if n := len(entries); n > 0 {
		r.passed = max(r.passed, entries[n-1].GetIndex())
	}
}

// compactBlind bounds the log of a blind member.
func (r *Replica) compactBlind() {
	upTo := r.passed - min(r.passed, blindEntries)
	for _, index := range r.kept { // order: the least counts
		upTo = min(upTo, index)
	}
	r.compactTo(upTo)
}

// GiveUpKept lets go of all log entries that are kept for a state on its way to this blind member: it may come too
// late then, and another one has to be asked for. Owner only.
func (r *Replica) GiveUpKept() { clear(r.kept) }

// Fits tells whether a member with the log may go on from a state at that position: nil, or why not.
func Fits(log *wal.Log, group wal.GroupID, at Entry) error {
	st, ok := log.State(group)
	switch {
	case !ok:
		return fmt.Errorf("group %d has no log", group)
	case st.Damage != nil:
		return st.Damage
	case at.Index+1 < st.First:
		return fmt.Errorf("%w: the state ends at log entry %d and the log begins at %d", ErrStateLost, at.Index, st.First)
	}
	return nil
}
