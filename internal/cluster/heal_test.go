package cluster

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// on tells whether a stream has a replica on a server, and nothing is being changed.
func on(c *Cluster, name string, server uint64) bool {
	a := c.Stream("$G", name).Assignment()
	return a.Plan != nil || slices.ContainsFunc(a.Replicas, func(r meta.Replica) bool { return r.Server == server })
}

// A server that is dead for too long has its replicas made anew where there is room, a bounded number at a
// time; and back, it lets go of what it has, by the assignment and nothing else.
func TestReReplicationLimits(t *testing.T) {
	c := prepareTrio(t, 4)
	c.more = func(o *Options) { o.ReplaceAfter = time.Second }
	c.startAll()
	const streams = 3 * movesMax
	for i := range streams {
		create(t, c.servers[0], bucket(fmt.Sprint("b", i), 3, api.FileStorage))
	}
	c.putAnywhere(0, "KV_b0", "$KV.b0.k", "v")
	dead := c.servers[3]
	had := 0
	for i := range streams {
		if on(c.servers[0], fmt.Sprint("KV_b", i), dead.id.server) {
			had++
		}
	}
	if had <= movesMax {
		t.Fatalf("only %d streams on the server: the test shows nothing", had)
	}
	dead.Close()
	most := 0
	eventually(t, "all replicas elsewhere", func() bool {
		moving, left := 0, 0
		for i := range streams {
			name := fmt.Sprint("KV_b", i)
			if c.servers[0].Stream("$G", name).Assignment().Plan != nil {
				moving++
			}
			if on(c.servers[0], name, dead.id.server) {
				left++
			}
		}
		most = max(most, moving)
		return left == 0
	})
	if most > movesMax {
		t.Errorf("%d streams were moved at a time", most)
	}
	t.Logf("%d replicas made anew, at most %d at a time", had, most)
	c.start(3)
	c.formed(3)
	eventually(t, "the old server holds what it is to hold, and no more", func() bool {
		for i := range streams {
			s := c.servers[3].Stream("$G", fmt.Sprint("KV_b", i))
			if s == nil {
				return false
			}
			if _, has := s.Assignment().On(dead.id.server); has != (s.local.Load() != nil) {
				return false
			}
		}
		return true
	})
}

// The trap: a cluster of which most servers seem to be gone is more likely cut off than dead, and must not
// begin to copy everything to whom it sees. And a server that was away for a moment now and then was never
// away for long.
func TestGoneServers(t *testing.T) {
	var h healer
	var all []*meta.Server
	for id := range uint64(5) {
		all = append(all, &meta.Server{ID: id})
	}
	now := time.Unix(1000, 0)
	for i, step := range []struct {
		after time.Duration // since the step before
		up    []uint64
		gone  []uint64
	}{
		{0, []uint64{0, 1, 2, 3, 4}, nil},
		{time.Minute, []uint64{0, 1, 2, 3}, nil},
		{9 * time.Minute, []uint64{0, 1, 2, 3}, nil},
		{time.Minute, []uint64{0, 1, 2, 3}, []uint64{4}},
		{time.Second, []uint64{0, 1, 2}, nil}, // Three of five are less than two of three.
		{time.Hour, []uint64{0, 1, 2}, nil},
		{time.Second, []uint64{0, 1, 2, 4}, []uint64{3}},
		{time.Second, []uint64{0, 1, 2, 3, 4}, nil},
		{time.Second, []uint64{0, 1, 2, 4}, nil},
		{9 * time.Minute, []uint64{0, 1, 2, 3, 4}, nil},
		{9 * time.Minute, []uint64{0, 1, 2, 4}, nil},
	} {
		now = now.Add(step.after)
		gone := h.gone(all, func(id uint64) bool { return slices.Contains(step.up, id) }, 10*time.Minute, now)
		if got := slices.Sorted(maps.Keys(gone)); !slices.Equal(got, step.gone) {
			t.Errorf("step %d: %v are gone, want %v", i, got, step.gone)
		}
	}
	if gone := h.gone(all, func(id uint64) bool { return id > 0 }, 0, now.Add(1000*time.Hour)); len(gone) > 0 {
		t.Errorf("gone, though never is when: %v", gone)
	}
}

// A server with an empty disk and the name of a dead one takes its place: it gets a replica of all that
// the dead one had, and never speaks as it.
func TestReplaceDeadServer(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	for i := range 30 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), "v")
	}
	dead := c.servers[2].id.server
	c.servers[2].Close()
	c.putAnywhere(0, "KV_b", "$KV.b.k", "meanwhile")
	c.fs[2] = vfs.NewMem()
	c.start(2)
	c.formed(2)
	fresh := c.servers[2].id.server
	if fresh == dead {
		t.Fatal("an empty disk has the identity of the old one")
	}
	eventually(t, "its replica is a member", func() bool {
		return !on(c.servers[0], "KV_b", dead) && c.servers[0].Stream("$G", "KV_b").Assignment().Plan == nil && on(c.servers[0], "KV_b", fresh)
	})
	c.settled("KV_b", 3)
	if s := c.servers[0].Meta().Server(dead); s == nil || !s.Removed {
		t.Errorf("the old server is a member still: %+v", s)
	}
	eventually(t, "the meta group has the new server for the old one", func() bool {
		return len(c.servers[0].metaGroup.rep.Load().Status().Conf.GetVoters()) == 3
	})
}

// Servers that come back get their leads back, one at a time, and then it is quiet.
func TestLeaderBalanceConverges(t *testing.T) {
	c := prepareTrio(t, 3)
	c.more = func(o *Options) { o.balanceAfter = 500 * time.Millisecond }
	c.startAll()
	const streams = 9
	for i := range streams {
		create(t, c.servers[0], bucket(fmt.Sprint("b", i), 3, api.FileStorage))
	}
	leads := func() (n [3]int) {
		for i, s := range c.servers {
			for j := range streams {
				if st := s.Stream("$G", fmt.Sprint("KV_b", j)); st != nil && st.IsLeader() {
					n[i]++
				}
			}
		}
		return n
	}
	var before [3]int
	eventually(t, "all lead", func() bool { before = leads(); return before[0]+before[1]+before[2] == streams })
	if before[1] == 0 {
		t.Fatalf("leads %v: the test shows nothing", before)
	}
	c.servers[1].Close()
	eventually(t, "the others lead", func() bool { n := leads(); return n[0]+n[2] == streams })
	c.start(1)
	c.formed(1)
	eventually(t, "the leads are where they were", func() bool { return leads() == before })
	time.Sleep(2 * time.Second)
	if n := leads(); n != before {
		t.Errorf("leads moved on: %v, then %v", before, n)
	}
}

// A server that comes back with what it holds before its replica was made anew elsewhere takes its seat again:
// the plan is cancelled, and what was begun is taken away.
func TestReturningServerCancelsThePlan(t *testing.T) {
	c := prepareTrio(t, 4)
	c.more = func(o *Options) { o.ReplaceAfter = time.Second }
	disks := make([]*spoiler, 4)
	for i := range c.fs {
		disks[i] = &spoiler{FS: vfs.NewMem()}
		c.fs[i] = disks[i]
	}
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.known("KV_b")
	c.putAnywhere(0, "KV_b", "$KV.b.k", "v")
	before := c.settled("KV_b", 3)
	dead, other := -1, -1
	for i, s := range c.servers {
		st := s.Stream("$G", "KV_b")
		switch {
		case st.Machine() == nil:
			other = i
		case !st.IsLeader():
			dead = i
		}
	}
	disks[other].left.Store(1 << 30) // Who is to get the replica never does.
	c.fallBehind(dead, "KV_b", "$KV.b.k")
	look := c.servers[other].Stream("$G", "KV_b")
	var plan *meta.Plan
	eventually(t, "a replica begun elsewhere", func() bool {
		plan = look.Assignment().Plan
		return plan != nil && look.rep.Load() != nil && disks[other].left.Load() < 1<<30
	})
	if !plan.Absent || len(plan.Add) != 1 {
		t.Fatalf("plan %+v", plan)
	}
	c.start(dead)
	c.formed(dead)
	after := c.settled("KV_b", 3)
	if !slices.Equal(after.Replicas, before.Replicas) {
		t.Errorf("replicas %v, where there were %v", after.Replicas, before.Replicas)
	}
	eventually(t, "what was begun is gone", func() bool {
		for _, s := range c.servers {
			st := s.Stream("$G", "KV_b")
			if r := st.rep.Load(); r != nil && st.IsLeader() {
				conf := r.Status().Conf
				return len(conf.GetVoters()) == 3 && len(conf.GetLearners()) == 0 && look.local.Load() == nil
			}
		}
		return false
	})
}
