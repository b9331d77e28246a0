package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// load puts keys of their own through each server until it is stopped, and then checks that all that was
// acknowledged is there.
type load struct {
	c       *trio
	name    string
	stop    chan struct{}
	writers sync.WaitGroup
	mu      sync.Mutex
	acked   map[string]string
}

func (c *trio) load(name string) *load {
	l := &load{c: c, name: name, stop: make(chan struct{}), acked: map[string]string{}}
	for i := range c.servers {
		l.writers.Go(func() { l.write(i) })
	}
	return l
}

func (l *load) write(server int) {
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-time.After(time.Millisecond):
		}
		subject, value := fmt.Sprintf("$KV.b.s%d-%d", server, n), fmt.Sprint("v", n)
		l.c.mu.Lock()
		s := l.c.servers[server].Stream("$G", l.name)
		l.c.mu.Unlock()
		if s == nil {
			continue
		}
		done := make(chan struct{})
		s.Propose(stream.AppendPublish(nil, subject, nil, []byte(value)), WaiterFunc(func(result any, err error) {
			if err == nil && result.(*stream.Result).Err == nil {
				l.mu.Lock()
				l.acked[subject] = value
				l.mu.Unlock()
			}
			close(done)
		}))
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			l.c.t.Errorf("server %d: no outcome of a write", server)
			return
		}
	}
}

// end stops the load and looks everything up.
func (l *load) end() {
	l.c.t.Helper()
	close(l.stop)
	l.writers.Wait()
	for i, server := range l.c.servers {
		s := server.Stream("$G", l.name)
		if s.Machine() == nil {
			continue
		}
		lost := 0
		for subject, value := range l.acked {
			if v, err := get(l.c.t, s, subject); err != nil || v != value {
				lost++
			}
		}
		if lost > 0 {
			l.c.t.Errorf("server %d lacks %d of %d writes that were acknowledged", i, lost, len(l.acked))
		}
	}
	if len(l.acked) < 20 {
		l.c.t.Errorf("only %d writes were acknowledged: there was no load", len(l.acked))
	}
	l.c.t.Logf("%d writes acknowledged", len(l.acked))
}

// known waits until all servers know of a stream.
func (c *trio) known(name string) {
	c.t.Helper()
	for i, s := range c.servers {
		eventually(c.t, fmt.Sprintf("server %d knows %s", i, name), func() bool { return s.Stream("$G", name) != nil })
	}
}

// Replicas are added before others are removed, and in one change of membership, so that nothing is lost
// and the stream serves all the while.
func TestScaleUnderLoad(t *testing.T) {
	c := newTrio(t, 5)
	create(t, c.servers[0], bucket("b", 1, api.FileStorage))
	c.known("KV_b")
	l := c.load("KV_b")
	for _, n := range []int{3, 5, 3, 1} {
		if _, err := call(t, func(done func(*Stream, error)) {
			c.servers[2].UpdateStream("$G", bucket("b", n, api.FileStorage), noLimits, done)
		}); err != nil {
			t.Fatalf("to %d: %v", n, err)
		}
		eventually(t, fmt.Sprintf("%d replicas", n), func() bool {
			a := c.servers[1].Stream("$G", "KV_b").Assignment()
			return a.Plan == nil && len(a.Replicas) == n
		})
	}
	l.end()
	c.settled("KV_b", 1)
}

// The trap: a leader that is lost between two steps of a change leaves the group in a joint state, or with a
// member that nobody promotes. Whoever leads next takes the next step from what is. The leader is
// lost at more and more moments after a move was decided.
func TestJointChangeCrashEveryStep(t *testing.T) {
	c := newTrio(t, 4)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.known("KV_b")
	l := c.load("KV_b")
	for i, wait := range []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 450 * time.Millisecond} {
		var lead int
		eventually(t, "a leader", func() bool {
			lead = slices.IndexFunc(c.servers, func(s *Cluster) bool { return s.Stream("$G", "KV_b") != nil && s.Stream("$G", "KV_b").IsLeader() })
			return lead >= 0
		})
		// Off one that does not lead.
		a := c.servers[lead].Stream("$G", "KV_b").Assignment()
		j := slices.IndexFunc(a.Replicas, func(r meta.Replica) bool { return r.Server != c.servers[lead].id.server })
		from := c.servers[lead].PeerName(a.Replicas[j].Server)
		eventually(t, fmt.Sprintf("move %d is decided", i), func() bool { // The fourth may not be back yet.
			_, err := call(t, func(done func(any, error)) {
				c.servers[lead].Stream("$G", "KV_b").RemovePeer(from, func(err error) { done(nil, err) })
			})
			return err == nil
		})
		time.Sleep(wait)
		c.crash(lead)
		eventually(t, "three replicas, and no change under way", func() bool {
			s := c.servers[lead].Stream("$G", "KV_b")
			return s != nil && s.Assignment().Plan == nil && len(s.Assignment().Replicas) == 3 && s.Healthy() == nil
		})
	}
	l.end()
	c.settled("KV_b", 3)
}

// crash ends a server and starts it again on the same disk.
func (c *trio) crash(i int) {
	c.t.Helper()
	c.servers[i].Close()
	c.start(i)
	c.formed(i)
}

// The trap: a server that comes back after its replica was moved, and cannot reach anybody, takes what it
// has for an orphan. It removes nothing before it has read the decision.
func TestRemovedReplicaCleansOnlyByTombstone(t *testing.T) {
	c := newTrio(t, 4)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.putAnywhere(0, "KV_b", "$KV.b.k", "v")
	a := c.settled("KV_b", 3)
	away := slices.IndexFunc(c.servers, func(s *Cluster) bool {
		return s.id.server == a.Replicas[2].Server
	})
	engine := fmt.Sprintf("data/streams/%s", engineName(c.servers[away].Stream("$G", "KV_b").id, a.Replicas[2].ID))
	name := c.servers[away].opts.Name
	c.servers[away].Close()
	stays := c.servers[(away+1)%4]
	eventually(t, "the move is decided", func() bool {
		_, err := call(t, func(done func(any, error)) {
			stays.Stream("$G", "KV_b").RemovePeer(name, func(err error) { done(nil, err) })
		})
		return err == nil
	})
	eventually(t, "the move is done", func() bool {
		a := stays.Stream("$G", "KV_b").Assignment()
		return a.Plan == nil && !on(stays, "KV_b", c.servers[away].id.server)
	})
	for i, s := range c.servers {
		if i != away {
			s.Close()
		}
	}
	c.start(away)
	c.formed(away)
	time.Sleep(time.Second)
	if _, err := c.fs[away].Stat(engine); err != nil {
		t.Fatalf("removed by a server that could ask nobody: %v", err)
	}
	for i := range c.servers {
		if i != away {
			c.start(i)
		}
	}
	eventually(t, "the old replica is gone", func() bool {
		_, err := c.fs[away].Stat(engine)
		return err != nil
	})
	c.settled("KV_b", 3)
}

// The trap: data that the meta group does not know of, because what it knows was damaged or is old, are
// removed as orphans. Nothing is removed because it is not known.
func TestNoOrphanDeletion(t *testing.T) {
	fs := vfs.NewMem()
	c := start(t, Options{FS: fs, Name: "n"})
	create(t, c, bucket("b", 1, api.FileStorage))
	c.Close()
	const orphan = "data/streams/g900-r901"
	if err := fs.MkdirAll(orphan, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFileAtomically(fs, orphan, "data", []byte("precious")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c = start(t, Options{FS: fs, Name: "n"})
		waitStream(t, c, "KV_b")
		create(t, c, bucket("c", 1, api.FileStorage))
		if _, err := call(t, func(done func(any, error)) {
			c.DeleteStream("$G", "KV_c", func(_ *meta.Stream, err error) { done(nil, err) })
		}); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if b, err := readFile(fs, orphan+"/data"); err != nil || string(b) != "precious" {
		t.Fatalf("%q %v", b, err)
	}
}

// A server that is to stop leads nothing any more before it does.
func TestDrainMovesAllLeaders(t *testing.T) {
	c := newTrio(t, 3)
	const streams = 6
	for i := range streams {
		create(t, c.servers[0], bucket(fmt.Sprint("b", i), 3, api.FileStorage))
	}
	for i := range c.servers {
		c.putAnywhere(i, "KV_b0", "$KV.b0.k", "v")
	}
	for _, s := range c.servers {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		began := time.Now()
		s.HandOver(ctx)
		cancel()
		for _, g := range s.groups() {
			if g.leads() {
				t.Errorf("%s leads group %d still, %s later", s.opts.Name, g.id, time.Since(began))
			}
		}
	}
}

// The trap: a removal is answered before it is decided, the operator destroys the disk, and the cluster goes
// on counting with it. It is answered when a majority has it, and not at all without one.
func TestPeerRemoveAnswersAfterCommit(t *testing.T) {
	c := newTrio(t, 3)
	gone := c.servers[2].id.server
	c.servers[2].Close()
	c.servers[1].Close()
	answered := make(chan error, 1)
	c.servers[0].RemoveServer(gone, func(err error) { answered <- err })
	if err := <-answered; err == nil {
		t.Fatal("answered without a majority")
	}
	c.start(1)
	c.formed(1)
	eventually(t, "removed", func() bool {
		_, err := call(t, func(done func(any, error)) { c.servers[0].RemoveServer(gone, func(err error) { done(nil, err) }) })
		return err == nil
	})
	if _, err := call(t, func(done func(any, error)) { c.servers[1].ReadMeta(func(err error) { done(nil, err) }) }); err != nil {
		t.Fatal(err)
	}
	if s := c.servers[1].Meta().Server(gone); !s.Removed {
		t.Error("answered, and another server does not know of it")
	}
}
