package cluster

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// spoil changes a byte in the middle of a file.
func spoil(t *testing.T, fsys vfs.FS, path string) {
	t.Helper()
	b, err := readFile(fsys, path)
	if err != nil || len(b) == 0 {
		t.Fatalf("%s: %d bytes, %v", path, len(b), err)
	}
	b[len(b)/2] ^= 0x40
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// filesBelow lists the files below a directory, with their paths.
func filesBelow(t *testing.T, fsys vfs.FS, dir string) (all []string) {
	t.Helper()
	names, err := fsys.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := fsys.PathJoin(dir, name)
		if st, err := fsys.Stat(path); err == nil && st.IsDir() {
			all = append(all, filesBelow(t, fsys, path)...)
		} else {
			all = append(all, path)
		}
	}
	return all
}

// settled waits until the stream has n replicas and no plan, and all of them hold the same.
func (c *trio) settled(name string, n int) *meta.Stream {
	c.t.Helper()
	var a *meta.Stream
	eventually(c.t, fmt.Sprintf("%d replicas that are equal", n), func() bool {
		var digests []Digest
		for _, s := range c.servers {
			st := s.Stream("$G", name)
			if st == nil {
				return false
			}
			a = st.Assignment()
			if _, has := a.On(s.id.server); !has {
				continue
			}
			d, err := st.Digest()
			if err != nil || st.Healthy() != nil {
				return false
			}
			digests = append(digests, d)
		}
		for _, d := range digests {
			if d != digests[0] {
				return false
			}
		}
		return a.Plan == nil && len(a.Replicas) == n && len(digests) == n
	})
	return a
}

// compactLogs puts until more log entries are there than stay behind for members that are a little late, and
// has all replicas give up the beginning of their logs.
func (c *trio) compactLogs(name, subject string) {
	c.t.Helper()
	for i := range 1100 {
		c.putAnywhere(i%3, name, subject, fmt.Sprint(i))
	}
	for _, s := range c.servers {
		st := s.Stream("$G", name)
		eventually(c.t, "the beginning of the log is given up", func() bool { // One that is late has less to give up yet.
			if err := st.Machine().Checkpoint(); err != nil {
				c.t.Fatal(err)
			}
			st.shard.Call(st.rep.Load().Compact)
			log, _ := s.log.State(st.id)
			return log.First > replica.GenesisIndex+1
		})
	}
}

// A replica that is quarantined stays so, also if this server is started again before anybody could
// replace it, and also if its files look well by then.
func TestQuarantineOutlastsRestart(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.putAnywhere(1, "KV_b", "$KV.b.k", "v") // It knows the stream then.
	s := c.servers[1].Stream("$G", "KV_b")
	was, _ := s.Assignment().On(c.servers[1].id.server)
	for _, other := range []int{0, 2} {
		c.servers[other].Close()
	}
	c.servers[1].lose(s, was.ID, io.ErrUnexpectedEOF)
	c.servers[1].Close()
	c.start(1)
	c.formed(1)
	eventually(t, "the stream is known", func() bool { return c.servers[1].Stream("$G", "KV_b") != nil })
	if s := c.servers[1].Stream("$G", "KV_b"); s.rep.Load() != nil || s.lost.Load() == nil || s.Healthy() == nil {
		t.Fatalf("replica %d runs again", was.ID)
	}
	c.start(0)
	c.start(2)
	c.settled("KV_b", 3)
	if now, _ := c.servers[1].Stream("$G", "KV_b").Assignment().On(c.servers[1].id.server); now.ID == was.ID {
		t.Fatal("the old id is used again")
	}
}

// What is kept in memory does not survive the process, but what it voted and acknowledged must not be
// forgotten: a restarted replica whose log does not reach back comes under a new id. If a majority is
// restarted at once the stream begins anew, as storage: memory says, and serves.
func TestMemoryReplicaAfterRestart(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("m", 3, api.MemoryStorage))
	for i := range 30 {
		c.putAnywhere(i%3, "KV_m", fmt.Sprintf("$KV.m.k%d", i), "v")
	}
	c.compactLogs("KV_m", "$KV.m.x")
	before := c.settled("KV_m", 3)
	was, _ := before.On(c.servers[2].id.server)
	c.servers[2].Close()
	c.start(2)
	c.formed(2)
	eventually(t, "another replica in its place", func() bool {
		now, ok := c.servers[0].Stream("$G", "KV_m").Assignment().On(c.servers[2].id.server)
		return ok && now.ID != was.ID
	})
	c.settled("KV_m", 3)
	s := waitStream(t, c.servers[2], "KV_m")
	if v, err := get(t, s, "$KV.m.x"); err != nil || v != "1099" {
		t.Fatalf("after one restart: %q %v", v, err)
	}

	c.compactLogs("KV_m", "$KV.m.x")
	for i := range c.servers {
		c.servers[i].Close()
	}
	for i := range c.servers {
		c.start(i)
	}
	for i := range c.servers {
		c.formed(i)
	}
	eventually(t, "the stream serves again", func() bool {
		s := c.servers[0].Stream("$G", "KV_m")
		if s == nil || s.Machine() == nil {
			return false
		}
		r, err := put(t, s, "$KV.m.k", "anew")
		return err == nil && r.Err == nil
	})
	c.settled("KV_m", 3)
}

// A stream whose only replica does not open keeps nobody waiting: who asks hears at once, and health says
// why.
func TestOnlyReplicaDamagedSaysSo(t *testing.T) {
	fsys := vfs.NewMem()
	c := start(t, Options{FS: fsys})
	create(t, c, bucket("b", 1, api.FileStorage))
	create(t, c, bucket("well", 1, api.FileStorage))
	was := c.Stream("$G", "KV_b").Assignment()
	engine := engineName(c.Stream("$G", "KV_b").id, was.Replicas[0].ID)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range filesBelow(t, fsys, "data/streams/"+engine) {
		spoil(t, fsys, path)
	}
	c = start(t, Options{FS: fsys})
	for _, name := range []string{"KV_b", "KV_well"} {
		found := make(chan error, 1)
		began := time.Now()
		c.FindStream("$G", name, func(s *Stream, err error) { found <- err })
		if err := <-found; err != nil || time.Since(began) > readyFor/2 {
			t.Errorf("%s: %v after %s", name, err, time.Since(began))
		}
	}
	if err := c.Stream("$G", "KV_b").Healthy(); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("health: %v", err)
	}
	eventually(t, "the other one is well", func() bool { return c.Stream("$G", "KV_well").Healthy() == nil })
}
