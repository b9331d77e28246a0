package cluster

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
)

// onSimulatedDisks prepares three servers on disks that can be cut and damaged.
func onSimulatedDisks(t *testing.T) *trio {
	t.Helper()
	c := prepareTrio(t, 3)
	for i := range c.fs {
		c.fs[i] = simfs.New(uint64(i), simfs.Journal)
	}
	c.startAll()
	return c
}

// cut cuts the power of a server.
func (c *trio) cut(i int) {
	disk := c.fs[i].(*simfs.FS).CrashClone(simfs.Nothing, 1)
	c.servers[i].Close()
	c.fs[i] = disk
}

// spoil changes a bit in the log of a server, where a word stands.
func (c *trio) spoil(i int, word string) {
	c.t.Helper()
	disk := c.fs[i].(*simfs.FS)
	for _, path := range filesBelow(c.t, disk, "data/wal") {
		text, err := readFile(disk, path)
		if err != nil {
			c.t.Fatal(err)
		}
		if at := bytes.Index(text, []byte(word)); at >= 0 {
			if err := disk.FlipBit(path, int64(at), 3); err != nil {
				c.t.Fatal(err)
			}
			return
		}
	}
	c.t.Fatalf("n%d: %q stands nowhere in the log", i, word)
}

// marked tells whether a server has a mark of that kind.
func (c *trio) marked(i int, marking string) bool {
	names, _ := c.fs[i].List("data/" + damagedDir)
	for _, name := range names {
		if strings.HasSuffix(name, marking) {
			return true
		}
	}
	return false
}

// The trap: a majority of the replicas has a damaged log, each at another place, and everybody waits for a majority of
// undamaged ones, though all that was acknowledged is there. What one lacks the others have: entry by entry they are
// made whole, and go on as who they were.
func TestSuspectsMendEachOther(t *testing.T) {
	c := onSimulatedDisks(t)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	for i := range 40 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprintf("<value %d>", i))
	}
	before := c.settled("KV_b", 3)
	for range 2 { // Of the last batch of a log nobody knows what it held.
		c.putAnywhere(0, "KV_b", "$KV.b.more", "v")
		before = c.settled("KV_b", 3)
	}
	for i := range 3 {
		c.cut(i)
	}
	c.spoil(1, "<value 20>")
	c.spoil(2, "<value 30>")
	for i := range 3 {
		c.start(i)
	}
	after := c.settled("KV_b", 3)
	if fmt.Sprint(after.Replicas) != fmt.Sprint(before.Replicas) || after.Epoch != before.Epoch {
		t.Errorf("replicas %v, they were %v", after.Replicas, before.Replicas)
	}
	for i := range 40 {
		c.read(1+i%2, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprintf("<value %d>", i))
	}
	for i := 1; i < 3; i++ {
		if c.marked(i, suspectMarking) || c.marked(i, lostMarking) {
			t.Errorf("n%d: quarantined still", i)
		}
		c.crash(i)
		c.putAnywhere(0, "KV_b", "$KV.b.k", fmt.Sprint("later", i))
		c.settled("KV_b", 3)
	}
}

// A damaged log entry that nobody has: while the others who could have it are away it may have been committed, so the
// replica waits. When they say that they never had it, it was not, and is dropped.
func TestNackQuorumDropsUncommitted(t *testing.T) {
	c := onSimulatedDisks(t)
	cfg := bucket("b", 2, api.FileStorage)
	create(t, c.servers[0], cfg)
	for i := range 20 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprintf("<value %d>", i))
	}
	before := c.settled("KV_b", 2)
	lead, other := -1, -1
	eventually(t, "one of two leads", func() bool {
		lead, other = -1, -1
		for i, s := range c.servers {
			switch st := s.Stream("$G", "KV_b"); {
			case st.IsLeader():
				lead = i
			case !st.hasNoReplica():
				other = i
			}
		}
		return lead >= 0 && other >= 0
	})
	// A leader that has told nobody of what it was asked for last. It is large, so that what the batch held stands
	// in another sector than what is damaged.
	id, group := c.servers[lead].identity(), c.servers[lead].Stream("$G", "KV_b").id
	c.cut(other)
	c.cut(lead)
	l, err := wal.Open(wal.Options{FS: c.fs[lead], Dir: "data/wal", ServerID: id.server, ClusterID: id.cluster, Stepped: true})
	if err != nil {
		t.Fatal(err)
	}
	st, _ := l.State(group)
	l.Submit([]wal.Update{{Group: group, Entries: []wal.Entry{{Index: st.Last + 1, Term: st.Hard.Term, Data: append(make([]byte, 2000), "never acknowledged"...)}}}}, nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c.spoil(lead, "never acknowledged")

	// It does not know whether the other one has it. The third server, without a replica, is there for meta.
	for range 2 {
		c.start(lead)
		eventually(t, "the suspect is quarantined", func() bool {
			s := c.servers[lead].Stream("$G", "KV_b")
			return s != nil && s.lost.Load() != nil
		})
		time.Sleep(3 * mendEvery)
		if s := c.servers[lead].Stream("$G", "KV_b"); s.rep.Load() != nil || !c.marked(lead, suspectMarking) || c.marked(lead, lostMarking) {
			t.Fatal("it did not wait")
		}
		c.cut(lead)
	}
	c.start(other)
	c.start(lead)
	c.putAnywhere(lead, "KV_b", "$KV.b.k", "later")
	after := c.settled("KV_b", 2)
	if fmt.Sprint(after.Replicas) != fmt.Sprint(before.Replicas) {
		t.Errorf("replicas %v, they were %v", after.Replicas, before.Replicas)
	}
	for i := range 20 {
		c.read(lead, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprintf("<value %d>", i))
	}
	if c.marked(lead, suspectMarking) {
		t.Error("quarantined still")
	}
}
