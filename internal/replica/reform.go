package replica

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cleatkv/cleat/internal/wal"
)

// Remains is what a member of a group without a majority says of what it has. See Reform.
type Remains struct {
	Member uint64 `json:"member"`

	// Lost: it lost a part of its log, nobody knows which, and is quarantined for good, durably. Only Commit is told
	// of it beside that.
	Lost bool `json:"lost,omitempty"`
	// Waits says why it is neither lost nor whole: what it lacks may come from others yet.
	Waits string `json:"waits,omitempty"`
	// Frozen: it has its log and its state, whole, and durably said that it never speaks as this member again. All
	// below is as it stays.
	Frozen bool `json:"frozen,omitempty"`

	LastTerm  uint64   `json:"last_term,omitempty"` // of its last log entry
	LastIndex uint64   `json:"last_index,omitempty"`
	Commit    uint64   `json:"commit,omitempty"` // known to be committed; not all that is
	Voters    []uint64 `json:"voters,omitempty"`
	Changing  bool     `json:"changing,omitempty"` // its log may have a change of membership that is not executed, or it is under way
}

// RemainsOf tells what a replica has. What it tells holds as long as it takes no more turns, but is good for a
// first look before. at is where its machine is, in a state that is durable or can be made again from the log.
func RemainsOf(log *wal.Log, group wal.GroupID, id uint64, at Entry) (Remains, error) {
	r := Remains{Member: id}
	st, ok := log.State(group)
	if !ok || st.Damage != nil {
		return r, fmt.Errorf("%w: group %d has no whole log", ErrLost, group)
	}
	conf, err := DecodeConf(at.Conf)
	if err != nil {
		return r, err
	}
	r.LastIndex, r.LastTerm = at.Index, at.Term
	if follows(log, group, at, &st) {
		r.LastIndex = st.Last
		if r.LastTerm, err = log.Term(group, st.Last); err != nil {
			return r, err
		}
	}
	r.Commit = min(max(st.Hard.Commit, at.Index), r.LastIndex)
	r.Voters = slices.Sorted(slices.Values(conf.GetVoters()))
	r.Changing = len(conf.GetVotersOutgoing()) > 0 || changesBehind(log, group, at.Index, r.LastIndex)
	return r, nil
}

// Remains tells what this replica has. Owner only.
func (r *Replica) Remains() (Remains, error) {
	if r.failed != nil || r.installing || r.cfg.Blind {
		return Remains{}, ErrStopped
	}
	return RemainsOf(r.cfg.Log, r.cfg.Group, r.cfg.ID, r.cfg.Machine.Applied())
}

// Verdict is what becomes of a group without a majority. One of the three is set, or none if there is a majority.
type Verdict struct {
	Freeze bool   // its whole members have to freeze themselves
	Source uint64 // the group begins anew from this member
	Why    string // it has to wait
}

// Reform judges whether a group that has no majority of whole members any more, and never will, can begin anew
// from one of them without a loss: if what every quorum acknowledged is known to be on a whole member.
//
// With N voters and quorums of Q, N-Q+1 whole members are enough: every quorum has one of them. The log with the
// greatest last term and index, of those, has all that was ever committed. For what was committed was in a
// quorum, up to an entry e of the term of the leader that committed it. So a whole member has e, and a last term not
// less than that of e; the greatest log has one not less, either. If it is of that term, it is the longer of two logs of
// one leader, so it has e; if it is of a later one, then its leader had e, and everything before its own entries.
//
// What is left of a lost log is not looked at: not even its last term counts. Were it asked, a log that was
// cut could lose to one that a later, deposed leader had begun, without what was committed.
//
// All the whole members have to know of one membership and of no change to it, since a change that was committed is
// known to one of them; and all have to be frozen before one is chosen. A leader among them could take an entry after its answer
// and have it acknowledged by one that is lost only then.
//
// If the whole members are fewer, what was acknowledged can have been on the lost ones alone, and nothing that is
// left tells: then the group waits, for ever if need be.
func Reform(all []Remains) Verdict {
	all = slices.SortedFunc(slices.Values(all), func(a, b Remains) int { return cmp.Compare(a.Member, b.Member) })
	voters, why := votersOf(all)
	if why != "" {
		return Verdict{Why: why}
	}
	var whole []Remains
	var lost []string
	for _, id := range voters {
		i := slices.IndexFunc(all, func(r Remains) bool { return r.Member == id })
		switch {
		case i < 0:
			return Verdict{Why: fmt.Sprintf("replica %d has not said what it has", id)}
		case all[i].Waits != "":
			return Verdict{Why: fmt.Sprintf("replica %d waits: %s", id, all[i].Waits)}
		case all[i].Lost:
			lost = append(lost, fmt.Sprint(id))
		default:
			whole = append(whole, all[i])
		}
	}
	n := len(voters)
	quorum := n/2 + 1
	switch {
	case len(whole) >= quorum:
		return Verdict{}
	case len(whole) < n-quorum+1:
		return Verdict{Why: fmt.Sprintf("replicas %s lost parts of their logs that nobody knows, and were enough to acknowledge something without the others", strings.Join(lost, ", "))}
	case slices.ContainsFunc(whole, func(r Remains) bool { return !r.Frozen }):
		return Verdict{Freeze: true}
	}
	source := slices.MaxFunc(whole, func(a, b Remains) int {
		return cmp.Or(cmp.Compare(a.LastTerm, b.LastTerm), cmp.Compare(a.LastIndex, b.LastIndex), cmp.Compare(b.Member, a.Member))
	})
	for _, r := range all {
		// It follows from the above that there is none; if there is, something else is wrong with a disk.
		if slices.Contains(voters, r.Member) && r.Commit > source.LastIndex {
			return Verdict{Why: fmt.Sprintf("replica %d knows that log entry %d is committed, and the best log that is left, of replica %d, ends at %d", r.Member, r.Commit, source.Member, source.LastIndex)}
		}
	}
	return Verdict{Source: source.Member}
}

// votersOf is the membership that all whole members know, or why there is none.
func votersOf(all []Remains) (voters []uint64, why string) {
	for _, r := range all {
		switch {
		case r.Lost || r.Waits != "" || !slices.Contains(r.Voters, r.Member):
			continue // It does not tell, or has no vote.
		case r.Changing:
			return nil, fmt.Sprintf("replica %d may know of a change of the membership", r.Member)
		case voters == nil:
			voters = r.Voters
		case !slices.Equal(voters, r.Voters):
			return nil, fmt.Sprintf("replicas %v and %v are each told to be all of them", voters, r.Voters)
		}
	}
	if voters == nil {
		return nil, "no replica that has a vote is whole"
	}
	return voters, ""
}
