package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
)

// Where each replica holds something else, nobody can tell who is right: the stream stops everywhere, and
// says which, where and at what place, also when the servers are started again. Somebody chooses one, and the
// others get its state.
func TestTieStopsTheStreamUntilSomebodyChooses(t *testing.T) {
	c := prepareTrio(t, 3)
	c.more = func(o *Options) { o.CompareEvery = 500 * time.Millisecond }
	c.startAll()
	c.tied("b")
	c.tied("d")
	c.closeAll()
	c.startAll()
	for i, s := range c.servers {
		eventually(t, "the stream is known", func() bool { return s.Stream("$G", "KV_b") != nil })
		st := s.Stream("$G", "KV_b")
		saysTie(t, i, st.healthy())
		if st.Machine() != nil {
			t.Errorf("server %d serves what it holds", i)
		}
	}
	c.deleteTied("d")
	c.closeAll()
	before := c.servers[2].Stream("$G", "KV_b").Assignment()
	c.mark(2, "", blindMarking)
	c.startAll()
	after := c.settled("KV_b", 3)
	for i, s := range c.servers {
		st := waitStream(t, s, "KV_b")
		for k := range 2 {
			if v, err := get(t, st, fmt.Sprintf("$KV.b.k%d", k)); err != nil || v != "v" {
				t.Errorf("server %d: k%d is %q, %v", i, k, v, err)
			}
		}
	}
	if !slices.Equal(after.Replicas, before.Replicas) {
		t.Errorf("replicas %v, they were %v", after.Replicas, before.Replicas)
	}
}

// Whoever goes on from one server has chosen what that one holds.
func TestRecoveryEndsATie(t *testing.T) {
	c := prepareTrio(t, 3)
	c.more = func(o *Options) { o.CompareEvery = 500 * time.Millisecond }
	c.startAll()
	c.tied("b")
	c.closeAll()
	if got := c.recoverFrom(2).outcome("KV_b"); got != OutcomeKept {
		t.Fatalf("it is %s", got)
	}
	c.start(2)
	c.formed(2)
	for k := range 2 {
		if v, err := get(t, waitStream(t, c.servers[2], "KV_b"), fmt.Sprintf("$KV.b.k%d", k)); err != nil || v != "v" {
			t.Errorf("k%d is %q, %v", k, v, err)
		}
	}
}

// tied makes a bucket of which each replica holds something else, the one of n2 what was put, and waits until it
// has stopped.
func (c *trio) tied(name string) {
	t, stream := c.t, "KV_"+name
	t.Helper()
	create(t, c.servers[0], bucket(name, 3, api.FileStorage))
	for i := range 10 {
		c.putAnywhere(i%3, stream, fmt.Sprintf("$KV.%s.k%d", name, i), "v")
	}
	c.settled(stream, 3)
	for i, s := range c.servers[:2] {
		drift(t, s.Stream("$G", stream), fmt.Sprintf("$KV.%s.k%d", name, i))
	}
	c.putAnywhere(0, stream, fmt.Sprintf("$KV.%s.n", name), "new")
	for i, s := range c.servers {
		var stopped error
		eventually(t, "it stops", func() bool {
			stopped = s.Stream("$G", stream).rep.Load().Status().Stopped
			return stopped != nil
		})
		saysTie(t, i, stopped)
		if isLoss(stopped) {
			t.Errorf("server %d is to be replaced: %v", i, stopped)
		}
	}
}

// deleteTied deletes a bucket whose replicas are not served, and looks whether anything of it stays in the way.
func (c *trio) deleteTied(name string) {
	t := c.t
	t.Helper()
	eventually(t, "the stream is known", func() bool { return c.servers[0].Stream("$G", "KV_"+name) != nil })
	group := c.servers[0].Stream("$G", "KV_"+name).id
	var engines []string
	for i, s := range c.servers {
		eventually(t, "the stream is known", func() bool { return s.Stream("$G", "KV_"+name) != nil })
		engines = append(engines, engineName(group, c.memberOf(i, "KV_"+name)))
	}
	if _, err := call(t, func(done func(*meta.Stream, error)) {
		c.servers[0].DeleteStream("$G", "KV_"+name, done)
	}); err != nil {
		t.Fatal(err)
	}
	for i, s := range c.servers {
		eventually(t, "it is gone", func() bool {
			_, err := c.fs[i].Stat("data/" + streamsDir + "/" + engines[i])
			_, logged := s.log.State(group)
			_, mark := c.fs[i].Stat("data/" + damagedDir + "/" + engines[i] + tieMarking)
			return err != nil && !logged && mark != nil
		})
	}
}

func saysTie(t *testing.T, server int, err error) {
	t.Helper()
	for _, want := range []string{"$G > KV_", `"n0"`, `"n1"`, `"n2"`, "at log entry "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("server %d: %v says nothing of %s", server, err, want)
		}
	}
}

// memberOf is the raft id of a stream's replica on a server.
func (c *trio) memberOf(i int, stream string) uint64 {
	a := c.servers[i].Stream("$G", stream).Assignment()
	on, _ := a.On(c.servers[i].id.server)
	return on.ID
}

func (c *trio) closeAll() {
	c.t.Helper()
	for i, s := range c.servers {
		if err := s.Close(); err != nil {
			c.t.Errorf("close server %d: %v", i, err)
		}
	}
}

// mark does what docs/recovery.md says to choose what a server holds: it makes other marks of those of a tie, or
// removes them.
func (c *trio) mark(server int, chosen, others string) {
	c.t.Helper()
	for i, fsys := range c.fs {
		dir := "data/" + damagedDir
		names, err := fsys.List(dir)
		if err != nil {
			c.t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, tieMarking) })
		if len(names) != 1 {
			c.t.Fatalf("server %d has marks %v", i, names)
		}
		marking := others
		if i == server {
			marking = chosen
		}
		if marking == "" {
			err = fsys.Remove(filepath.Join(dir, names[0]))
		} else {
			err = fsys.Rename(filepath.Join(dir, names[0]), filepath.Join(dir, strings.TrimSuffix(names[0], tieMarking)+marking))
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// driftMeta changes what a server holds of the meta group, behind the back of everybody.
func driftMeta(t *testing.T, s *Cluster, what string) {
	t.Helper()
	done := make(chan error, 1)
	s.shards[0].Call(func() {
		tx := s.metaEngine.Begin()
		tx.SetAux("drift", []byte(what))
		done <- tx.Commit(s.metaEngine.Applied())
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// metaAgrees waits until all servers hold the same of the meta group, without what was put there.
func (c *trio) metaAgrees() {
	c.t.Helper()
	eventually(c.t, "the same everywhere", func() bool {
		first, err := c.servers[0].MetaDigest()
		for _, s := range c.servers {
			d, err2 := s.MetaDigest()
			if err != nil || err2 != nil || d != first {
				return false
			}
			if _, drifted := s.metaEngine.Aux("drift"); drifted {
				return false
			}
		}
		return true
	})
}

// A server that holds something else of the meta group than the others is found, whether it leads or not. It
// stops, and takes a new seat when it is started again.
func TestDriftedMetaReplicaIsRebuilt(t *testing.T) {
	c := prepareTrio(t, 3)
	fatal := make(chan string, 3)
	c.more = func(o *Options) {
		o.CompareEvery = 300 * time.Millisecond
		o.OnFatal = func(err error) {
			if isLoss(err) {
				fatal <- o.Name
			}
		}
	}
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	before := c.settled("KV_b", 3)
	for _, leads := range []bool{false, true} {
		eventually(t, "a leader", func() bool {
			return slices.ContainsFunc(c.servers, func(s *Cluster) bool { return s.metaGroup.leads() })
		})
		i := slices.IndexFunc(c.servers, func(s *Cluster) bool { return s.metaGroup.leads() == leads })
		was := c.servers[i].identity().member
		driftMeta(t, c.servers[i], "x")
		create(t, c.servers[(i+1)%3], bucket(fmt.Sprint("c", leads), 1, api.FileStorage))
		select {
		case who := <-fatal:
			if who != fmt.Sprint("n", i) {
				t.Fatalf("%s stops, n%d holds something else", who, i)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nobody noticed")
		}
		c.servers[i].Close()
		c.start(i)
		c.formed(i)
		c.seated(i, was)
		c.metaAgrees()
	}
	if after := c.settled("KV_b", 3); !slices.Equal(after.Replicas, before.Replicas) {
		t.Errorf("replicas %v, they were %v", after.Replicas, before.Replicas)
	}
}

// Where no majority holds the same of the meta group it stops, and buckets go on. Servers that are started again
// refuse that, until somebody has chosen.
func TestMetaTieStopsTheMetaGroupUntilSomebodyChooses(t *testing.T) {
	c := prepareTrio(t, 3)
	fatal := make(chan int, 3)
	c.more = func(o *Options) {
		o.CompareEvery = 500 * time.Millisecond
		i := int(o.Name[1] - '0')
		o.OnFatal = func(err error) {
			if !isLoss(err) {
				t.Errorf("server %d: %v", i, err)
			}
			fatal <- i
		}
	}
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.settled("KV_b", 3)
	for i, s := range c.servers[:2] {
		driftMeta(t, s, fmt.Sprint(i))
	}
	create(t, c.servers[0], bucket("other", 3, api.FileStorage))
	for i, s := range c.servers {
		eventually(t, "it stops", func() bool {
			err := s.MetaHealthy()
			return err != nil && strings.Contains(err.Error(), "the replicas of the meta group differ")
		})
		c.putAnywhere(i, "KV_b", "$KV.b.k", fmt.Sprint(i))
	}
	c.closeAll()
	o := Options{FS: c.fs[0], Dir: "data", Name: "n0", Hooks: deaf{}, Logger: logger(t), Route: &Route{Cluster: "C", Listen: c.routes[0], Seeds: c.routes}}
	refused := New(o)
	if err := refused.Start(); err == nil || !strings.Contains(err.Error(), "the replicas of the meta group differ") {
		t.Fatalf("it starts, or says %v", err)
	}
	c.mark(2, trustedMarking, "")
	c.startAll()
	for range 2 { // The two that differ, one after the other.
		i := 2
		select {
		case i = <-fatal:
		case <-time.After(20 * time.Second):
		}
		if i == 2 {
			t.Fatal("the chosen one stops, or nobody")
		}
		was := c.servers[i].identity().member
		c.servers[i].Close()
		c.start(i)
		c.formed(i)
		c.seated(i, was)
	}
	c.metaAgrees()
	c.putAnywhere(0, "KV_b", "$KV.b.k", "after")
	eventually(t, "the choice has served", func() bool {
		_, err := c.fs[2].Stat("data/" + damagedDir + "/" + metaMark + trustedMarking)
		return err != nil
	})
}
