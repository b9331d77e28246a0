package replica

import (
	"fmt"

	"github.com/cleatkv/cleat/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// collect takes what Raft wants done: log writes into out.updates, messages into the transport's
// outbox, applies aside for applyCommitted. It is called again after applies, until nothing is
// left.
func (r *Replica) collect(out *turnOutput) {
	defer r.rescue()
	for r.failed == nil && r.raft.HasReady() {
		rd := r.raft.Ready()
		if rd.SoftState != nil {
			r.noteLeader(rd.SoftState)
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			r.noteTerm(rd.HardState.GetTerm())
		}
		for _, rs := range rd.ReadStates {
			r.readConfirmed(rs.RequestCtx, rs.Index)
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				r.submit(m, out)
			case raft.LocalApplyThread:
				r.applies = append(r.applies, m)
			default:
				if !r.holdBack(m) {
					out.messages = append(out.messages, Outgoing{From: r, Message: m})
				}
			}
		}
	}
}

// submit turns a MsgStorageAppend into one WAL update. Its responses are delivered after the write
// is durable, in order, and never before. A snapshot goes into the machine first, in the
// background; what Raft wants written meanwhile waits behind it.
func (r *Replica) submit(m *pb.Message, out *turnOutput) {
	switch {
	case r.installing:
		r.behind = append(r.behind, m)
	case !raft.IsEmptySnap(m.GetSnapshot()):
		r.install(m)
	default:
		r.write(m, nil, out)
	}
}

// write submits the update of m, behind a reset of the log if reset is set.
func (r *Replica) write(m *pb.Message, reset *wal.Position, out *turnOutput) {
	u := wal.Update{Group: r.cfg.Group, Reset: reset}
	for _, e := range m.GetEntries() {
		u.Entries = append(u.Entries, fromRaft(e))
	}
	r.noteAppended(m.GetEntries())
	// All three fields are set together, or none.
	if m.Term != nil {
		u.Hard = &wal.HardState{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
	}
	if u.Reset == nil && len(u.Entries) == 0 && len(m.GetResponses()) == 0 && r.sameVote(u.Hard) {
		// Only the commit index moved. It need not be durable, and travels with the next write.
		return
	}
	if u.Hard != nil {
		r.log.hard.Term, r.log.hard.Vote = &u.Hard.Term, &u.Hard.Vote
	}
	r.appends++
	out.updates = append(out.updates, u)
	out.writers = append(out.writers, writer{r: r, responses: m.GetResponses()})
}

func (r *Replica) sameVote(h *wal.HardState) bool {
	return h == nil || h.Term == r.log.hard.GetTerm() && h.Vote == r.log.hard.GetVote()
}

// written is called when a submitted update is durable.
func (r *Replica) written(responses []*pb.Message, out *turnOutput) {
	r.appends--
	r.deliver(responses, out)
}

// deliver sends the responses of local storage work to where they belong: back into Raft, or to
// other members.
func (r *Replica) deliver(responses []*pb.Message, out *turnOutput) {
	for _, m := range responses {
		if m.GetTo() == r.cfg.ID {
			r.step(m)
		} else {
			out.messages = append(out.messages, Outgoing{From: r, Message: m})
		}
	}
}

// applyCommitted executes the committed entries that collect set aside.
func (r *Replica) applyCommitted(out *turnOutput) {
	defer r.rescue()
	for len(r.applies) > 0 && r.failed == nil {
		m := r.applies[0]
		r.applies[0] = nil
		r.applies = r.applies[1:]
		if r.cfg.Blind {
			r.passOver(m.GetEntries())
			r.deliver(m.GetResponses(), out)
			continue
		}
		for _, e := range m.GetEntries() {
			if err := r.apply(e); err != nil {
				r.fail(err)
				return
			}
		}
		out.applied = append(out.applied, r)
		r.deliver(m.GetResponses(), out)
	}
	if len(r.applies) == 0 {
		r.applies = nil
	}
	if len(r.inflight) > 0 {
		r.dropReplaced()
	}
}

// apply executes one committed entry and answers those who wait for it.
func (r *Replica) apply(e *pb.Entry) error {
	if e.GetIndex() <= r.applied {
		return nil
	}
	at := Entry{Index: e.GetIndex(), Term: e.GetTerm(), Conf: r.confBytes}
	var results []any
	var err error
	switch {
	case e.GetType() != pb.EntryNormal:
		err = r.applyConf(e, at)
	case len(e.GetData()) == 0:
		err = r.cfg.Machine.ApplyConf(at)
	default:
		var h packHeader
		h, r.commands, err = openPack(r.commands[:0], e.GetData())
		if err == nil {
			results, err = r.cfg.Machine.Apply(at, h.stamp, r.commands)
		}
	}
	if err != nil {
		return fmt.Errorf("apply log entry %d of %s: %w", at.Index, r.cfg.Name, err)
	}
	p := r.ours(e)
	r.applied, r.appliedTerm = at.Index, at.Term
	if p == nil {
		return nil
	}
	r.settle(p, len(e.GetData()))
	for i, w := range p.waiters {
		w.Done(results[i], nil)
	}
	p.waiters = nil
	return nil
}

// applyConf changes the membership. The machine stores it together with the position, so that it
// is never applied twice.
func (r *Replica) applyConf(e *pb.Entry, at Entry) error {
	cc, err := decodeConfChange(e)
	if err != nil {
		return err
	}
	r.setConf(r.raft.ApplyConfChange(cc))
	at.Conf = r.confBytes
	return r.cfg.Machine.ApplyConf(at)
}

func (r *Replica) setConf(c *pb.ConfState) { r.conf, r.confBytes = c, EncodeConf(c) }

func (r *Replica) noteLeader(s *raft.SoftState) {
	changed := r.lead != s.Lead
	if changed {
		r.heardLead = r.ticks
	}
	r.lead = s.Lead
	if changed && r.lead != 0 && r.reads.asked != nil {
		r.ask(r.reads.asked) // The leader that was asked first will not answer.
	}
	if s.RaftState != raft.StateLeader {
		r.localReads.Store(false)
	}
}

func (r *Replica) noteTerm(term uint64) {
	if term != r.term {
		r.term = term
		r.localReads.Store(false)
	}
}

// publish replaces the status that others see and tells whether leadership changed.
func (r *Replica) publish() (leaderChanged bool) {
	if r.failed != nil {
		return false
	}
	old := r.status.Load()
	members := old.Members
	if r.membersDue {
		members, r.membersDue = r.listMembers(), false
	}
	cutOff := r.cutOff(members)
	b := r.raft.BasicStatus()
	leading := b.RaftState == raft.StateLeader && r.appliedTerm == b.GetTerm()
	r.term, r.lead = b.GetTerm(), b.Lead
	r.localReads.Store(leading && soleVoter(r.conf, r.cfg.ID))
	if old.Leader == b.Lead && old.Term == b.GetTerm() && old.Committed == b.GetCommit() && old.Applied == r.applied && old.Leading == leading && old.Conf == r.conf && old.CutOff == cutOff && old.Resting == r.rest.asleep && len(members) == 0 && len(old.Members) == 0 {
		return false
	}
	st := &Status{
		Leader: b.Lead, Term: b.GetTerm(), Committed: b.GetCommit(), Applied: r.applied, Leading: leading, Conf: r.conf,
		Members: members, CutOff: cutOff, Resting: r.rest.asleep, Blind: r.cfg.Blind,
	}
	if old.Leading && !leading {
		r.retire(st)
	} else {
		r.status.Store(st)
	}
	return old.Leading != leading || old.Leader != b.Lead
}
