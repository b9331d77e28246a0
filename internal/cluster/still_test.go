package cluster

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/sim/simfs"
)

// A leader whose disk stands still keeps nobody from writing for long; its server says so and names the disk, and is
// well again when the disk is.
func TestLeaderWithStillDiskIsReplaced(t *testing.T) {
	c := prepareTrio(t, 3)
	disks := make([]*simfs.FS, 3)
	for i := range disks {
		disks[i] = simfs.New(uint64(i), simfs.Journal)
		c.fs[i] = disks[i]
	}
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	for i := range 9 {
		c.putAnywhere(i%3, "KV_b", "$KV.b.k", "before")
	}
	lead := slices.IndexFunc(c.servers, func(s *Cluster) bool { return s.Stream("$G", "KV_b").IsLeader() })
	if lead < 0 {
		t.Fatal("nobody leads")
	}
	let := make(chan struct{})
	heal := sync.OnceFunc(func() { close(let) })
	t.Cleanup(heal) // Before the servers are closed.
	disks[lead].SetHook(func(op simfs.Op) error {
		if strings.HasPrefix(op.Kind, "sync") {
			<-let
		}
		return nil
	})
	began := time.Now()
	c.servers[lead].Stream("$G", "KV_b").Propose(stream.AppendPublish(nil, "$KV.b.k", nil, []byte("in between")), WaiterFunc(func(any, error) {}))
	eventually(t, "another one leads", func() bool {
		l := c.servers[(lead+1)%3].Stream("$G", "KV_b").Leader()
		return l != 0 && l != c.servers[lead].ServerID()
	})
	for i := range 3 { // At the server with that disk, too.
		c.putAnywhere((lead+1+i)%3, "KV_b", "$KV.b.k", "meanwhile")
	}
	t.Logf("written at all servers %s after the disk of the leader stood still", time.Since(began))
	if v, err := get(t, waitStream(t, c.servers[(lead+1)%3], "KV_b"), "$KV.b.k"); v != "meanwhile" || err != nil {
		t.Errorf("a read of another server: %q %v", v, err)
	}
	eventually(t, "it says so", func() bool {
		err := c.servers[lead].Healthy()
		return err != nil && strings.Contains(err.Error(), "the disk of data has not finished a sync")
	})
	if !c.servers[lead].Stream("$G", "KV_b").Lags() {
		t.Error("its replica does not lag")
	}
	heal()
	eventually(t, "it is well again", func() bool { return c.servers[lead].Healthy() == nil })
	eventually(t, "it has what it missed", func() bool {
		v, err := get(t, waitStream(t, c.servers[lead], "KV_b"), "$KV.b.k")
		return v == "meanwhile" && err == nil && !c.servers[lead].Stream("$G", "KV_b").Lags()
	})
}
