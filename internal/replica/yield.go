package replica

import (
	"cmp"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// A leader executes only what its own disk has, so a disk that stands still holds the group up although a majority
// has everything. Then the lead goes to a member whose disk is quicker; this one stays a follower, which nobody waits for.
//
// Only what is committed without this leader tells that others are quicker: if all disks are slow, or the
// majority needs this one, the lead stays where it is.
const (
	// stillTicks is how long no write finishes until the disk counts as standing still.
	stillTicks = 10
	// slowMax is what heldUp may come to. It grows by one in each tick that finds something committed that this
	// leader's disk does not have, and shrinks by heldUpBack in each other: a disk that is the slowest for most of
	// the time reaches it, one of three equal disks never does.
	slowMax    = 20
	heldUpBack = 2
)

// diskStill tells for how many ticks no write of the shard has finished, though there are some under way.
func (s *Shard) diskStill() uint64 {
	if s.writes == 0 {
		return 0
	}
	return s.ticks.Load() - s.wrote
}

// writeBegun and writeDone keep the book for diskStill.
func (s *Shard) writeBegun() {
	if s.writes == 0 {
		s.wrote = s.ticks.Load()
	}
	s.writes++
}

func (s *Shard) writeDone() {
	s.writes--
	s.wrote = s.ticks.Load()
}

// yield is called each tick. It hands the lead over if the group waits for this member's disk.
func (r *Replica) yield() {
	if r.lead != r.cfg.ID {
		r.heldUp = 0
		return
	}
	if r.appends == 0 || !r.committedWithout() {
		r.heldUp = max(0, r.heldUp-heldUpBack)
		return
	}
	r.heldUp++
	if r.heldUp <= slowMax && r.shard.diskStill() < stillTicks || r.raft.BasicStatus().LeadTransferee != 0 {
		return
	}
	if to := r.quicker(); len(to) > 0 {
		// The next one, should this one not take the lead.
		r.Transfer(to[r.yields%uint64(len(to))])
		r.yields++
		r.heldUp = 0
	}
}

// committedWithout tells whether a majority of disks has something that this leader's has not.
func (r *Replica) committedWithout() bool {
	commit, behind := r.raft.BasicStatus().GetCommit(), false
	r.raft.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		behind = behind || id == r.cfg.ID && pr.Match < commit
	})
	return behind
}

// quicker lists the voters that have all that is committed and were heard of lately, those with most first.
func (r *Replica) quicker() []uint64 {
	commit := r.raft.BasicStatus().GetCommit()
	members := slices.DeleteFunc(r.listMembers(), func(m Member) bool {
		return m.ID == r.cfg.ID || m.Match < commit || !m.Active || !slices.Contains(r.conf.GetVoters(), m.ID)
	})
	slices.SortStableFunc(members, func(a, b Member) int { return cmp.Compare(b.Match, a.Match) })
	all := make([]uint64, len(members))
	for i, m := range members {
		all[i] = m.ID
	}
	return all
}
