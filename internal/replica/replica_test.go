package replica

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// register is the smallest machine with a memory: it keeps the commands that it has executed.
type register struct {
	at      Entry
	durable Entry
	values  []string
	stamps  []int64
}

func (m *register) Apply(at Entry, stamp int64, commands [][]byte) ([]any, error) {
	results := make([]any, len(commands))
	for i, c := range commands {
		m.values = append(m.values, string(c))
		m.stamps = append(m.stamps, stamp)
		results[i] = len(m.values)
	}
	return results, m.ApplyConf(at)
}

func (m *register) ApplyConf(at Entry) error {
	if at.Conf == nil {
		at.Conf = m.at.Conf
	}
	m.at = at
	return nil
}
func (m *register) Applied() Entry                         { return m.at }
func (m *register) Durable() Entry                         { return m.durable }
func (m *register) WriteSnapshot(io.Writer) (Entry, error) { return m.at, nil }
func (m *register) InstallSnapshot(io.Reader) error        { return nil }
func (m *register) Checkpoint() error                      { m.durable = m.at; return nil }

// bench is one shard on one log, driven by hand.
type bench struct {
	t     *testing.T
	log   *wal.Log
	shard *Shard
	now   int64
	sent  []Outgoing
}

func (b *bench) Now() int64                                         { b.now++; return b.now }
func (b *bench) Send(m []Outgoing)                                  { b.sent = append(b.sent, m...) }
func (b *bench) Applied(*Replica)                                   {}
func (b *bench) LeaderChanged(*Replica)                             {}
func (b *bench) TurnEnd()                                           {}
func (b *bench) Install(r *Replica, token []byte, done func(error)) { done(nil) }

func newBench(t *testing.T, fs vfs.FS) *bench {
	t.Helper()
	l, err := wal.Open(wal.Options{FS: fs, Dir: "wal", SegmentBytes: 1 << 20, ServerID: 1, ClusterID: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b := &bench{t: t, log: l}
	b.shard = NewShard(b, l, slog.New(slog.DiscardHandler))
	return b
}

func (b *bench) genesis(group wal.GroupID, voters ...uint64) *register {
	done := make(chan error, 1)
	b.log.Submit([]wal.Update{Genesis(group)}, func(err error) { done <- err })
	if err := <-done; err != nil {
		b.t.Fatal(err)
	}
	return &register{at: Entry{Index: GenesisIndex, Term: GenesisTerm, Conf: EncodeConf(&pb.ConfState{Voters: voters})}}
}

func (b *bench) open(group wal.GroupID, id uint64, m Machine, incarnation uint64) *Replica {
	b.t.Helper()
	r, err := b.shard.Open(Config{Group: group, ID: id, Name: "test", Log: b.log, Machine: m, Incarnation: incarnation, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// until turns the shard until the condition holds. WAL writes finish on another goroutine.
func (b *bench) until(what string, cond func() bool) {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		b.shard.Turn(false)
		if cond() {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
	b.t.Fatalf("not reached: %s", what)
}

type outcome struct {
	called int
	result any
	err    error
}

func (o *outcome) Done(result any, err error) { o.called, o.result, o.err = o.called+1, result, err }

func (b *bench) propose(r *Replica, command string) *outcome {
	b.t.Helper()
	o := &outcome{}
	if err := r.Propose([]byte(command), o); err != nil {
		b.t.Fatal(err)
	}
	return o
}

func TestGroupOfOneCommitsAndAnswers(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	m := b.genesis(7, 1)
	r := b.open(7, 1, m, 99)
	b.until("leads", func() bool { return r.Status().Leading })
	var all []*outcome
	for i := range 1000 {
		all = append(all, b.propose(r, string(rune('a'+i%26))))
	}
	last := all[len(all)-1]
	b.until("answered", func() bool { return last.called > 0 })
	for i, o := range all {
		if o.called != 1 || o.err != nil || o.result != i+1 {
			t.Fatalf("command %d: %+v", i, *o)
		}
	}
	if len(m.values) != 1000 {
		t.Fatalf("%d commands executed", len(m.values))
	}
	if entries := m.at.Index - GenesisIndex; entries > 20 {
		t.Errorf("1000 commands took %d log entries: they should share entries", entries)
	}
}

func TestProposeWithoutLeadershipIsDefinite(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	if err := r.Propose([]byte("x"), &outcome{}); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("got %v", err)
	}
}

// A restarted group of one must not serve reads before it has applied an entry of its new term:
// what it had acknowledged may still lie in the log only. Trap 2.
func TestReadIndexSingleVoterAfterRestart(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	m := b.genesis(7, 1)
	r := b.open(7, 1, m, 99)
	b.until("leads", func() bool { return r.Status().Leading })
	acked := b.propose(r, "acked")
	b.until("acknowledged", func() bool { return acked.called > 0 })
	if err := b.log.Close(); err != nil {
		t.Fatal(err)
	}

	b = newBench(t, fs)
	m = &register{at: Entry{Index: GenesisIndex, Term: GenesisTerm, Conf: EncodeConf(&pb.ConfState{Voters: []uint64{1}})}}
	r = b.open(7, 1, m, 100)
	seen := -1
	r.ReadIndex(func(err error) {
		if err != nil {
			t.Error(err)
		}
		seen = len(m.values)
	})
	b.until("read released", func() bool { return seen >= 0 })
	if seen != 1 {
		t.Fatalf("the read saw %d values, one was acknowledged before", seen)
	}
}

// The machine's position may be ahead of the commit index that was synced. Trap 3.
func TestRestartAppliedAboveCommit(t *testing.T) {
	fs := vfs.NewMem()
	b := newBench(t, fs)
	m := b.genesis(7, 1)
	r := b.open(7, 1, m, 99)
	b.until("leads", func() bool { return r.Status().Leading })
	o := b.propose(r, "v")
	b.until("acknowledged", func() bool { return o.called > 0 })
	b.log.Close()
	b = newBench(t, fs)
	if st, _ := b.log.State(7); st.Hard.Commit >= m.at.Index {
		t.Fatalf("commit %d was durable: the test shows nothing", st.Hard.Commit)
	}
	r = b.open(7, 1, m, 100)
	b.until("leads again", func() bool { return r.Status().Leading })
	if len(m.values) != 1 {
		t.Fatalf("%d values after the restart", len(m.values))
	}
}

func TestStoppedReplicaReportsUnknownForProposed(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1), 99)
	b.until("leads", func() bool { return r.Status().Leading })
	o := b.propose(r, "v")
	b.shard.Turn(false) // proposed, not yet written
	if o.called == 0 {
		b.shard.Close(r)
		if o.called != 1 || !errors.Is(o.err, ErrUnknown) {
			t.Fatalf("%+v", *o)
		}
	}
	o2 := &outcome{}
	if err := r.Propose([]byte("w"), o2); err == nil {
		t.Fatal("a closed replica took a command")
	}
}

// An entry of ours that another leader's entry replaced is definitely lost, and said to be.
func TestProposalLostIsDefinite(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	m := b.genesis(7, 1, 2, 3)
	r := b.open(7, 1, m, 99)
	b.elect(r)
	o := b.propose(r, "mine")
	b.until("in the log", func() bool { st, _ := b.log.State(7); return st.Last >= GenesisIndex+2 })
	// Member 2 became leader in a later term, with another entry in this place.
	term := r.Status().Term + 1
	b.shard.Receive(r, &pb.Message{
		Type: pb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: &term,
		Index: new(uint64(GenesisIndex + 1)), LogTerm: new(term - 1), Commit: new(uint64(GenesisIndex + 2)),
		Entries: []*pb.Entry{
			{Index: new(uint64(GenesisIndex + 2)), Term: &term, Data: theirPack("theirs")},
		},
	})
	b.until("answered", func() bool { return o.called > 0 })
	if !errors.Is(o.err, ErrUnavailable) {
		t.Fatalf("%+v", *o)
	}
	if len(m.values) != 1 || m.values[0] != "theirs" {
		t.Fatalf("executed %q", m.values)
	}
}

// One that merely lost its leader is unknown, after a while, and never called lost.
func TestProposalUnknownOnStepDown(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	r := b.open(7, 1, b.genesis(7, 1, 2, 3), 99)
	b.elect(r)
	o := b.propose(r, "mine")
	b.until("in the log", func() bool { st, _ := b.log.State(7); return st.Last >= GenesisIndex+2 })
	for i := 0; i < 2*waiterTicksMax && o.called == 0; i++ {
		b.shard.Turn(true)
	}
	if !errors.Is(o.err, ErrUnknown) {
		t.Fatalf("%+v", *o)
	}
}

func theirPack(command string) []byte {
	p := newPack()
	p.add([]byte(command), &outcome{})
	p.seal(1, 12345, 1)
	return p.data
}

// elect makes a member of three the leader by playing member 2, who votes and acknowledges the
// first entry.
func (b *bench) elect(r *Replica) {
	b.t.Helper()
	b.electBy(r, 2)
}

// electBy does so by playing some members.
func (b *bench) electBy(r *Replica, members ...uint64) {
	b.t.Helper()
	b.campaign()
	b.until("leads", func() bool {
		b.play(r, members, pb.MsgPreVote, pb.MsgVote, pb.MsgApp)
		return r.Status().Leading
	})
}

// campaign lets ticks pass until there is something to send.
func (b *bench) campaign() {
	b.t.Helper()
	for i := 0; len(b.sent) == 0; i++ {
		if i > 100 {
			b.t.Fatal("no campaign")
		}
		b.shard.Turn(true)
	}
}

// play answers what was sent to some members, if it is of one of the types, and drops all else.
func (b *bench) play(r *Replica, members []uint64, types ...pb.MessageType) {
	for len(b.sent) > 0 {
		m := b.sent[0].Message
		b.sent = b.sent[1:]
		if !slices.Contains(members, m.GetTo()) || !slices.Contains(types, m.GetType()) {
			continue
		}
		resp := &pb.Message{From: m.To, To: m.From, Term: m.Term}
		switch m.GetType() {
		case pb.MsgPreVote:
			resp.Type = pb.MsgPreVoteResp.Enum()
		case pb.MsgVote:
			resp.Type = pb.MsgVoteResp.Enum()
		case pb.MsgApp:
			resp.Type = pb.MsgAppResp.Enum()
			resp.Index = new(m.GetIndex() + uint64(len(m.GetEntries())))
		}
		b.shard.Receive(r, resp)
	}
}

func TestPackRoundTrip(t *testing.T) {
	p := newPack()
	for _, c := range []string{"", "a", "bc"} {
		p.add([]byte(c), &outcome{})
	}
	p.seal(-5, 6, 7)
	h, commands, err := openPack(nil, p.data)
	if err != nil || h != (packHeader{-5, 6, 7}) || len(commands) != 3 || string(commands[2]) != "bc" {
		t.Fatalf("%v %q %v", h, commands, err)
	}
	for cut := range len(p.data) - 1 {
		if _, c, err := openPack(nil, p.data[:cut]); err == nil && len(c) == 3 {
			t.Fatalf("cut at %d went unnoticed", cut)
		}
	}
}

func FuzzPack(f *testing.F) {
	f.Add(binary.AppendUvarint(make([]byte, packOverhead), 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, commands, err := openPack(nil, data); err == nil {
			n := packOverhead
			for _, c := range commands {
				n += len(binary.AppendUvarint(nil, uint64(len(c)))) + len(c)
			}
			if n > len(data) {
				t.Fatalf("%d bytes out of %d", n, len(data))
			}
		}
	})
}

// While the lead is handed over Raft takes nothing. What comes then is given back, whole and in order, to be
// offered to the next leader; nobody is told that it failed.
func TestProposalDuringTransferIsGivenBack(t *testing.T) {
	b := newBench(t, vfs.NewMem())
	var back []string
	var waiters []Waiter
	r, err := b.shard.Open(Config{
		Group: 7, ID: 1, Name: "test", Log: b.log, Machine: b.genesis(7, 1, 2, 3), Incarnation: 99, Logger: slog.New(slog.DiscardHandler),
		Again: func(commands [][]byte, all []Waiter) {
			for _, c := range commands {
				back = append(back, string(c))
			}
			waiters = append(waiters, all...)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.elect(r)
	r.Transfer(2)
	one, two := b.propose(r, "one"), b.propose(r, "two")
	b.until("given back", func() bool { return len(back) == 2 })
	if back[0] != "one" || back[1] != "two" || waiters[0] != one || waiters[1] != two {
		t.Errorf("given back: %q", back)
	}
	if one.called+two.called != 0 {
		t.Errorf("the waiters were told %+v, %+v", *one, *two)
	}
}
