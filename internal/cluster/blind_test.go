package cluster

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The ways in which a storage is lost while its log is whole.
var storageLosses = map[string]func(t *testing.T, fsys vfs.FS, engine string){
	"gone": func(t *testing.T, fsys vfs.FS, engine string) {
		if err := fsys.RemoveAll("data/streams/" + engine); err != nil {
			t.Fatal(err)
		}
	},
	"damaged": func(t *testing.T, fsys vfs.FS, engine string) {
		for _, path := range filesBelow(t, fsys, "data/streams/"+engine) {
			spoil(t, fsys, path)
		}
	},
}

// engineOn names the storage of a stream's replica on a server.
func (c *trio) engineOn(i int, name string) string {
	s := c.servers[i].Stream("$G", name)
	self, ok := s.Assignment().On(c.servers[i].id.server)
	if !ok {
		c.t.Fatalf("server %d has no replica of %s", i, name)
	}
	return engineName(s.id, self.ID)
}

// longAgo makes a bucket whose replicas have given up the beginning of their logs: what was in there, the storages
// alone have.
func (c *trio) longAgo() *meta.Stream {
	create(c.t, c.servers[0], bucket("b", 3, api.FileStorage))
	for i := range 60 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), strings.Repeat("v", 200))
	}
	c.compactLogs("KV_b", "$KV.b.x")
	return c.settled("KV_b", 3)
}

// same waits until all replicas are well and equal, and holds their ids against what they were.
func (c *trio) same(before *meta.Stream) {
	c.t.Helper()
	after := c.settled("KV_b", 3)
	if fmt.Sprint(after.Replicas) != fmt.Sprint(before.Replicas) {
		c.t.Errorf("replicas %v, where there were %v", after.Replicas, before.Replicas)
	}
}

// A replica whose storage is lost is the same member as before: what it acknowledged and voted for is in its log. It
// gets the state from another one.
func TestStateIsRebuiltFromPeers(t *testing.T) {
	for name, lose := range storageLosses {
		t.Run(name, func(t *testing.T) {
			c := newTrio(t, 3)
			before := c.longAgo()
			engine := c.engineOn(1, "KV_b")
			c.servers[1].Close()
			lose(t, c.fs[1], engine)
			hooks := &listener{}
			c.more = func(o *Options) { o.Hooks = hooks }
			c.start(1)
			c.formed(1)
			c.putAnywhere(0, "KV_b", "$KV.b.k0", "meanwhile")
			// Clients of this server shall reach the stream, with a state here or without.
			eventually(t, "the stream is served", func() bool { _, ok := hooks.started.Load("KV_b"); return ok })
			c.same(before)
			if v, err := get(t, waitStream(t, c.servers[1], "KV_b"), "$KV.b.k0"); err != nil || v != "meanwhile" {
				t.Errorf("read %q, %v", v, err)
			}
			if c.marked(1, blindMarking) || c.marked(1, lostMarking) {
				t.Error("it is marked still")
			}
			if name == "damaged" && len(filesBelow(t, c.fs[1], "data/damaged/"+engine)) == 0 {
				t.Error("nothing was kept of what it held")
			}
			// And once more after a restart.
			c.servers[1].Close()
			c.start(1)
			c.formed(1)
			c.putAnywhere(1, "KV_b", "$KV.b.k1", "later")
			c.same(before)
		})
	}
}

// Two of three storages are lost at once, and nothing else: the logs are a majority, so the bucket goes on, led by
// whoever has the state.
func TestTwoStoragesLostAtOnce(t *testing.T) {
	for name, lose := range storageLosses {
		t.Run(name, func(t *testing.T) {
			c := newTrio(t, 3)
			before := c.longAgo()
			var engines [3]string
			for i := range c.servers {
				engines[i] = c.engineOn(i, "KV_b")
			}
			for i := range c.servers {
				c.servers[i].Close()
			}
			for _, i := range []int{0, 1} {
				lose(t, c.fs[i], engines[i])
			}
			for i := range c.servers {
				c.start(i)
			}
			for i := range c.servers {
				c.formed(i)
			}
			c.putAnywhere(0, "KV_b", "$KV.b.k0", "meanwhile")
			c.same(before)
			if v, err := get(t, waitStream(t, c.servers[0], "KV_b"), "$KV.b.k59"); err != nil || v != strings.Repeat("v", 200) {
				t.Errorf("read %q, %v", v, err)
			}
		})
	}
}

// Damage that is met while a replica runs, and a state that never comes whole: the replica makes a majority with one
// other, also after a restart, but it does not lead, and nobody reads from it.
func TestBlindVotesAndDoesNotLead(t *testing.T) {
	c := prepareTrio(t, 3)
	disk := &spoiler{FS: vfs.NewMem()}
	c.fs[1] = disk
	c.startAll()
	before := c.longAgo()
	disk.left.Store(1 << 30)
	s := c.servers[1].Stream("$G", "KV_b")
	was := s.rep.Load()
	s.shard.Call(func() { was.Fail(&storage.CorruptError{Path: "of this test", Detail: "as if"}) })
	blind := func() bool {
		s = c.servers[1].Stream("$G", "KV_b")
		r := s.rep.Load()
		return r != nil && r.Blind()
	}
	eventually(t, "a replica without a state", blind)
	c.servers[2].Close()
	c.putAnywhere(0, "KV_b", "$KV.b.k0", "by two")
	lead := c.servers[0].Stream("$G", "KV_b")
	refused := make(chan error, 1)
	lead.StepDown(c.servers[1].opts.Name, func(err error) { refused <- err })
	if err := <-refused; err == nil {
		t.Error("the lead was given to a replica that has no state")
	}
	read := make(chan error, 1)
	if s.ReadIndex(func(err error) { read <- err }); <-read == nil {
		t.Error("a read was answered where there is no state")
	}
	if err := s.Healthy(); err == nil || !strings.Contains(err.Error(), "gets the state from another server") {
		t.Errorf("health: %v", err)
	}

	c.servers[1].Close()
	c.start(1)
	c.formed(1)
	eventually(t, "a replica without a state after a restart", func() bool { return c.servers[1].Stream("$G", "KV_b") != nil && blind() })
	c.putAnywhere(0, "KV_b", "$KV.b.k1", "by two again")
	if !c.marked(1, blindMarking) {
		t.Error("it is not marked")
	}
	disk.left.Store(0)
	eventually(t, "a state", func() bool { return !blind() && s.Healthy() == nil })
	c.start(2)
	c.formed(2)
	c.same(before)
	if c.marked(1, lostMarking) || c.marked(1, suspectMarking) {
		t.Error("it counts as lost")
	}
}

// One whose log is damaged as well is lost, and replaced.
func TestBlindWithDamagedLogIsReplaced(t *testing.T) {
	c := prepareTrio(t, 3)
	disk := &spoiler{FS: vfs.NewMem()}
	c.fs[1] = disk
	c.startAll()
	before := c.longAgo()
	was, _ := before.On(c.servers[1].id.server)
	engine := c.engineOn(1, "KV_b")
	c.servers[1].Close()
	storageLosses["damaged"](t, c.fs[1], engine)
	disk.left.Store(1 << 30)
	c.start(1)
	c.formed(1)
	s := waitStream(t, c.servers[1], "KV_b")
	eventually(t, "a replica without a state", func() bool { r := s.rep.Load(); return r != nil && r.Blind() })
	r := s.rep.Load()
	s.shard.Call(func() {
		r.Outlive(&wal.DamageError{Group: s.id, Reason: "of this test", Lost: []wal.LostRange{{First: 1, Last: 2}}})
	})
	disk.left.Store(0)
	eventually(t, "another replica in its place", func() bool {
		now, ok := c.servers[0].Stream("$G", "KV_b").Assignment().On(c.servers[1].id.server)
		return ok && now.ID != was.ID
	})
	c.settled("KV_b", 3)
	if !c.marked(1, lostMarking) {
		t.Error("it is not marked as lost")
	}
}

// A state is rebuilt also for a bucket in the database that all of them share.
func TestRocksStateIsRebuilt(t *testing.T) {
	c := newTrio(t, 3)
	cfg := bucket("b", 3, api.FileStorage)
	cfg.Metadata = map[string]string{api.MetadataStorage: api.StorageRocksDB}
	create(t, c.servers[0], cfg)
	for i := range 60 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), strings.Repeat("v", 200))
	}
	c.compactLogs("KV_b", "$KV.b.x")
	before := c.settled("KV_b", 3)
	s := c.servers[1].Stream("$G", "KV_b")
	was := s.rep.Load()
	s.shard.Call(func() { was.Fail(&storage.CorruptError{Path: "of this test", Detail: "as if"}) })
	eventually(t, "it runs again", func() bool {
		r := s.rep.Load()
		return r != nil && r != was && !r.Blind() && r.Status().Stopped == nil
	})
	c.same(before)
}
