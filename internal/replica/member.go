package replica

import (
	"cmp"
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
		return nil
	}
	var all []Member
	r.raft.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		at := r.ticks
		if id != r.cfg.ID {
			at = r.paceOf(id).heard
		}
		all = append(all, Member{
			ID: id, Match: pr.Match, Learner: typ == raft.ProgressTypeLearner,
			Active: at != 0 && r.ticks-at <= activeTicks, Snap: pr.State == tracker.StateSnapshot,
			Silent: r.ticks - at,
		})
	})
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// cutOff tells whether this member has been without the others for a while: a leader without a majority,
// any other without the leader. What a leader takes now would most likely be lost when another one is
// elected, and what is sent to a silent one most likely finds nobody.
func (r *Replica) cutOff(members []Member) bool {
	if r.lead != r.cfg.ID {
		return r.lead != 0 && r.ticks-r.heardLead > activeTicks
	}
	if len(members) == 0 || r.ticks-r.heardLead <= activeTicks {
		return false // Alone by design; or elected a moment ago, by a majority.
	}
	return !r.heardOfMajority(members, activeTicks)
}

// heardOfMajority tells whether messages of a majority came in during the last ticks.
func (r *Replica) heardOfMajority(members []Member, ticks uint64) bool {
	heard := func(voters []uint64) bool {
		n := 0
		for _, m := range members {
			if m.Silent <= ticks && slices.Contains(voters, m.ID) {
				n++
			}
		}
		return n > len(voters)/2
	}
	return heard(r.conf.GetVoters()) && (len(r.conf.GetVotersOutgoing()) == 0 || heard(r.conf.GetVotersOutgoing()))
}

// stepAside is for a leader that hears of no majority any more, but may still be heard: as long as it
// is, nobody else campaigns. It asks one member after the other to. Raft itself would make it step
// down only when it has looked twice, and let the others wait for a timeout after that.
func (r *Replica) stepAside() {
	if r.lead != r.cfg.ID || r.ticks-r.heardLead <= electionTicks || r.ticks%heartbeatTicks != 0 {
		return
	}
	members := r.listMembers()
	if len(members) < 2 || r.heardOfMajority(members, electionTicks) {
		return
	}
	// The one with the longest log first: only who has all that is committed is elected.
	slices.SortStableFunc(members, func(a, b Member) int { return cmp.Compare(b.Match, a.Match) })
	members = slices.DeleteFunc(members, func(m Member) bool { return m.ID == r.cfg.ID || m.Learner })
	if len(members) == 0 {
		return
	}
	to := members[r.ticks/heartbeatTicks%uint64(len(members))].ID
	m := &pb.Message{Type: pb.MsgTimeoutNow.Enum(), From: &r.cfg.ID, To: &to, Term: new(r.term)}
	r.shard.out.messages = append(r.shard.out.messages, Outgoing{From: r, Message: m})
}

// ProposeConf offers a membership change. Only a leader's is taken; whether it came about shows in
// Status.Conf. Owner only.
func (r *Replica) ProposeConf(cc *pb.ConfChangeV2) error {
	if r.failed != nil || r.lead != r.cfg.ID {
		return ErrNotLeader
	}
	defer r.rescue()
	err := r.raft.ProposeConfChange(cc)
	r.shard.mark(r)
	return err
}

// Transfer asks the leader to hand over to another member. Owner only.
func (r *Replica) Transfer(to uint64) {
	defer r.rescue()
	if r.failed == nil && r.lead == r.cfg.ID {
		r.raft.TransferLeader(to)
		r.shard.mark(r)
	}
}

// Claim asks the leader to hand over to this member. Owner only.
func (r *Replica) Claim() {
	defer r.rescue()
	if r.failed == nil && r.lead != 0 && r.lead != r.cfg.ID {
		r.raft.TransferLeader(r.cfg.ID)
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

// openedRush is how long a member that was opened waits for a leader to be heard of before it campaigns, in
// ticks. All members may have been restarted together, and then none would be heard of before an
// election timeout. A leader that lives is not disturbed: its followers refuse the pre-vote.
const openedRush = 3

// slot is when this member's turn to rush comes, in ticks. The groups of a server begin with different
// members, so that their leaders are spread.
func (r *Replica) slot() uint64 {
	n := uint64(len(r.conf.GetVoters()))
	return (r.rank(0) + uint64(r.cfg.Group)) % max(n, 1) * rushStagger
}

// CampaignFirst has the first member of a new group campaign now, if it has no leader yet: the members
// start one after another, and a tick is long. Owner only.
func (r *Replica) CampaignFirst() {
	defer r.rescue()
	if r.failed == nil && r.cfg.First && r.applied == GenesisIndex {
		r.campaignFirst()
		r.shard.mark(r)
	}
}

// campaignFirst lets the first member of a new group, one that was just opened, and one that saw its leader
// die, campaign without waiting for a timeout.
func (r *Replica) campaignFirst() {
	if r.lead != 0 {
		r.rushAt, r.led = 0, true
	}
	fresh := r.cfg.First && r.applied == GenesisIndex
	rush := r.rushAt != 0 && r.ticks >= r.rushAt
	if (!fresh && !rush) || r.lead != 0 || !slices.Contains(r.conf.GetVoters(), r.cfg.ID) {
		return
	}
	r.rushAt = 0
	if rush && !r.led && r.ticks < 2*electionTicks { // The others may not have been there yet.
		r.rushAt = r.ticks + rushStagger*uint64(len(r.conf.GetVoters()))
	}
	if err := r.raft.Campaign(); err != nil {
		r.cfg.Logger.Debug("campaign: "+err.Error(), "group", r.cfg.Name)
	}
}

// standIn campaigns instead of a member that wants to and cannot be elected, since it lacks entries that this one
// has: so whoever would be elected need not wait for its turn.
func (r *Replica) standIn(m *pb.Message) {
	leaderless := r.lead == 0 || r.lead != r.cfg.ID && r.ticks-r.heardLead > electionTicks
	if m.GetType() != pb.MsgPreVote || !leaderless || r.failed != nil || r.cfg.Blind || !slices.Contains(r.conf.GetVoters(), r.cfg.ID) {
		return
	}
	last, err := r.log.LastIndex()
	if err != nil {
		return
	}
	term, err := r.log.Term(last)
	if err != nil || m.GetLogTerm() > term || m.GetLogTerm() == term && m.GetIndex() >= last {
		return
	}
	if err := r.raft.Campaign(); err != nil {
		r.cfg.Logger.Debug("campaign: "+err.Error(), "group", r.cfg.Name)
	}
}
