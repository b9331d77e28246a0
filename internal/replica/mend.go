package replica

import (
	"fmt"
	"slices"

	"github.com/cleatkv/cleat/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Mend is the repair of a suspect: a member whose log is damaged in places of which it is known what stood there. It
// does not run. Mended, it goes on under its id, for it is as it was:
//
//   - entries up to the state of its machine are not needed any more;
//   - others have the entry of that index and term: Raft has at most one, so it is the same;
//   - or so many others lack it, and can not get it from a leader that counts on this member's acknowledgement, that
//     it is not committed and never will be as it stands there: then it is dropped, and all behind it.
//
// The last needs N-Q+1 of N voters with quorums of Q: every quorum has one of them. Each of them is in a later term
// than the suspect ever was, so a leader that the suspect has acknowledged something to can not reach a quorum any
// more; and the suspect goes on in that later term itself. They all know of one membership, and of no
// change to it that is not executed: a change that was committed would be known to one of them.
//
// If neither comes about the suspect waits.
type Mend struct {
	group wal.GroupID
	id    uint64
	at    Entry // of the machine; what is repaired begins there
	hard  wal.HardState
	log   []wal.Entry // behind at
	lost  []bool      // of log: not found yet
	folds []wal.LostRange

	confPending bool // the log has a change of membership
	dropped     bool
	nacks       map[uint64]bool // members that lack the first lost entry
}

// Ask is for log entries from Index to Last of one Term. Above is the latest term that the suspect was in.
type Ask struct {
	Index uint64 `json:"index"`
	Last  uint64 `json:"last"`
	Term  uint64 `json:"term"`
	Above uint64 `json:"above"`
}

// NewMend begins with what is left of a damaged log, for a member whose machine is at a position that is durable.
func NewMend(log *wal.Log, group wal.GroupID, id uint64, at Entry) (*Mend, error) {
	st, ok := log.State(group)
	if !ok || st.Damage == nil || st.Damage.Unknown {
		return nil, fmt.Errorf("%w: it is not known what its log has lost", ErrLost)
	}
	if at.Index+1 < st.First {
		return nil, fmt.Errorf("%w: the state ends at log entry %d and the log begins at %d", ErrLost, at.Index, st.First)
	}
	m := &Mend{group: group, id: id, at: at, hard: st.Hard, folds: st.Damage.Lost, nacks: make(map[uint64]bool)}
	for next := at.Index + 1; next <= st.Last; {
		if i := slices.IndexFunc(st.Damage.Lost, func(l wal.LostRange) bool { return l.First <= next && next <= l.Last }); i >= 0 {
			for l := st.Damage.Lost[i]; next <= l.Last; next++ {
				m.log, m.lost = append(m.log, wal.Entry{Index: next, Term: l.Term}), append(m.lost, true)
			}
			continue
		}
		end := st.Last + 1
		for _, l := range st.Damage.Lost {
			if l.First > next {
				end = min(end, l.First)
			}
		}
		entries, err := log.Entries(nil, group, next, end, replayBytes)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			m.confPending = m.confPending || pb.EntryType(e.Type) != pb.EntryNormal
			m.log, m.lost = append(m.log, e), append(m.lost, false)
			next = e.Index + 1
		}
	}
	return m, nil
}

// Wants is what to ask for next; false if nothing is missing any more.
func (m *Mend) Wants() (a Ask, more bool) {
	i := slices.Index(m.lost, true)
	if i < 0 {
		return a, false
	}
	a = Ask{Index: m.log[i].Index, Last: m.log[i].Index, Term: m.log[i].Term, Above: m.hard.Term}
	for _, e := range m.log[i+1:] {
		if e.Term != a.Term || !m.lost[e.Index-m.log[0].Index] {
			break
		}
		a.Last = e.Index
	}
	return a, true
}

// Restore takes entries that another member has.
func (m *Mend) Restore(entries []wal.Entry) {
	for _, e := range entries {
		i := int(e.Index - m.at.Index - 1)
		if e.Index <= m.at.Index || i >= len(m.log) || !m.lost[i] || m.log[i].Term != e.Term || wal.HashData(e.Data) != e.Hash {
			continue
		}
		m.log[i], m.lost[i] = e, false
		m.confPending = m.confPending || pb.EntryType(e.Type) != pb.EntryNormal
		clear(m.nacks) // They were about another entry.
	}
}

// Nack notes that a member never had the first entry that is wanted, and drops it when enough have said so.
func (m *Mend) Nack(a Ask, member uint64, conf *pb.ConfState) {
	want, more := m.Wants()
	voters := m.voters()
	if !more || a.Index != want.Index || a.Term != want.Term || a.Above != want.Above || member == m.id ||
		want.Index <= m.hard.Commit || m.confPending || !slices.Contains(voters, member) ||
		len(conf.GetVotersOutgoing()) > 0 || !sameIDs(voters, conf.GetVoters()) {
		return
	}
	m.nacks[member] = true
	n := len(voters)
	if quorum := n/2 + 1; len(m.nacks) >= n-quorum+1 {
		keep := want.Index - m.at.Index - 1
		m.log, m.lost, m.dropped = m.log[:keep], m.lost[:keep], true
	}
}

// voters are those of the membership that this member knows, nil while it is changing.
func (m *Mend) voters() []uint64 {
	conf, err := DecodeConf(m.at.Conf)
	if err != nil || len(conf.GetVotersOutgoing()) > 0 {
		return nil
	}
	return conf.GetVoters()
}

func sameIDs(a, b []uint64) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// Update repairs the log, when nothing is wanted any more. dropped is the first entry that was dropped, 0 if all are
// there.
func (m *Mend) Update() (u wal.Update, dropped uint64, err error) {
	for _, l := range m.folds {
		if l.Fold == 0 || l.First <= m.at.Index || l.Last > m.at.Index+uint64(len(m.log)) {
			continue
		}
		fold := uint64(0)
		for _, e := range m.log[l.First-m.at.Index-1 : l.Last-m.at.Index] {
			fold = wal.FoldHash(fold, e.Hash)
		}
		if fold != l.Fold {
			return u, 0, fmt.Errorf("%w: log entries %d to %d of others are not those that were lost", ErrLost, l.First, l.Last)
		}
	}
	hard := m.hard
	hard.Commit = max(min(hard.Commit, m.at.Index+uint64(len(m.log))), m.at.Index)
	if m.dropped {
		dropped = m.at.Index + uint64(len(m.log)) + 1
		hard.Term, hard.Vote = hard.Term+1, 0
	}
	return wal.Update{Group: m.group, Reset: &wal.Position{Index: m.at.Index, Term: m.at.Term}, Entries: m.log, Hard: &hard}, dropped, nil
}

// mendBytes bounds the payloads of one answer.
const mendBytes = 1 << 20

// Wanted gives the entries that are asked for, as far as this server's log has them; any goroutine.
func Wanted(log *wal.Log, group wal.GroupID, a Ask) []wal.Entry {
	st, ok := log.State(group)
	if !ok || a.Index < st.First || a.Index > st.Last {
		return nil
	}
	entries, err := log.Entries(nil, group, a.Index, min(a.Last, st.Last)+1, mendBytes)
	if err != nil {
		return nil // What is damaged here as well, others may have.
	}
	for i := range entries {
		if entries[i].Term != a.Term {
			return entries[:i]
		}
	}
	return entries
}

// NeverHad tells whether this member never had the first entry that is asked for, and can not get it any more from
// a leader of the suspect's terms. conf is the membership that it knows. If early, it could say so in a later
// term; see Outgrow. Any goroutine; it counts only when all that the log took before is durable.
func (r *Replica) NeverHad(a Ask) (conf *pb.ConfState, lacks, early bool) {
	status := r.Status()
	st, ok := r.cfg.Log.State(r.cfg.Group)
	if !ok || status.Stopped != nil || st.Damage != nil || a.Index < st.First || !slices.Contains(status.Conf.GetVoters(), r.cfg.ID) {
		return nil, false, false
	}
	if term, err := r.cfg.Log.Term(r.cfg.Group, a.Index); a.Index <= st.Last && (err != nil || term == a.Term) {
		return nil, false, false
	}
	if st.Hard.Term <= a.Above {
		return nil, false, true
	}
	// The status is of a turn that is over: what it does not know of yet is in the log.
	return status.Conf, !changesBehind(r.cfg.Log, r.cfg.Group, status.Applied, st.Last), false
}

// changesBehind tells whether the log may have a change of membership behind an entry.
func changesBehind(log *wal.Log, group wal.GroupID, applied, last uint64) bool {
	for next := applied + 1; next <= last; {
		entries, err := log.Entries(nil, group, next, last+1, mendBytes)
		if err != nil || len(entries) == 0 {
			return true
		}
		for _, e := range entries {
			if pb.EntryType(e.Type) != pb.EntryNormal {
				return true
			}
		}
		next = entries[len(entries)-1].Index + 1
	}
	return false
}

// Outgrow brings this member into a later term than one that a suspect was in, as if the suspect asked for a vote
// there: it is refused, since it shows no log, and the term stays. A member that hears of a leader does not take notice.
// Owner only.
func (r *Replica) Outgrow(term, suspect uint64) {
	if r.failed == nil && r.term <= term {
		r.step(&pb.Message{Type: pb.MsgVote.Enum(), From: &suspect, To: &r.cfg.ID, Term: new(term + 1), Index: new(uint64(0)), LogTerm: new(uint64(0))})
		r.shard.mark(r)
	}
}
