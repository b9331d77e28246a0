package compat

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// rollingClient writes and reads one key after the other until it is told to stop, as an application does that knows
// one server's address and nothing of restarts.
type rollingClient struct {
	js      jetstream.KeyValue
	name    string
	told    atomic.Int32 // how often it was told that its server is about to go
	written int
	errs    []error
	slowest time.Duration

	mu    sync.Mutex
	moves []string // from server to server, and when, for who looks for the cause of an error
}

func (c *rollingClient) move(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moves = append(c.moves, fmt.Sprintf("%s at %s", what, time.Now().Format(clock)))
}

const clock = "15:04:05.000"

func (c *rollingClient) run(stop *atomic.Bool) {
	for !stop.Load() {
		key, value := fmt.Sprintf("%s.%d", c.name, c.written%50), fmt.Sprint(c.written)
		begun := time.Now()
		err := c.once(key, value)
		c.slowest = max(c.slowest, time.Since(begun))
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("client %s, %s, from %s on for %s: %w", c.name, key, begun.Format(clock), time.Since(begun), err))
		}
		c.written++
	}
}

func (c *rollingClient) once(key, value string) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	rev, err := c.js.Put(ctx, key, []byte(value))
	if err != nil {
		return fmt.Errorf("put: %w", err)
	}
	e, err := c.js.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if string(e.Value()) != value || e.Revision() != rev {
		return fmt.Errorf("read %q at %d after %q at %d", e.Value(), e.Revision(), value, rev)
	}
	return nil
}

// Every server of a cluster is taken out of service and started again, one after the other, while applications with
// the default options of their client work on. None of them sees an error.
func TestPromiseClusterRollingRestart(t *testing.T) {
	t.Run("lame duck", func(t *testing.T) {
		rollingRestart(t, func(s *process.Server) error { return s.Leave(30 * time.Second) }, true)
	})
	t.Run("terminated", func(t *testing.T) {
		rollingRestart(t, (*process.Server).Stop, false)
	})
}

func rollingRestart(t *testing.T, leave func(*process.Server) error, tells bool) {
	servers := process.NewCluster(t, 3, `lame_duck_duration: "30s", lame_duck_grace_period: "200ms"`)
	js := jetStream(t, servers[0])
	_, err := js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "ROLL", Replicas: 3})
	must(t, err)
	var clients []*rollingClient
	for i := range 9 {
		c := &rollingClient{name: fmt.Sprint("c", i)}
		nc, err := nats.Connect(servers[i%3].URL(), nats.LameDuckModeHandler(func(*nats.Conn) { c.told.Add(1) }),
			nats.DisconnectErrHandler(func(*nats.Conn, error) { c.move("left its server") }),
			nats.ReconnectHandler(func(nc *nats.Conn) { c.move("came to " + nc.ConnectedUrl()) }))
		must(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		must(t, err)
		c.js, err = js.KeyValue(testContext(t), "ROLL")
		must(t, err)
		clients = append(clients, c)
	}
	var stop atomic.Bool
	var running sync.WaitGroup
	for _, c := range clients {
		running.Go(func() { c.run(&stop) })
	}
	for i, s := range servers {
		time.Sleep(500 * time.Millisecond)
		begun := time.Now()
		must(t, leave(s))
		left := time.Since(begun)
		must(t, s.Start())
		t.Logf("server n%d left in %s", i, left)
		whole(t, servers, "KV_ROLL")
	}
	time.Sleep(500 * time.Millisecond)
	stop.Store(true)
	running.Wait()
	total := 0
	var slowest time.Duration
	for _, c := range clients {
		total += c.written
		slowest = max(slowest, c.slowest)
		if tells && c.told.Load() == 0 {
			t.Errorf("client %s was never told that its server goes", c.name)
		}
		for _, err := range c.errs {
			c.mu.Lock()
			t.Errorf("%v; it %s", err, strings.Join(c.moves, ", "))
			c.mu.Unlock()
		}
	}
	t.Logf("%d writes and reads, the slowest took %s", total, slowest)
}

// whole waits until all replicas of a stream are current, asked of each server.
func whole(t *testing.T, servers []*process.Server, stream string) {
	t.Helper()
	for _, s := range servers {
		nc, err := nats.Connect(s.URL(), nats.IgnoreDiscoveredServers())
		must(t, err)
		js, err := jetstream.New(nc)
		must(t, err)
		eventually(t, "all replicas are current", func() bool {
			st, err := js.Stream(testContext(t), stream)
			if err != nil || st.CachedInfo().Cluster.Leader == "" || len(st.CachedInfo().Cluster.Replicas) != len(servers)-1 {
				return false
			}
			for _, p := range st.CachedInfo().Cluster.Replicas {
				if !p.Current || p.Offline {
					return false
				}
			}
			return true
		})
		nc.Close()
	}
}
