package cluster

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/sim/simfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// homes are the places of the servers that have a replica, in the order of the assignment.
func (c *trio) homes(name string) (all []int) {
	c.t.Helper()
	for _, r := range c.servers[0].Stream("$G", name).Assignment().Replicas {
		for i, s := range c.servers {
			if s.id.server == r.Server {
				all = append(all, i)
			}
		}
	}
	return all
}

// garble stops all servers, makes the ends of the logs of some into garbage, and starts all again.
func (c *trio) garble(lost ...int) {
	c.t.Helper()
	for i := range c.servers {
		c.servers[i].Close()
	}
	for _, i := range lost {
		damageTail(c.t, c, i)
	}
	c.startAll()
}

func soon(o *Options) { o.stuckAfter, o.mendEvery = 300*time.Millisecond, 50*time.Millisecond }

// replicated makes a bucket with so many replicas and something in it.
func (c *trio) replicated(n int) *meta.Stream {
	c.t.Helper()
	create(c.t, c.servers[0], bucket("b", n, api.FileStorage))
	for i := range 30 {
		c.putAnywhere(i%len(c.servers), "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprint("v", i))
	}
	return c.settled("KV_b", n)
}

// has holds that all of that is there, on the given server.
func (c *trio) has(i int) {
	c.t.Helper()
	for k := range 30 {
		c.read(i, "KV_b", fmt.Sprintf("$KV.b.k%d", k), fmt.Sprint("v", k))
	}
}

// Half of the replicas lost what nobody knows of their logs: nobody can lead any more, but whatever was acknowledged is
// on the others. The bucket comes back with it, by itself, and with as many replicas as it had.
func TestEvenGroupBeginsAnew(t *testing.T) {
	for replicas, servers := range map[int]int{2: 3, 4: 5} {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			c := prepareTrio(t, servers)
			c.more = soon
			c.startAll()
			before := c.replicated(replicas)
			homes := c.homes("KV_b")
			c.garble(homes[:replicas/2]...)
			after := c.settled("KV_b", replicas)
			kept := 0
			for _, r := range after.Replicas {
				was, had := before.On(r.Server)
				if had && was.ID == r.ID {
					kept++
				}
			}
			if kept != 1 || after.Reformed == 0 {
				t.Errorf("replicas %v, where there were %v; %d of them are the same, want 1", after.Replicas, before.Replicas, kept)
			}
			c.has(homes[0])
			for _, i := range homes {
				if c.marked(i, frozenMarking) {
					t.Errorf("server %d has a frozen replica still", i)
				}
			}
			c.putAnywhere(1, "KV_b", "$KV.b.k0", "later")
			c.crash(homes[replicas-1])
			c.putAnywhere(homes[replicas-1], "KV_b", "$KV.b.k1", "and later")
			c.settled("KV_b", replicas)
		})
	}
}

// The trap: two of three logs have garbage at their ends, and what was there may have been acknowledged by the two alone.
// The third one's log is no reason to go on: the bucket waits, and says why.
func TestOddGroupWaitsAndSaysWhy(t *testing.T) {
	c := prepareTrio(t, 5)
	c.more = soon
	c.startAll()
	before := c.replicated(3)
	homes := c.homes("KV_b")
	c.garble(homes[0], homes[1])
	whole := c.servers[homes[2]]
	eventually(t, "it says why", func() bool {
		s := whole.Stream("$G", "KV_b")
		if s == nil {
			return false
		}
		err := s.Healthy()
		return err != nil && strings.Contains(err.Error(), "lost parts of their logs that nobody knows") && strings.Contains(err.Error(), "cleat cluster recover")
	})
	time.Sleep(time.Second)
	s := whole.Stream("$G", "KV_b")
	if a := s.Assignment(); a.Reformed != 0 || fmt.Sprint(a.Replicas) != fmt.Sprint(before.Replicas) || s.rep.Load() == nil || s.frozen.Load() != nil {
		t.Errorf("it did not wait: %+v", a)
	}
	if _, err := put(t, s, "$KV.b.k0", "later"); err == nil {
		t.Error("a put was acknowledged")
	}
}

// One of two is missing: it may be the one that is well, or have lost all. The other one waits for it.
func TestReformWaitsForTheMissing(t *testing.T) {
	c := prepareTrio(t, 4)
	c.more = soon
	c.startAll()
	c.replicated(2)
	homes := c.homes("KV_b")
	c.servers[homes[0]].Close()
	whole := c.servers[homes[1]]
	s := whole.Stream("$G", "KV_b")
	eventually(t, "it says whom it waits for", func() bool {
		err := s.Healthy()
		return err != nil && strings.Contains(err.Error(), "do not answer: \""+c.servers[homes[0]].opts.Name)
	})
	if s.frozen.Load() != nil {
		t.Fatal("it is frozen")
	}
	c.start(homes[0])
	c.formed(homes[0])
	c.settled("KV_b", 2)
	c.has(homes[0])
}

// The power of the one server that has all that was acknowledged goes at each step of the way on which its bucket begins
// anew; the other one of the two lost its log. However far it had come, it comes back with everything.
func TestAllMembersRecoveryCrashEveryStep(t *testing.T) {
	c := prepareTrio(t, 3)
	for i := range c.fs {
		c.fs[i] = simfs.New(uint64(i+1), simfs.Journal)
	}
	c.startAll()
	c.replicated(2)
	homes := c.homes("KV_b")
	for i := range c.servers {
		c.servers[i].Close()
	}
	damageTail(t, c, homes[0])
	const stepsMax = 16
	var interrupted atomic.Int64
	t.Run("steps", func(t *testing.T) {
		for step := 1; step <= stepsMax; step++ {
			t.Run(fmt.Sprint(step), func(t *testing.T) {
				t.Parallel()
				if beginAnewUntil(t, c.fs, homes[1], step) {
					interrupted.Add(1)
				}
			})
		}
	})
	if n := interrupted.Load(); n < 8 || n == stepsMax {
		t.Errorf("%d of %d steps were interrupted: not all were met, or hardly any", n, stepsMax)
	}
}

// beginAnewUntil cuts the power of the server with the best log at some step on its way, if it has so many, and lets it
// go on.
func beginAnewUntil(t *testing.T, left []vfs.FS, source, step int) (interrupted bool) {
	c := prepareTrio(t, len(left))
	c.more = func(o *Options) {
		soon(o)
		o.OnFatal = func(error) {} // Of a server without power.
	}
	for i := range c.fs {
		c.fs[i] = left[i].(*simfs.FS).CrashClone(simfs.Everything, uint64(step))
	}
	disk := c.fs[source].(*simfs.FS)
	var begun, gone atomic.Bool
	var ops atomic.Int64
	disk.SetHook(func(op simfs.Op) error {
		if strings.Contains(op.Path, frozenMarking) {
			begun.Store(true)
		}
		// What makes something of it durable counts, from its mark on.
		if begun.Load() && !strings.Contains(op.Path, "/meta/") && (strings.HasPrefix(op.Kind, "sync") || strings.HasPrefix(op.Kind, "re") && op.Kind != "read") {
			if ops.Add(1) >= int64(step) {
				gone.Store(true)
			}
		}
		if gone.Load() {
			return errDiskGone
		}
		return nil
	})
	c.startAll()
	eventually(t, "an end, or no power", func() bool {
		s := c.servers[source].Stream("$G", "KV_b")
		return gone.Load() || s != nil && s.Assignment().Reformed > 0 && s.Healthy() == nil
	})
	if gone.Load() {
		c.servers[source].Close()
		disk.SetHook(nil)
		c.fs[source] = disk.CrashClone(simfs.Outcome(step%4), uint64(step))
		c.start(source)
		c.formed(source)
	}
	interrupted = gone.Load()
	disk.SetHook(nil)
	c.settled("KV_b", 2)
	c.has(source)
	c.putAnywhere(0, "KV_b", "$KV.b.k", "later")
	return interrupted
}

// Where too much is lost for that, an operator goes on from one server alone; what is frozen there is what it goes on with.
func TestRecoverGoesOnWithFrozen(t *testing.T) {
	c := newTrio(t, 3)
	c.replicated(3)
	s := c.servers[0]
	engine := c.engineOn(0, "KV_b")
	self, _ := s.Stream("$G", "KV_b").Assignment().On(s.id.server)
	for i := range c.servers {
		c.servers[i].Close()
	}
	if err := s.markFrozen(engine, &frozen{id: self.ID, remains: replica.Remains{Member: self.ID, Frozen: true}}); err != nil {
		t.Fatal(err)
	}
	c.recoverFrom(0)
	c.start(0)
	c.formed(0)
	c.has(0)
	c.putAnywhere(0, "KV_b", "$KV.b.k0", "later")
	if c.marked(0, frozenMarking) {
		t.Error("it is marked still")
	}
}

// One of those that lost their logs is being replaced already: the new one has no vote yet, and the old one's is lost
// all the same.
func TestReformAmidReplacement(t *testing.T) {
	c := newTrio(t, 5)
	before := c.replicated(4)
	homes := c.homes("KV_b")
	c.garble(homes[0], homes[1])
	lost := func(i int) bool {
		s := c.servers[i].Stream("$G", "KV_b")
		return s != nil && s.lost.Load() != nil
	}
	eventually(t, "two are lost", func() bool { return lost(homes[0]) && lost(homes[1]) })
	told, err := call(t, func(done func(any, error)) {
		c.servers[homes[0]].ProposeMeta(meta.Encode(meta.KindReplicaLost, &meta.ReplicaLost{
			Account: "$G", Name: "KV_b", Group: before.Group, Replica: before.Replicas[0].ID,
		}), WaiterFunc(done))
	})
	if err != nil || told.(*meta.Result).Stream == nil || told.(*meta.Result).Stream.Plan == nil {
		t.Fatalf("%+v, %v", told, err)
	}
	eventually(t, "it makes way", func() bool { return !lost(homes[0]) })
	eventually(t, "it begins anew", func() bool {
		s := c.servers[homes[2]].Stream("$G", "KV_b")
		return s.Assignment().Reformed > 0
	})
	c.settled("KV_b", 4)
	c.has(homes[0])
}
