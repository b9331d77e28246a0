package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/sim/simfs"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// oneCluster demands that all servers are members of one cluster, each with a member id of its own.
func (c *trio) oneCluster() {
	c.t.Helper()
	members := map[uint64]bool{}
	for i, s := range c.servers {
		id := s.identity()
		if id.cluster == 0 || id.cluster != c.servers[0].identity().cluster {
			c.t.Fatalf("server %d is in cluster %016x, server 0 in %016x", i, id.cluster, c.servers[0].identity().cluster)
		}
		if members[id.member] {
			c.t.Fatalf("member id %d is there twice", id.member)
		}
		members[id.member] = true
	}
}

// The trap: a cluster that is founded again, by a majority of a guess, or because somebody tells of
// another founding. Each seed accepts one founding in its life, and goes on with that after any restart.
func TestGenesisOnce(t *testing.T) {
	c := newTrio(t, 3)
	c.oneCluster()
	was := c.servers[0].identity().cluster
	// Another founding is proposed, and committed, to somebody who has accepted one.
	s := c.servers[1]
	other := &genesis{Cluster: 0xdead, Servers: []meta.Server{{ID: s.id.server, Member: 1}}}
	if err := s.founding.accept(other); err == nil {
		t.Error("a second founding was accepted")
	}
	for i := range c.servers {
		c.servers[i].Close()
	}
	for i := range c.servers {
		c.start(i)
	}
	for i := range c.servers {
		c.formed(i)
	}
	c.oneCluster()
	if now := c.servers[0].identity().cluster; now != was {
		t.Errorf("after a restart of all the cluster is %016x, it was %016x", now, was)
	}
	eventually(t, "a bucket", func() bool {
		_, err := call(t, func(done func(*Stream, error)) {
			c.servers[2].CreateStream("$G", bucket("b", 3, api.FileStorage), noLimits, func(s *Stream, _ bool, err error) { done(s, err) })
		})
		return err == nil
	})
}

// The trap: a founder that crashes half way through founds again, or is left out for ever. Its disk is taken
// away at one write or sync after the other; started again on what is left it is a member of the one cluster.
func TestGenesisCrashEveryStep(t *testing.T) {
	total := foundWithCrash(t, 0) // Counts.
	if total < 10 {
		t.Fatalf("only %d operations on the disk", total)
	}
	for i := range 8 {
		foundWithCrash(t, 1+i*(total-1)/8)
	}
}

var errDiskGone = errors.New("the disk is gone")

// foundWithCrash founds a cluster of three, in which one loses its disk at its nth operation, if n is not 0,
// and what it had not synced. It returns how many operations there were until the cluster was founded.
func foundWithCrash(t *testing.T, n int) int {
	t.Helper()
	c := prepareTrio(t, 3)
	disk := simfs.New(uint64(n), simfs.Journal)
	c.fs[1] = disk
	var ops atomic.Int64
	disk.SetHook(func(simfs.Op) error {
		if k := ops.Add(1); n > 0 && k >= int64(n) {
			return errDiskGone
		}
		return nil
	})
	crashed := make(chan struct{}, 1)
	first := New(Options{
		FS: disk, Dir: "data", Name: "n1", Hooks: deaf{}, Logger: logger(t), OnFatal: func(error) { crashed <- struct{}{} },
		Route: &Route{Cluster: "C", Listen: c.routes[1], Seeds: c.routes},
	})
	startErr := first.Start()
	c.start(0)
	c.start(2)
	if n == 0 {
		c.servers[1] = first
		for i := range c.servers {
			c.formed(i)
		}
		c.oneCluster()
		return int(ops.Load())
	}
	if startErr == nil {
		select {
		case <-crashed:
		case <-first.Formed():
		case <-time.After(10 * time.Second):
			t.Fatalf("crash at operation %d: neither founded nor failed", n)
		}
	}
	first.Close()
	disk.SetHook(nil)
	c.fs[1] = disk.CrashClone(simfs.Nothing, uint64(n))
	c.start(1)
	for i := range c.servers {
		c.formed(i)
	}
	c.oneCluster()
	for _, s := range c.servers {
		s.Close()
	}
	return 0
}

// The trap: a voter comes back with an empty disk under its old raft id, and votes for a leader that lacks
// what it had acknowledged itself. An empty disk is a new server, which speaks for nobody before a
// majority of the others has admitted it.
func TestBlankServerNeverVotes(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	s := c.servers[0].Stream("$G", "KV_b")
	wiped := c.servers[2]
	for i := range 10 {
		c.putAnywhere(0, "KV_b", "$KV.b.k", fmt.Sprint("v", i))
	}
	for _, server := range c.servers[1:] {
		server.Close()
	}
	// One of three is left, and one comes back wiped: that is no majority.
	c.fs[2] = vfs.NewMem()
	c.start(2)
	vote := &pb.Message{Type: pb.MsgVote.Enum(), From: new(uint64(1)), To: new(wiped.id.member), Term: new(uint64(99)), Index: new(uint64(99)), LogTerm: new(uint64(99))}
	if err := c.servers[2].receiveRaft(c.servers[0].id.server, peer.AppendMessage(nil, meta.MetaGroup, vote)); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Second)
	select {
	case <-c.servers[2].Formed():
		t.Fatal("a server without data was admitted by a minority")
	default:
	}
	if s.Healthy() == nil || c.servers[0].MetaHealthy() == nil {
		t.Fatal("there is a leader without a majority")
	}
	c.start(1)
	c.formed(1)
	c.formed(2)
	s = waitStream(t, c.servers[1], "KV_b")
	eventually(t, "what was acknowledged", func() bool {
		v, err := get(t, s, "$KV.b.k")
		return err == nil && v == "v9"
	})
	eventually(t, "the wiped server has a replica of its own", func() bool {
		a := c.servers[0].Stream("$G", "KV_b").Assignment()
		return a.Plan == nil && slices.ContainsFunc(a.Replicas, func(r meta.Replica) bool { return r.Server == c.servers[2].id.server })
	})
	c.settled("KV_b", 3)
}
