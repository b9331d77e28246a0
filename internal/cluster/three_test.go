package cluster

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/test/port"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// trio is a cluster of servers in one process, on loopback.
type trio struct {
	t       *testing.T
	routes  []string
	fs      []vfs.FS
	servers []*Cluster
	mu      sync.Mutex     // over servers, where others look while one is started again
	more    func(*Options) // if set, has the last word
}

func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	for range n {
		addr, err := port.Address()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, addr)
	}
	return all
}

func newTrio(t *testing.T, n int) *trio {
	t.Helper()
	c := prepareTrio(t, n)
	c.startAll()
	return c
}

func prepareTrio(t *testing.T, n int) *trio {
	t.Helper()
	c := &trio{t: t, routes: freeAddresses(t, n), fs: make([]vfs.FS, n), servers: make([]*Cluster, n)}
	for i := range n {
		c.fs[i] = vfs.NewMem()
	}
	return c
}

// startAll starts all servers and waits until they are a cluster.
func (c *trio) startAll() {
	c.t.Helper()
	for i := range c.servers {
		c.start(i)
	}
	for i := range c.servers {
		c.formed(i)
	}
}

func (c *trio) start(i int) {
	c.t.Helper()
	o := Options{FS: c.fs[i], Name: fmt.Sprint("n", i), Route: &Route{Cluster: "C", Listen: c.routes[i], Seeds: c.routes}}
	if c.more != nil {
		c.more(&o)
	}
	s := start(c.t, o)
	c.mu.Lock()
	c.servers[i] = s
	c.mu.Unlock()
}

func (c *trio) formed(i int) {
	c.t.Helper()
	select {
	case <-c.servers[i].Formed():
	case <-time.After(20 * time.Second):
		c.t.Fatalf("server %d belongs to no cluster", i)
	}
}

// putAnywhere puts through server i, again while the outcome is that nothing was done.
func (c *trio) putAnywhere(i int, name, subject, value string) *stream.Result {
	c.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s := c.servers[i].Stream("$G", name)
		if s == nil {
			continue
		}
		r, err := put(c.t, s, subject, value)
		if err == nil {
			return r
		}
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrUnknown) {
			c.t.Fatal(err)
		}
	}
	c.t.Fatal("no put succeeds")
	return nil
}

func TestThreeServersAgree(t *testing.T) {
	c := newTrio(t, 3)
	began := time.Now()
	create(t, c.servers[1], bucket("b", 3, api.FileStorage))
	t.Logf("created in %s", time.Since(began))
	for i := range 90 {
		if r := c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), fmt.Sprint("v", i)); r.Err != nil {
			t.Fatal(r.Err)
		}
		// Whoever is asked next has seen it.
		s := waitStream(t, c.servers[(i+1)%3], "KV_b")
		if v, err := get(t, s, fmt.Sprintf("$KV.b.k%d", i)); err != nil || v != fmt.Sprint("v", i) {
			t.Fatalf("k%d on server %d: %q %v", i, (i+1)%3, v, err)
		}
	}
}

func TestThreeServersSurviveTheirLeader(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	for i := range 20 {
		c.putAnywhere(i%3, "KV_b", fmt.Sprintf("$KV.b.k%d", i), "before")
	}
	lead := -1
	for i, s := range c.servers {
		if s.Stream("$G", "KV_b").IsLeader() {
			lead = i
		}
	}
	if lead < 0 {
		t.Fatal("nobody leads")
	}
	c.servers[lead].Close()
	other := (lead + 1) % 3
	began := time.Now()
	c.putAnywhere(other, "KV_b", "$KV.b.k0", "after")
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("writes resumed after %s", d)
	}
	s := waitStream(t, c.servers[(lead+2)%3], "KV_b")
	if v, err := get(t, s, "$KV.b.k0"); err != nil || v != "after" {
		t.Fatal(v, err)
	}
	c.start(lead)
	c.formed(lead)
	s = waitStream(t, c.servers[lead], "KV_b")
	eventually(t, "the old leader has caught up", func() bool {
		v, err := get(t, s, "$KV.b.k0")
		return err == nil && v == "after"
	})
}

func TestReplicasChangeUnderLoad(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 1, api.FileStorage))
	for i := range 50 {
		c.putAnywhere(0, "KV_b", fmt.Sprintf("$KV.b.k%d", i), "v")
	}
	for _, n := range []int{3, 1, 3} {
		if _, err := call(t, func(done func(*Stream, error)) {
			c.servers[2].UpdateStream("$G", bucket("b", n, api.FileStorage), noLimits, done)
		}); err != nil {
			t.Fatalf("to %d: %v", n, err)
		}
		i := 0
		eventually(t, fmt.Sprintf("%d replicas", n), func() bool {
			i++
			c.putAnywhere(i%3, "KV_b", "$KV.b.x", fmt.Sprint(i))
			a := c.servers[1].Stream("$G", "KV_b").Assignment()
			return a.Plan == nil && len(a.Replicas) == n
		})
		for j := range c.servers {
			s := c.servers[j].Stream("$G", "KV_b")
			var last string
			defer func() {
				if t.Failed() {
					t.Logf("server %d, of %d replicas, answered last: %s", j, n, last)
				}
			}()
			eventually(t, fmt.Sprintf("server %d answers", j), func() bool {
				if s.Machine() == nil {
					return true // It has no replica, or has none any more.
				}
				v, err := get(t, s, "$KV.b.x")
				last = fmt.Sprintf("%q, %v; put was %d", v, err, i)
				return err == nil && v == fmt.Sprint(i)
			})
		}
	}
}

func TestFourthServerJoins(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.putAnywhere(0, "KV_b", "$KV.b.k", "v")
	late := start(t, Options{Name: "n3", Route: &Route{Cluster: "C", Listen: "127.0.0.1:0", Seeds: c.routes}})
	select {
	case <-late.Formed():
	case <-time.After(20 * time.Second):
		t.Fatal("the fourth server belongs to no cluster")
	}
	eventually(t, "the fourth server knows the stream", func() bool { return late.Stream("$G", "KV_b") != nil })
	if r, err := put(t, late.Stream("$G", "KV_b"), "$KV.b.k", "through the fourth"); err != nil || r.Seq != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	eventually(t, "four members of the meta group", func() bool {
		return len(c.servers[0].metaGroup.rep.Load().Status().Conf.GetVoters()) == 4
	})
}

// Different lists of seeds must never make two clusters out of one.
func TestGenesisDifferentSeedsRefused(t *testing.T) {
	routes := freeAddresses(t, 2)
	a := start(t, Options{Name: "a", Route: &Route{Cluster: "C", Listen: routes[0], Seeds: routes}})
	b := start(t, Options{Name: "b", Route: &Route{Cluster: "C", Listen: routes[1], Seeds: append(routes[:2:2], "127.0.0.1:1")}})
	time.Sleep(time.Second)
	for _, c := range []*Cluster{a, b} {
		select {
		case <-c.Formed():
			t.Fatal("a cluster was founded")
		default:
		}
	}
}

// Servers without streams have nobody to tell of what happens to them.
func TestServersWithoutStreamsMeetAndPart(t *testing.T) {
	routes := freeAddresses(t, 2)
	heard := make(chan uint64, 1)
	var servers []*Cluster
	for i := range routes {
		c := New(Options{
			Name: fmt.Sprint("n", i), Route: &Route{Cluster: "C", Listen: routes[i], Seeds: routes}, MessagesOnly: true,
			Logger: logger(t), OnFatal: func(err error) { t.Errorf("fatal: %v", err) },
		})
		c.Handle(kindOther, func(from uint64, _ []byte) error { heard <- from; return nil })
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		servers = append(servers, c)
	}
	for i, c := range servers {
		other := servers[1-i]
		eventually(t, "they meet", func() bool { return c.Reachable(other.ServerID()) })
		if err := c.SendPeer(other.ServerID(), peer.LaneRequests, kindOther, func(b []byte) []byte { return b }); err != nil {
			t.Fatal(err)
		}
		if from := <-heard; from != c.ServerID() {
			t.Fatalf("heard %x, not %x", from, c.ServerID())
		}
	}
	if err := servers[0].Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one is gone", func() bool { return len(servers[1].PeerIDs()) == 0 })
}

const kindOther = peer.Kind(200) // of a package above
