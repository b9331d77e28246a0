package replica

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/sim/simfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// slowBench is a leader of three, member 1, whose syncs take until they are let through one by one.
type slowBench struct {
	*bench
	r    *Replica
	sync chan struct{} // a value lets one sync through; closed, all
	back []string      // commands that were given back
}

func newSlowBench(t *testing.T) *slowBench {
	t.Helper()
	fs := simfs.New(1, simfs.Strict)
	b := &slowBench{bench: newBench(t, fs), sync: make(chan struct{})}
	var err error
	b.r, err = b.shard.Open(Config{
		Group: 7, ID: 1, Name: "test", Log: b.log, Machine: b.genesis(7, 1, 2, 3), Incarnation: 99, Logger: slog.New(slog.DiscardHandler),
		Again: func(commands [][]byte, _ []Waiter) {
			for _, c := range commands {
				b.back = append(b.back, string(c))
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.electBy(b.r, 2, 3)
	b.until("is on disk", func() bool { return b.r.appends == 0 && !b.r.committedWithout() })
	fs.SetHook(func(op simfs.Op) error {
		if op.Kind == "sync-data" {
			<-b.sync
		}
		return nil
	})
	t.Cleanup(func() {
		fs.SetHook(nil)
		select {
		case <-b.sync:
		default:
			close(b.sync)
		}
	})
	return b
}

// ticks lets time pass, with members that acknowledge what they are sent, and returns whom this one asked to
// take the lead.
func (b *slowBench) ticks(n int, quick ...uint64) (asked []uint64) {
	for range n {
		b.shard.Turn(false)
		asked = append(asked, b.answers(quick)...)
		b.shard.Turn(true)
		asked = append(asked, b.answers(quick)...)
	}
	return asked
}

// answers has the members answer what they were sent. All live; those with a quick disk acknowledge entries.
func (b *slowBench) answers(quick []uint64) (asked []uint64) {
	for len(b.sent) > 0 {
		m := b.sent[0].Message
		b.sent = b.sent[1:]
		resp := &pb.Message{From: m.To, To: m.From, Term: m.Term}
		switch m.GetType() {
		case pb.MsgTimeoutNow:
			asked = append(asked, m.GetTo())
			continue
		case pb.MsgHeartbeat:
			resp.Type, resp.Context = pb.MsgHeartbeatResp.Enum(), m.GetContext()
		case pb.MsgApp:
			if !slices.Contains(quick, m.GetTo()) {
				continue
			}
			resp.Type, resp.Index = pb.MsgAppResp.Enum(), new(m.GetIndex()+uint64(len(m.GetEntries())))
		default:
			continue
		}
		b.shard.Receive(b.r, resp)
		b.shard.Turn(false)
	}
	return asked
}

// The trap: a leader executes only what its own disk has. One whose disk stood still kept its bucket from all
// writes, for as long as that lasted, with two members that had everything.
func TestLeaderWithStillDiskHandsOver(t *testing.T) {
	b := newSlowBench(t)
	first := b.propose(b.r, "first")
	if asked := b.ticks(stillTicks+4, 2, 3); len(asked) == 0 {
		t.Fatalf("nobody was asked to take the lead in %d ticks, with log entry %d committed", stillTicks+4, b.r.Status().Committed)
	}
	// What was proposed waits for its outcome, what was not goes to the next leader, though the disk stands still.
	second := b.propose(b.r, "second")
	term := b.r.Status().Term + 1
	b.shard.Receive(b.r, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: &term, Commit: new(uint64(GenesisIndex))})
	b.until("given back", func() bool { return len(b.back) > 0 })
	if b.back[0] != "second" || first.called+second.called != 0 {
		t.Errorf("given back %q; told %+v, %+v", b.back, first, second)
	}
	close(b.sync)
	b.until("told", func() bool { return first.called > 0 })
	if first.err != nil {
		t.Errorf("what was committed: %v", first.err)
	}
}

// Who does not take the lead is not asked again before the other was.
func TestStillDiskAsksAllInTurn(t *testing.T) {
	b := newSlowBench(t)
	b.propose(b.r, "x")
	asked := b.ticks(5*electionTicks, 2, 3)
	if len(asked) < 2 || asked[0] == asked[1] {
		t.Errorf("asked to take the lead: %v", asked)
	}
}

// A leader without which nothing would be committed keeps the lead, however slow its disk is.
func TestLeaderThatIsNeededStays(t *testing.T) {
	b := newSlowBench(t)
	b.propose(b.r, "x")
	if asked := b.ticks(10*stillTicks, 2); len(asked) > 0 {
		t.Errorf("asked %v to take the lead with one disk of three that works", asked)
	}
}

// A disk that works, but always slower than the two others, costs the lead too, and one that is the slowest now and
// then does not.
func TestLeaderWithSlowDiskHandsOver(t *testing.T) {
	for _, test := range []struct {
		late, of int // rounds in which the disk is the last, of so many
		want     bool
	}{{1, 1, true}, {2, 3, false}} {
		b := newSlowBench(t)
		handedOver := false
		for n := 0; n < 4*slowMax && !handedOver; n++ {
			o := b.propose(b.r, "x")
			if n%test.of >= test.late {
				b.shard.Turn(false)
				b.sync <- struct{}{}
				b.until("on disk", func() bool { return b.r.appends == 0 })
			}
			handedOver = len(b.ticks(1, 2, 3)) > 0
			if n%test.of < test.late {
				b.sync <- struct{}{}
			}
			if !handedOver {
				b.until("executed", func() bool { return o.called > 0 })
			}
		}
		if handedOver != test.want {
			t.Errorf("last in %d of %d rounds: handed over %v", test.late, test.of, handedOver)
		}
	}
}
