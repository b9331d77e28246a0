package replica

import (
	"fmt"

	"github.com/cleatkv/cleat/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Alone makes a member the only one of its group, by the decision of whoever knows that the others are gone
// for good or stand back: no replica of the group may run here meanwhile, and the others must never speak to
// this one again.
//
// The machine executes all that the log has, also what is not known to be committed: an acknowledged entry
// may be among that, and nobody is left who could say. Membership changes in it are of the old group and
// without effect. The last entry is a new one, of a term that nobody has seen, with the new membership; end
// executes it. Then the machine holds all of it durably, and the returned update makes the log begin there.
//
// Damage of the log ends it early: what is lost there is given up. Doing it again after a crash adds
// another last entry and changes nothing else.
func Alone(log *wal.Log, group wal.GroupID, id uint64, m Machine, end func(at Entry) error) (wal.Update, error) {
	conf := EncodeConf(&pb.ConfState{Voters: []uint64{id}})
	st, ok := log.State(group)
	at := m.Applied()
	if !ok && st.Damage == nil {
		return wal.Update{}, fmt.Errorf("group %d has no log", group)
	}
	if at.Index+1 < st.First {
		return wal.Update{}, fmt.Errorf("%w: the state ends at log entry %d and the log begins at %d", ErrLost, at.Index, st.First)
	}
	term := max(st.Hard.Term, at.Term)
	if ok && follows(log, group, at, &st) {
		last, err := replay(log, group, m, conf, readable(&st, at.Index))
		if err != nil {
			return wal.Update{}, err
		}
		term = max(term, last)
		at = m.Applied()
	}
	at = Entry{Index: at.Index + 1, Term: term + 1, Conf: conf}
	if err := end(at); err != nil {
		return wal.Update{}, fmt.Errorf("end the old membership of group %d: %w", group, err)
	}
	if err := m.Checkpoint(); err != nil {
		return wal.Update{}, err
	}
	return wal.Update{
		Group: group,
		Reset: &wal.Position{Index: at.Index, Term: at.Term},
		Hard:  &wal.HardState{Term: at.Term, Commit: at.Index},
	}, nil
}

// readable is the last log entry before any damage behind what is executed.
func readable(st *wal.State, executed uint64) uint64 {
	if st.Damage != nil {
		for _, lost := range st.Damage.Lost {
			if lost.Last > executed {
				return min(st.Last, lost.First-1)
			}
		}
	}
	return st.Last
}

// replayBytes is about how much of a log is read at a time.
const replayBytes = 4 << 20

// replay has the machine execute the log entries that it has not, up to last, and returns the term of the
// last one.
func replay(log *wal.Log, group wal.GroupID, m Machine, conf []byte, last uint64) (term uint64, err error) {
	var entries []wal.Entry
	var commands [][]byte
	for next := m.Applied().Index + 1; next <= last; {
		if entries, err = log.Entries(entries[:0], group, next, last+1, replayBytes); err != nil {
			return 0, err
		}
		for i := range entries {
			e := &entries[i]
			at := Entry{Index: e.Index, Term: e.Term, Conf: conf}
			if pb.EntryType(e.Type) != pb.EntryNormal || len(e.Data) == 0 {
				err = m.ApplyConf(at)
			} else {
				var h packHeader
				if h, commands, err = openPack(commands[:0], e.Data); err == nil {
					_, err = m.Apply(at, h.stamp, commands)
				}
			}
			if err != nil {
				return 0, fmt.Errorf("execute log entry %d of group %d: %w", at.Index, group, err)
			}
			next, term = e.Index+1, e.Term
		}
	}
	return term, nil
}
