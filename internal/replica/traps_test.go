package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Each test here guards against a way in which a correct Raft gives wrong answers when it is driven
// wrongly. The traps are those of the design's list; each names its own.

// newSteppedBench is a bench whose log is written when the test says so.
func newSteppedBench(t *testing.T, fs vfs.FS) *bench {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: fs, Dir: "wal", SegmentBytes: 1 << 20, ServerID: 1, ClusterID: 1, Stepped: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, log: l}
	b.shard = NewShard(b, l, slog.New(slog.DiscardHandler))
	return b
}

// sync writes what is submitted.
func (b *bench) sync() {
	for b.log.Step() {
	}
}

// turns turns the shard until nothing more comes of it, without writing.
func (b *bench) turns() {
	for range 4 {
		b.shard.Turn(false)
	}
}

// steppedGenesis is genesis for a stepped log.
func (b *bench) steppedGenesis(group wal.GroupID, voters ...uint64) *register {
	b.log.Submit([]wal.Update{Genesis(group)}, nil)
	b.sync()
	return &register{at: Entry{Index: GenesisIndex, Term: GenesisTerm, Conf: EncodeConf(&pb.ConfState{Voters: voters})}}
}

// sentOf takes the messages of a type that were sent.
func (b *bench) sentOf(types ...pb.MessageType) (found []*pb.Message) {
	var rest []Outgoing
	for _, o := range b.sent {
		hit := false
		for _, typ := range types {
			hit = hit || o.Message.GetType() == typ
		}
		if hit {
			found = append(found, o.Message)
		} else {
			rest = append(rest, o)
		}
	}
	b.sent = rest
	return found
}

func message(typ pb.MessageType, from, to, term uint64) *pb.Message {
	return &pb.Message{Type: typ.Enum(), From: &from, To: &to, Term: &term}
}

// entries makes a MsgApp of one leader's packs that follow on an entry.
func entries(from, to, term, prev, prevTerm, commit uint64, values ...string) *pb.Message {
	m := message(pb.MsgApp, from, to, term)
	m.Index, m.LogTerm, m.Commit = &prev, &prevTerm, &commit
	for i, v := range values {
		m.Entries = append(m.Entries, &pb.Entry{Index: new(prev + 1 + uint64(i)), Term: &term, Data: theirPack(v)})
	}
	return m
}

// The trap: Raft drops outstanding read indexes when the term changes, so a reader that only waits waits
// for ever. The read must be asked for again, of the new leader and under another id.
func TestReadIndexDroppedOnTermChangeRetries(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	b.elect(r)
	released := 0
	r.ReadIndex(func(err error) {
		if err != nil {
			t.Error(err)
		}
		released++
	})
	b.shard.Turn(false)
	asked := b.sentOf(pb.MsgHeartbeat)
	if len(asked) == 0 {
		t.Fatal("nobody was asked whether this is the leader still")
	}
	// Member 2 leads in a later term; the answer to what was asked before comes too late.
	term := r.Status().Term + 1
	last, _ := b.log.State(7)
	b.shard.Receive(r, message(pb.MsgHeartbeat, 2, 1, term))
	late := message(pb.MsgHeartbeatResp, 3, 1, term-1)
	late.Context = asked[0].Context
	b.shard.Receive(r, late)
	var again []*pb.Message
	b.until("asked again", func() bool {
		again = append(again, b.sentOf(pb.MsgReadIndex)...)
		return len(again) > 0
	})
	if released != 0 {
		t.Fatal("released by the answer to a request of an earlier term")
	}
	if again[0].GetTo() != 2 {
		t.Fatalf("asked member %d, which does not lead", again[0].GetTo())
	}
	answer := message(pb.MsgReadIndexResp, 2, 1, term)
	answer.Index, answer.Entries = new(last.Last), again[0].Entries
	b.shard.Receive(r, answer)
	b.shard.Receive(r, entries(2, 1, term, last.Last, r.Status().Term, last.Last))
	b.until("released", func() bool { return released == 1 })
}

// The trap: Raft's lease mode answers reads from a leader that was deposed already, even with perfect
// clocks. A leader that nobody confirms answers none, and gives up in time.
func TestLeaseBasedNeverConfigured(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	b.elect(r)
	var outcome error
	called := false
	r.ReadIndex(func(err error) { called, outcome = true, err })
	for range readTicksMax + 2 {
		b.shard.Turn(true)
		if called && outcome == nil {
			t.Fatal("a read was answered that no other member confirmed")
		}
	}
	if !errors.Is(outcome, ErrUnavailable) {
		t.Fatalf("the reader was told %v", outcome)
	}
}

// The trap: a membership change that is applied twice panics ("config is already joint"), and one taken from
// the log's tail may never have been committed. Membership is stored with the applied position, so that a
// crash at any place between leads to the same.
func TestConfChangeReplayedOnce(t *testing.T) {
	fs := simfs.New(1, simfs.Journal)
	b := newBench(t, fs)
	m := b.genesis(7, 1)
	r := b.open(7, 1, m, 99)
	b.until("leads", func() bool { return r.Status().Leading })
	joint := &pb.ConfChangeV2{Transition: pb.ConfChangeTransition_ConfChangeTransitionJointExplicit.Enum()}
	for _, id := range []uint64{2, 3} {
		joint.Changes = append(joint.Changes, &pb.ConfChangeSingle{Type: pb.ConfChangeAddLearnerNode.Enum(), NodeId: &id})
	}
	before := m.at
	if err := r.ProposeConf(joint); err != nil {
		t.Fatal(err)
	}
	b.until("joint", func() bool { return len(r.Status().Conf.GetVotersOutgoing()) > 0 })
	inJoint := m.at
	// What a crash finds: the log, and the machine before the change or behind it.
	for name, at := range map[string]Entry{"before": before, "behind": inJoint} {
		b := newBench(t, fs.CrashClone(simfs.Nothing, 1))
		r := b.open(7, 1, &register{at: at}, 100)
		b.until(name+": leads again", func() bool {
			b.shard.Turn(true) // In a joint state it waits for its timeout.
			return r.Status().Leading && r.Status().Applied > inJoint.Index
		})
		if c := r.Status().Conf; len(c.GetLearners()) != 2 || len(c.GetVotersOutgoing()) != 1 {
			t.Errorf("%s: membership %v", name, c)
		}
		if err := r.ProposeConf(&pb.ConfChangeV2{}); err != nil {
			t.Fatal(err)
		}
		b.until(name+": left", func() bool { return len(r.Status().Conf.GetVotersOutgoing()) == 0 })
	}
}

// The trap: a vote or an acknowledgement that leaves before it is on disk is forgotten by a crash, and
// then a second leader is elected, or what was acknowledged is lost.
func TestResponsesAfterSyncOnly(t *testing.T) {
	b := newSteppedBench(t, simfs.New(1, simfs.Journal))
	r := b.open(7, 1, b.steppedGenesis(7, 1, 2, 3), 99)
	b.turns()
	vote := message(pb.MsgVote, 2, 1, 5)
	vote.Index, vote.LogTerm = new(uint64(GenesisIndex)), new(uint64(GenesisTerm))
	b.shard.Receive(r, vote)
	b.turns()
	if got := b.sentOf(pb.MsgVoteResp); len(got) > 0 {
		t.Fatal("a vote left before it was on disk")
	}
	b.sync()
	b.turns()
	if got := b.sentOf(pb.MsgVoteResp); len(got) != 1 || got[0].GetReject() {
		t.Fatalf("after the sync: %v", got)
	}
	b.shard.Receive(r, entries(2, 1, 5, GenesisIndex, GenesisTerm, GenesisIndex, "a", "b"))
	b.turns()
	if got := b.sentOf(pb.MsgAppResp); len(got) > 0 {
		t.Fatal("entries were acknowledged before they were on disk")
	}
	b.sync()
	b.turns()
	if got := b.sentOf(pb.MsgAppResp); len(got) != 1 || got[0].GetIndex() != GenesisIndex+2 {
		t.Fatalf("after the sync: %v", got)
	}
}

// The trap: a write of entries that another leader replaced meanwhile ends late, and is taken for the write
// of the new ones, which have the same indexes: A is written, B replaces it, and B counts as stable when A is.
func TestAsyncAppendABA(t *testing.T) {
	b := newSteppedBench(t, simfs.New(1, simfs.Journal))
	m := b.steppedGenesis(7, 1, 2, 3)
	r := b.open(7, 1, m, 99)
	b.turns()
	b.sync()
	b.turns()
	b.shard.Receive(r, entries(2, 1, 5, GenesisIndex, GenesisTerm, GenesisIndex, "lost", "lost"))
	b.turns() // Submitted, not written.
	b.shard.Receive(r, entries(3, 1, 6, GenesisIndex, GenesisTerm, GenesisIndex, "kept"))
	if !b.log.Step() { // The write of the first ends now; the second is in the shard's inbox still.
		t.Fatal("nothing was written")
	}
	b.turns()
	for _, resp := range b.sentOf(pb.MsgAppResp) {
		if resp.GetTerm() == 6 && !resp.GetReject() && resp.GetIndex() > GenesisIndex {
			t.Fatalf("the new entry was acknowledged by the write of the old one: %v", resp)
		}
	}
	commit := message(pb.MsgHeartbeat, 3, 1, 6)
	commit.Commit = new(uint64(GenesisIndex))
	b.shard.Receive(r, commit)
	b.turns()
	if len(m.values) != 0 {
		t.Fatalf("executed %q before it was stable here", m.values)
	}
	b.sync()
	b.turns()
	acks := b.sentOf(pb.MsgAppResp)
	if len(acks) == 0 || acks[len(acks)-1].GetIndex() != GenesisIndex+1 || acks[len(acks)-1].GetTerm() != 6 {
		t.Fatalf("after its own write: %v", acks)
	}
	commit = message(pb.MsgHeartbeat, 3, 1, 6)
	commit.Commit = new(uint64(GenesisIndex + 1))
	b.shard.Receive(r, commit)
	b.turns()
	if fmt.Sprint(m.values) != "[kept]" {
		t.Fatalf("executed %q", m.values)
	}
	got, err := b.log.Entries(nil, 7, GenesisIndex+1, GenesisIndex+2, 1<<20)
	if err != nil || len(got) != 1 || got[0].Term != 6 {
		t.Fatalf("the log has %+v, %v", got, err)
	}
}

// The trap: a member whose disk is that of a backup lacks what it acknowledged. Raft panics when the leader
// commits it, and the process with all its groups; and until then the member votes as if it had never
// acknowledged. It must stop, alone, and say so.
func TestAmnesiaQuarantines(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	other := b.open(8, 1, b.genesis(8, 1), 98)
	beat := message(pb.MsgHeartbeat, 2, 1, 5)
	beat.Commit = new(uint64(GenesisIndex + 12))
	b.shard.Receive(r, beat)
	b.until("stopped", func() bool { return r.Status().Stopped != nil })
	if err := r.Status().Stopped; !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	b.sent = nil
	vote := message(pb.MsgVote, 3, 1, 6)
	vote.Index, vote.LogTerm = new(uint64(GenesisIndex+20)), new(uint64(5))
	b.shard.Receive(r, vote)
	for range 2 * electionTicks {
		b.shard.Turn(true)
	}
	for _, o := range b.sent {
		if o.From == r {
			t.Fatalf("it speaks still: %v", o.Message)
		}
	}
	b.until("the other group goes on", func() bool { return other.Status().Leading })
}

// The trap: a damaged log looks like a short one, and whoever trusts it votes for a leader that lacks what it
// has acknowledged itself. A member with a damaged log does not even open.
func TestSuspectNeverVotes(t *testing.T) {
	fs := simfs.New(1, simfs.Journal)
	b := newBench(t, fs)
	r := b.open(7, 1, b.genesis(7, 1), 99)
	b.until("leads", func() bool { return r.Status().Leading })
	for i := range 50 {
		o := b.propose(r, fmt.Sprint("value", i))
		b.until("acknowledged", func() bool { return o.called > 0 })
	}
	names, err := fs.List("wal")
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range names {
		st, err := fs.Stat("wal/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(8 << 10); at < min(st.Size(), 24<<10); at += 512 {
			disk := fs.CrashClone(simfs.Everything, 1)
			if err := disk.FlipBit("wal/"+name, at, 3); err != nil {
				continue
			}
			l, err := wal.Open(wal.Options{FS: disk, Dir: "wal", SegmentBytes: 1 << 20, ServerID: 1, ClusterID: 1, Stepped: true})
			if err != nil {
				continue // The whole log is refused.
			}
			st, _ := l.State(7)
			if st.Damage != nil {
				damaged++
				shard := NewShard(b, l, slog.New(slog.DiscardHandler))
				_, err := shard.Open(Config{Group: 7, ID: 1, Name: "test", Log: l, Machine: &register{at: Entry{Index: GenesisIndex, Term: GenesisTerm, Conf: EncodeConf(&pb.ConfState{Voters: []uint64{1, 2, 3}})}}, Logger: slog.New(slog.DiscardHandler)})
				var d *wal.DamageError
				if !errors.As(err, &d) {
					t.Fatalf("flipped at %d: opened, %v", at, err)
				}
			}
			l.Close()
		}
	}
	if damaged == 0 {
		t.Fatal("no flip damaged the group: the test shows nothing")
	}
}

// The trap: a log entry that could be read when the log was opened cannot be read later. Raft panics, and
// with it all groups of the server. Only the group that it is of must stop.
func TestUnreadableLogStopsOneGroup(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1), 99)
	other := b.open(8, 1, b.genesis(8, 1), 98)
	b.until("both lead", func() bool { return r.Status().Leading && other.Status().Leading })
	broken := &wal.DamageError{Group: 7, File: "000000000001.wal", Reason: "checksum"}
	b.shard.Call(func() {
		defer r.rescue()
		_ = raftError(broken)
	})
	b.until("stopped", func() bool { return r.Status().Stopped != nil })
	if err := r.Status().Stopped; !errors.Is(err, error(broken)) {
		t.Fatal(err)
	}
	o := b.propose(other, "goes on")
	b.until("the other group goes on", func() bool { return o.called > 0 && o.err == nil })
}

// The trap: the outcome of a snapshot is not reported, and the member is sent nothing any more, for ever.
func TestReportSnapshotAlways(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	m := b.genesis(7, 1, 2, 3)
	r := b.open(7, 1, m, 99)
	b.elect(r)
	st := r.Status()
	// The log begins behind what member 3 has.
	b.log.Submit([]wal.Update{{Group: 7, Compact: wal.Position{Index: st.Applied, Term: st.Term}}}, nil)
	reject := message(pb.MsgAppResp, 3, 1, st.Term)
	reject.Reject, reject.Index, reject.RejectHint = new(true), new(uint64(GenesisIndex)), new(uint64(0))
	beat := func() int {
		b.shard.Receive(r, message(pb.MsgHeartbeatResp, 3, 1, st.Term))
		for range heartbeatTicks + 1 {
			b.shard.Turn(true)
			b.shard.Receive(r, message(pb.MsgHeartbeatResp, 2, 1, st.Term))
		}
		return len(b.sentOf(pb.MsgSnap))
	}
	b.shard.Receive(r, reject)
	if beat() != 1 {
		t.Fatal("a member that lacks what the log has no more is sent no snapshot")
	}
	if beat() != 0 {
		t.Fatal("a second snapshot while the first is under way")
	}
	b.shard.Call(func() { r.ReportSnapshot(3, false) })
	if beat() == 0 {
		t.Fatal("after a failure the member is never sent one again")
	}
}

// While a round of replication is under way what is proposed waits, and goes with the next one, all
// together. If the lead is lost meanwhile, what waits is given back at once: the round may never end.
func TestOneRoundIsUnderWay(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	b.elect(r)
	sendsTo2 := func(turns int) int {
		for range turns {
			b.shard.Turn(false)
			time.Sleep(time.Millisecond) // The log is written meanwhile.
		}
		return entriesTo(b.sent, 2)
	}
	b.sent = nil
	first := b.propose(r, "first")
	sendsTo2(1)
	for range 10 {
		b.propose(r, "second")
		sendsTo2(1)
	}
	if n := sendsTo2(5); n != 1 {
		t.Fatalf("%d entries were sent while a round was under way", n)
	}
	sent := b.sent
	b.sent = nil
	for _, o := range sent {
		if m := o.Message; m.GetTo() == 2 && len(m.GetEntries()) > 0 {
			b.shard.Receive(r, &pb.Message{Type: pb.MsgAppResp.Enum(), From: m.To, To: m.From, Term: m.Term, Index: new(m.GetIndex() + 1)})
		}
	}
	b.until("first", func() bool { return first.called > 0 })
	if n := sendsTo2(5); n != 1 {
		t.Fatalf("ten commands that waited went as %d entries", n)
	}

	third := b.propose(r, "third")
	sendsTo2(5)
	b.shard.Receive(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(3)), To: new(uint64(1)), Term: new(r.Status().Term + 1)})
	sendsTo2(5)
	if third.called != 1 || !errors.Is(third.err, ErrUnavailable) {
		t.Fatalf("a command that waited behind a round of a lost lead: called %d times, %v", third.called, third.err)
	}
}

// Members that were all restarted hear of no leader. Each campaigns in its turn, long before an election
// timeout, again while the others are not there yet, and not at all once a leader is heard of.
func TestRestartedMembersElectSoon(t *testing.T) {
	reopen := func(id uint64) (*bench, *Replica) {
		fs := vfs.NewMem()
		b := newBench(t, fs)
		m := b.genesis(7, 1, 2, 3)
		r := b.open(7, 1, m, 99)
		b.elect(r)
		b.log.Close()
		b = newBench(t, fs)
		return b, b.open(7, id, m, 100)
	}
	campaigns := func(b *bench, ticks int) (at []int) {
		for tick := range ticks {
			b.sent = nil
			b.shard.Turn(true)
			if slices.ContainsFunc(b.sent, func(o Outgoing) bool { return o.Message.GetType() == pb.MsgPreVote }) {
				at = append(at, tick)
			}
		}
		return at
	}
	var first []int
	for id := range uint64(3) {
		b, _ := reopen(id + 1)
		at := campaigns(b, electionTicks)
		if len(at) == 0 {
			t.Fatalf("member %d did not campaign before the timeout", id+1)
		}
		first = append(first, at[0])
	}
	slices.Sort(first)
	if first[1]-first[0] < rushStagger || first[2]-first[1] < rushStagger {
		t.Errorf("members campaign at ticks %v: they split the votes", first)
	}
	b, r := reopen(1)
	b.shard.Receive(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(3)), To: new(uint64(1)), Term: new(r.Status().Term)})
	b.shard.Turn(false)
	if at := campaigns(b, electionTicks-1); len(at) > 0 {
		t.Errorf("campaigned at ticks %v with a leader", at)
	}
}
