package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// openBlind opens a member of three on a log of n entries of term 5, whose beginning is given up, as the leader, 2,
// of that term told it.
func openBlind(t *testing.T, n uint64) (*bench, *Replica) {
	t.Helper()
	b := newSteppedBench(t, simfs.New(1, simfs.Journal))
	b.steppedGenesis(7, 1, 2, 3)
	first := GenesisIndex + 101
	u := wal.Update{Group: 7, Reset: &wal.Position{Index: uint64(first) - 1, Term: 5}, Hard: &wal.HardState{Term: 5, Vote: 2, Commit: GenesisIndex}}
	for i := range n {
		u.Entries = append(u.Entries, wal.Entry{Index: uint64(first) + i, Term: 5, Data: theirPack(fmt.Sprint("v", i))})
	}
	b.log.Submit([]wal.Update{u}, nil)
	b.sync()
	r, err := b.shard.Open(Config{Group: 7, ID: 1, Name: "test", Log: b.log, Incarnation: 9, Blind: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b, r
}

// tell hands a message of another member to the blind one, and gives its answers.
func (b *bench) tell(r *Replica, m *pb.Message) (answers []*pb.Message) {
	b.t.Helper()
	m.To = new(r.ID())
	b.sent = nil
	b.shard.Receive(r, m)
	for range 4 {
		b.shard.Turn(false)
		b.sync()
	}
	for _, o := range b.sent {
		answers = append(answers, o.Message)
	}
	return answers
}

// What a blind member does: it appends and says so, and votes by what is in its log, and for nobody twice.
func TestBlindAppendsAndVotes(t *testing.T) {
	b, r := openBlind(t, 10)
	last := uint64(GenesisIndex + 110)
	data := theirPack("new")
	answers := b.tell(r, &pb.Message{
		Type: pb.MsgApp.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: &last, LogTerm: new(uint64(5)), Commit: new(last + 1),
		Entries: []*pb.Entry{{Index: new(last + 1), Term: new(uint64(5)), Type: pb.EntryNormal.Enum(), Data: data}},
	})
	if len(answers) != 1 || answers[0].GetType() != pb.MsgAppResp || answers[0].GetReject() || answers[0].GetIndex() != last+1 {
		t.Fatalf("answers to entries: %v", answers)
	}
	if st, _ := b.log.State(7); st.Last != last+1 {
		t.Fatalf("the log ends at %d", st.Last)
	}
	vote := func(from, term, index uint64) *pb.Message {
		answers := b.tell(r, &pb.Message{
			Type: pb.MsgVote.Enum(), From: &from, Term: &term, Index: &index, LogTerm: new(uint64(5)),
			Context: []byte("CampaignTransfer"), // The leader is there still: else nobody would listen.
		})
		if len(answers) != 1 || answers[0].GetType() != pb.MsgVoteResp {
			t.Fatalf("answers to a candidate: %v", answers)
		}
		return answers[0]
	}
	if a := vote(3, 6, last); !a.GetReject() {
		t.Error("it voted for one who lacks what it has acknowledged")
	}
	if a := vote(3, 7, last+1); a.GetReject() {
		t.Error("it refused who has all that it has")
	}
	if a := vote(2, 7, last+1); !a.GetReject() {
		t.Error("it voted twice in a term")
	}
	if st, _ := b.log.State(7); st.Hard.Term != 7 || st.Hard.Vote != 3 {
		t.Errorf("its vote is not in its log: %+v", st.Hard)
	}
}

// What it does not do, whoever asks for it.
func TestBlindDoesNotLeadNorRead(t *testing.T) {
	b, r := openBlind(t, 10)
	for range 20 * electionTicks {
		b.shard.Turn(true)
		b.sync()
	}
	b.tell(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Commit: new(uint64(GenesisIndex + 110))})
	answers := b.tell(r, &pb.Message{Type: pb.MsgTimeoutNow.Enum(), From: new(uint64(2)), Term: new(uint64(5))})
	r.PeerGone(2)
	for range 20 * electionTicks {
		b.shard.Turn(true)
		b.sync()
	}
	for _, o := range b.sent {
		answers = append(answers, o.Message)
	}
	for _, m := range answers {
		if typ := m.GetType(); typ == pb.MsgVote || typ == pb.MsgPreVote {
			t.Fatalf("it campaigns: %v", m)
		}
	}
	var read error
	r.ReadIndex(func(err error) { read = err })
	b.shard.Turn(false)
	if !errors.Is(read, ErrUnavailable) {
		t.Errorf("a read ended with %v", read)
	}
	if err := r.Propose([]byte("x"), &outcome{}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a proposal ended with %v", err)
	}
	if st := r.Status(); !st.Blind || st.Resting || st.Stopped != nil {
		t.Errorf("status %+v", st)
	}
}

// One that lacks what it has acknowledged is lost, blind or not.
func TestBlindAmnesia(t *testing.T) {
	b, r := openBlind(t, 10)
	b.tell(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Commit: new(uint64(GenesisIndex + 111))})
	if err := r.Status().Stopped; !errors.Is(err, ErrLost) {
		t.Fatalf("it goes on: %v", err)
	}
}

// The log of a blind member does not grow without end, but what comes behind a state that is on its way stays.
func TestBlindLogIsBounded(t *testing.T) {
	const n = 2 * blindEntries
	b, r := openBlind(t, n)
	last := uint64(GenesisIndex + 100 + n)
	b.tell(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Commit: new(last - 5)})
	kept := func() uint64 {
		r.Compact()
		b.sync()
		st, _ := b.log.State(7)
		return st.Last - st.First + 1
	}
	if got := kept(); got != blindEntries+5 {
		t.Errorf("%d log entries are kept", got)
	}
	r.KeepLog(1)
	var more []*pb.Entry
	for i := range uint64(blindEntries + 1000) {
		more = append(more, &pb.Entry{Index: new(last + 1 + i), Term: new(uint64(5)), Type: pb.EntryNormal.Enum(), Data: theirPack("m")})
	}
	b.tell(r, &pb.Message{
		Type: pb.MsgApp.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: &last, LogTerm: new(uint64(5)),
		Entries: more, Commit: new(last + uint64(len(more))),
	})
	if got := kept(); got != uint64(len(more))+5 {
		t.Errorf("%d log entries are kept while a state is on its way, %d came", got, len(more))
	}
	r.GiveUpKept()
	if got := kept(); got != blindEntries {
		t.Errorf("%d log entries are kept at last", got)
	}
}

// A state will do if the log goes on from it; then the member is what it was.
func TestBlindRegainsItsState(t *testing.T) {
	b, r := openBlind(t, 10)
	for index, ok := range map[uint64]bool{GenesisIndex + 99: false, GenesisIndex + 100: true, GenesisIndex + 105: true, GenesisIndex + 500: true} {
		if err := Fits(b.log, 7, Entry{Index: index, Term: 5}); (err == nil) != ok || err != nil && !errors.Is(err, ErrStateLost) {
			t.Errorf("a state of log entry %d: %v", index, err)
		}
	}
	b.shard.Close(r)
	b.sync()
	m := &register{at: Entry{Index: GenesisIndex + 105, Term: 5, Conf: EncodeConf(confOf(1, 2, 3))}}
	r = b.open(7, 1, m, 10)
	b.tell(r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Commit: new(uint64(GenesisIndex + 110))})
	if m.at.Index != GenesisIndex+110 || fmt.Sprint(m.values) != "[v5 v6 v7 v8 v9]" || r.Status().Blind {
		t.Fatalf("it executed %v, up to %d", m.values, m.at.Index)
	}
}
