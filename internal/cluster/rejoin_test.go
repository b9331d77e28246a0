package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/replica"
)

// seated waits until a server is a voter of the meta group under another id than before, and the old id is
// none any more.
func (c *trio) seated(server int, was uint64) {
	c.t.Helper()
	eventually(c.t, "another seat in the meta group", func() bool {
		now := c.servers[server].identity().member
		for _, s := range c.servers {
			if s.Meta() == nil {
				return false
			}
			voters := s.metaGroup.rep.Load().Status().Conf.GetVoters()
			if now == was || slices.Contains(voters, was) || !slices.Contains(voters, now) || len(voters) != len(c.servers) {
				return false
			}
		}
		return true
	})
}

// The trap: a server whose disk shows that it has forgotten what it acknowledged is started again by its
// init system, as what it was. It stops, and when it is started it takes a new seat in the meta group; its
// streams' replicas, which have lost nothing, go on.
func TestServerWithAmnesiaTakesANewSeat(t *testing.T) {
	c := prepareTrio(t, 3)
	fatal := make(chan error, 1)
	c.more = func(o *Options) { o.OnFatal = func(err error) { fatal <- err } }
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.putAnywhere(0, "KV_b", "$KV.b.k", "v")
	before := c.settled("KV_b", 3)
	s := c.servers[1]
	was := s.identity()
	r := s.metaGroup.rep.Load()
	s.shards[0].Call(func() { r.Fail(replica.ErrLost) })
	if err := <-fatal; !isLoss(err) {
		t.Fatal(err)
	}
	s.Close()
	c.start(1)
	c.formed(1)
	if now := c.servers[1].identity(); now.server != was.server || now.member == was.member {
		t.Fatalf("it was %+v and is %+v", was, now)
	}
	c.seated(1, was.member)
	if after := c.settled("KV_b", 3); !slices.Equal(after.Replicas, before.Replicas) {
		t.Errorf("replicas %v, they were %v", after.Replicas, before.Replicas)
	}
	c.crash(1)
	c.putAnywhere(1, "KV_b", "$KV.b.k", "later")
	c.settled("KV_b", 3)
}

// The trap: the last batch of the log is garbage, and nobody knows what was voted or acknowledged in it. No
// member that may have been in it may speak under its id again: not that of the meta group, nor any stream's.
func TestGarbageTailGetsNewRaftID(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	for i := range 30 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), "v")
	}
	before := c.settled("KV_b", 3)
	was := c.servers[1].identity()
	c.servers[1].Close()
	damageTail(t, c, 1)
	c.putAnywhere(0, "KV_b", "$KV.b.k0", "meanwhile")
	c.start(1)
	c.formed(1)
	c.seated(1, was.member)
	old, _ := before.On(was.server)
	eventually(t, "another replica in its place", func() bool {
		now, ok := c.servers[0].Stream("$G", "KV_b").Assignment().On(was.server)
		return ok && now.ID != old.ID
	})
	c.settled("KV_b", 3)
	c.crash(1)
	c.putAnywhere(1, "KV_b", "$KV.b.k0", "later")
	c.settled("KV_b", 3)
}

// damageTail changes the last bytes that were written to a server's log.
func damageTail(t *testing.T, c *trio, server int) {
	t.Helper()
	var last string
	for _, path := range filesBelow(t, c.fs[server], "data/wal") {
		if b, err := readFile(c.fs[server], path); err == nil && strings.HasSuffix(path, ".wal") && len(strings.Trim(string(b[4096:]), "\x00")) > 0 {
			last = path
		}
	}
	b, err := readFile(c.fs[server], last)
	if err != nil {
		t.Fatal(err)
	}
	end := len(strings.TrimRight(string(b[:len(b)-4096]), "\x00")) // At the very end is a copy of the header.
	for i := max(4096, end-16<<10); i < end; i++ {                 // All of the last batch, with its directory, however long it is.
		b[i] ^= 0x5a
	}
	if err := writeFileAtomically(c.fs[server], "data/wal", last[len("data/wal/"):], b); err != nil {
		t.Fatal(err)
	}
}
