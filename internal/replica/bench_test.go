package replica

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// newSpeedBench is a bench whose log is written by Step, and nothing kept of what was sent.
func newSpeedBench(b *testing.B) *bench {
	b.Helper()
	l, err := wal.Open(wal.Options{FS: vfs.NewMem(), Dir: "wal", SegmentBytes: 64 << 20, ServerID: 1, ClusterID: 1, Stepped: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	n := &bench{log: l}
	n.shard = NewShard(n, l, slog.New(slog.DiscardHandler))
	return n
}

// openFor opens a member of a group of the given voters.
func (b *bench) openFor(t testing.TB, group wal.GroupID, home func(uint64) uint64, voters ...uint64) *Replica {
	t.Helper()
	b.log.Submit([]wal.Update{Genesis(group)}, nil)
	b.sync()
	m := &register{at: Entry{Index: GenesisIndex, Term: GenesisTerm, Conf: EncodeConf(&pb.ConfState{Voters: voters})}}
	r, err := b.shard.Open(Config{
		Group: group, ID: 1, Name: "bench", Log: b.log, Machine: m, Incarnation: 99, Logger: slog.New(slog.DiscardHandler), Home: home,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// BenchmarkTurnIdle is a tick of a shard on which nobody uses any group: followers of leaders elsewhere, that
// tick and answer their heartbeats, or rest.
func BenchmarkTurnIdle(b *testing.B) {
	for _, groups := range []int{100, 1000, 10000} {
		for _, rests := range []bool{false, true} {
			name := fmt.Sprintf("%dgroups/awake", groups)
			if rests {
				name = fmt.Sprintf("%dgroups/resting", groups)
			}
			b.Run(name, func(b *testing.B) { benchmarkTurnIdle(b, groups, rests) })
		}
	}
}

func benchmarkTurnIdle(b *testing.B, groups int, rests bool) {
	n := newSpeedBench(b)
	var all []*Replica
	for g := range groups {
		all = append(all, n.openFor(b, wal.GroupID(g+1), func(member uint64) uint64 { return member }, 1, 2, 3))
	}
	beat := func(offer bool) {
		for _, r := range all {
			m := message(pb.MsgHeartbeat, 2, 1, 5)
			m.Commit = new(uint64(GenesisIndex))
			if offer {
				m.Context = restContext(restOffer, 1)
			}
			n.shard.Receive(r, m)
		}
		n.shard.Turn(false)
		n.sync()
		n.shard.Turn(false)
	}
	n.shard.Beat(2)
	beat(false)
	if rests {
		beat(true)
		for _, r := range all {
			if !r.Status().Resting {
				b.Fatal("a group does not rest")
			}
		}
	}
	for ticks := 0; b.Loop(); ticks++ {
		n.sent = n.sent[:0]
		switch {
		case ticks%BeatTicks > 0:
		case rests:
			n.shard.Beat(2)
			if ticks%restRound == 0 {
				beat(true)
			}
		default:
			beat(false)
		}
		n.shard.Turn(true)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(groups), "ns/group")
}

// alone is a group of one that leads.
func alone(b *testing.B) (*bench, *Replica) {
	n := newSpeedBench(b)
	r := n.openFor(b, 7, nil, 1)
	for !r.Status().Leading {
		n.shard.Turn(true)
		n.sync()
	}
	return n, r
}

// BenchmarkProposePack is a command on its way through Raft, the log in memory and the machine, when so many are
// proposed at a time.
func BenchmarkProposePack(b *testing.B) {
	for _, commands := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("%dcommands", commands), func(b *testing.B) {
			n, r := alone(b)
			m := r.cfg.Machine.(*register)
			command, done := make([]byte, 128), 0
			w := benchWaiter{&done}
			b.ReportAllocs()
			left := 0
			for b.Loop() {
				if left--; left < 0 { // An operation is a command.
					want := done + commands
					for range commands {
						if err := r.Propose(command, w); err != nil {
							b.Fatal(err)
						}
					}
					for done < want {
						n.shard.Turn(false)
						n.sync()
					}
					m.values, m.stamps = m.values[:0], m.stamps[:0]
					left = commands - 1
				}
			}
		})
	}
}

type benchWaiter struct{ done *int }

func (w benchWaiter) Done(any, error) { *w.done++ }

// BenchmarkReadIndexShared is a linearizable read of a group of three, when so many are asked at a time:
// one round of heartbeats serves them all.
func BenchmarkReadIndexShared(b *testing.B) {
	for _, reads := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("%dreads", reads), func(b *testing.B) {
			n := newSpeedBench(b)
			r := n.openFor(b, 7, nil, 1, 2, 3)
			n.lead(b, r)
			done := 0
			finish := func(err error) {
				if err != nil {
					b.Fatal(err)
				}
				done++
			}
			b.ReportAllocs()
			left := 0
			for b.Loop() {
				if left--; left < 0 { // An operation is a read.
					want := done + reads
					for range reads {
						r.ReadIndex(finish)
					}
					for done < want {
						n.shard.Turn(false)
						n.answer()
					}
					left = reads - 1
				}
			}
		})
	}
}

// lead has the replicas elected.
func (b *bench) lead(t testing.TB, all ...*Replica) {
	t.Helper()
	for range 1000 {
		if !slices.ContainsFunc(all, func(r *Replica) bool { return !r.Status().Leading }) {
			return
		}
		b.shard.Turn(true)
		b.sync()
		b.answer()
	}
	t.Fatal("not elected")
}

// answer is member 2 of all groups, which agrees to everything.
func (b *bench) answer() {
	types := map[pb.MessageType]pb.MessageType{
		pb.MsgPreVote: pb.MsgPreVoteResp, pb.MsgVote: pb.MsgVoteResp, pb.MsgApp: pb.MsgAppResp, pb.MsgHeartbeat: pb.MsgHeartbeatResp,
	}
	sent := b.sent
	b.sent = nil
	for _, o := range sent {
		m := o.Message
		typ, ok := types[m.GetType()]
		if !ok || m.GetTo() != 2 {
			continue
		}
		resp := message(typ, 2, 1, m.GetTerm())
		resp.Context = m.GetContext()
		if typ == pb.MsgAppResp {
			resp.Index = new(m.GetIndex() + uint64(len(m.GetEntries())))
		}
		b.shard.Receive(o.From, resp)
	}
	b.shard.Turn(false)
}
