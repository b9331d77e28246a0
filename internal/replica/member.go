package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// Member is what a leader knows of one member of its group.
type Member struct {
	ID      uint64
	Match   uint64 // its log is known to equal ours up to here
	Learner bool
	Active  bool   // heard of lately
	Snap    bool   // it is being sent a snapshot
	Silent  uint64 // ticks since it was last heard of
}

// activeTicks is how long a member counts as active after it was last heard of.
const activeTicks = 5 * heartbeatTicks

// listMembers asks Raft; only a leader has an answer.
func (r *Replica) listMembers() []Member {
	if r.lead != r.cfg.ID {
		r.activeAt = nil
		return nil
	}
	if r.activeAt == nil {
		r.activeAt = make(map[uint64]uint64)
	}
	var all []Member
	r.raft.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		// Raft clears RecentActive when it has looked whether there is a quorum, and sets it
		// again with the next answer: a moment without says nothing.
		if pr.RecentActive || id == r.cfg.ID {
			r.activeAt[id] = r.ticks
		}
		at, heard := r.activeAt[id] // Never: since this member leads, at most.
		all = append(all, Member{
			ID: id, Match: pr.Match, Learner: typ == raft.ProgressTypeLearner,
			Active: heard && r.ticks-at <= activeTicks, Snap: pr.State == tracker.StateSnapshot,
			Silent: r.ticks - at,
		})
	})
	slices.SortFunc(all, func(a, b Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all
}

// ProposeConf offers a membership change. Only a leader's is taken; whether it came about shows in
// Status.Conf. Owner only.
func (r *Replica) ProposeConf(cc *pb.ConfChangeV2) error {
	if r.failed != nil || r.lead != r.cfg.ID {
		return ErrNotLeader
	}
	err := r.raft.ProposeConfChange(cc)
	r.shard.mark(r)
	return err
}

// Transfer asks the leader to hand over to another member. Owner only.
func (r *Replica) Transfer(to uint64) {
	if r.failed == nil && r.lead == r.cfg.ID {
		r.raft.TransferLeader(to)
		r.shard.mark(r)
	}
}

// Unreachable tells Raft that a message to the member was lost. Owner only.
func (r *Replica) Unreachable(member uint64) {
	if r.failed == nil {
		r.raft.ReportUnreachable(member)
	}
}

// PeerGone is told that the process of a member is certainly gone. If it led, the group need not
// wait for a timeout: a quorum of followers that forgets its leader elects another one in one
// round trip. Owner only.
func (r *Replica) PeerGone(member uint64) {
	if r.failed != nil || r.lead != member || r.lead == 0 {
		return
	}
	if err := r.raft.ForgetLeader(); err == nil {
		r.rushAt = r.ticks + 1 + rushStagger*r.rank(member)
		r.shard.mark(r)
	}
}

// rushStagger is by how many ticks the members campaign one after another when their leader died:
// all at once they would split the votes, and wait for a timeout after all.
const rushStagger = 3

// rank is the place of this member among the voters that remain without another one.
func (r *Replica) rank(without uint64) (n uint64) {
	for _, id := range r.conf.GetVoters() {
		if id != without && id < r.cfg.ID {
			n++
		}
	}
	return n
}

// CampaignFirst has the first member of a new group campaign now, if it has no leader yet: the members
// start one after another, and a tick is long. Owner only.
func (r *Replica) CampaignFirst() {
	if r.failed == nil && r.cfg.First && r.applied == GenesisIndex {
		r.campaignFirst()
		r.shard.mark(r)
	}
}

// campaignFirst lets the first member of a new group, and one that saw its leader die, campaign
// without waiting for a timeout.
func (r *Replica) campaignFirst() {
	if r.lead != 0 {
		r.rushAt = 0
	}
	fresh := r.cfg.First && r.applied == GenesisIndex
	rush := r.rushAt != 0 && r.ticks >= r.rushAt
	if (!fresh && !rush) || r.lead != 0 || !slices.Contains(r.conf.GetVoters(), r.cfg.ID) {
		return
	}
	r.rushAt = 0
	if err := r.raft.Campaign(); err != nil {
		r.cfg.Logger.Debug("campaign: "+err.Error(), "group", r.cfg.Name)
	}
}
