package compat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// pinned are clients of one server each, which do not go to another.
type pinned struct {
	servers []*process.Server
	js      []jetstream.JetStream
}

func newPinned(t *testing.T, n int) *pinned {
	t.Helper()
	p := &pinned{servers: process.NewCluster(t, n, "")}
	for _, s := range p.servers {
		js, err := jetstream.New(s.Connect(t, nats.IgnoreDiscoveredServers()))
		must(t, err)
		p.js = append(p.js, js)
	}
	return p
}

// others are the clients of the servers that live, that one first.
func (p *pinned) from(i int) jetstream.JetStream { return p.js[i%len(p.js)] }

// leader waits for a stream to have a leader that is not the given one and, if whole is set, for all
// its replicas to be current, and returns which server it is.
func (p *pinned) leader(t *testing.T, ask jetstream.JetStream, stream, not string, replicas int, whole bool) int {
	t.Helper()
	ctx := testContext(t)
	var last any
	for end := time.Now().Add(2 * wait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s, err := ask.Stream(ctx, stream)
		if err != nil {
			last = err
			continue
		}
		c := s.CachedInfo().Cluster
		last = c
		if c == nil || c.Leader == "" || c.Leader == not || len(c.Replicas) != replicas-1 {
			continue
		}
		if whole && slices.ContainsFunc(c.Replicas, func(r *jetstream.PeerInfo) bool { return !r.Current || r.Offline }) {
			continue
		}
		return int(c.Leader[1] - '0')
	}
	shown, _ := json.Marshal(last)
	t.Fatalf("stream %s has no new leader, or not %d replicas that are current: %s (%v)", stream, replicas, shown, last)
	return -1
}

// A bucket with three replicas and one with a single one serve clients of every server alike.
func TestClusterBucketFromEveryServer(t *testing.T) {
	p := newPinned(t, 3)
	for _, replicas := range []int{3, 1} {
		t.Run(fmt.Sprint("R", replicas), func(t *testing.T) { p.bucketFromEveryServer(t, replicas) })
	}
}

func (p *pinned) bucketFromEveryServer(t *testing.T, replicas int) {
	ctx, name := testContext(t), fmt.Sprint("R", replicas)
	_, err := p.js[0].CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, Replicas: replicas, History: 5})
	must(t, err)
	p.leader(t, p.js[1], "KV_"+name, "", replicas, true)
	var kvs []jetstream.KeyValue
	var watchers []jetstream.KeyWatcher
	for _, js := range p.js {
		kv, err := js.KeyValue(ctx, name)
		must(t, err)
		kvs = append(kvs, kv)
		w, err := kv.WatchAll(ctx)
		must(t, err)
		defer w.Stop()
		watchers = append(watchers, w)
	}
	revision := uint64(0)
	for i, kv := range kvs {
		key := fmt.Sprint("k", i)
		next := kvs[(i+1)%len(kvs)]
		created, err := kv.Create(ctx, key, []byte("created"))
		must(t, err)
		_, err = next.Create(ctx, key, []byte("again"))
		if !errors.Is(err, jetstream.ErrKeyExists) {
			t.Fatalf("second create: %v", err)
		}
		updated, err := next.Update(ctx, key, []byte("updated"), created)
		must(t, err)
		if _, err := kv.Update(ctx, key, []byte("late"), created); err == nil {
			t.Fatal("an update of an old revision succeeded")
		}
		for j, reader := range kvs {
			e, err := reader.Get(ctx, key)
			must(t, err)
			if string(e.Value()) != "updated" || e.Revision() != updated {
				t.Fatalf("server %d: %q at %d, want updated at %d", j, e.Value(), e.Revision(), updated)
			}
			old, err := reader.GetRevision(ctx, key, created)
			must(t, err)
			if string(old.Value()) != "created" {
				t.Fatalf("server %d: revision %d is %q", j, created, old.Value())
			}
			h, err := reader.History(ctx, key)
			must(t, err)
			if len(h) != 2 {
				t.Fatalf("server %d: history of %d entries", j, len(h))
			}
		}
		revision = updated
	}
	for j, kv := range kvs {
		keys, err := kv.Keys(ctx)
		must(t, err)
		slices.Sort(keys)
		if !slices.Equal(keys, []string{"k0", "k1", "k2"}) {
			t.Fatalf("server %d: keys %v", j, keys)
		}
		st, err := kv.Status(ctx)
		must(t, err)
		if st.Values() != 6 {
			t.Fatalf("server %d: %d values", j, st.Values())
		}
	}
	for j, w := range watchers {
		seen := uint64(0)
		for seen < revision {
			select {
			case e := <-w.Updates():
				if e == nil {
					continue
				}
				if e.Revision() != seen+1 {
					t.Fatalf("watcher of server %d: revision %d follows %d", j, e.Revision(), seen)
				}
				seen = e.Revision()
			case <-time.After(wait):
				t.Fatalf("watcher of server %d: nothing after revision %d", j, seen)
			}
		}
	}
	must(t, p.js[2].DeleteKeyValue(ctx, name))
}

// Once a bucket is deleted no server shows it any more or takes anything for it.
func TestPromiseClusterDeleteIsSeenAtOnce(t *testing.T) {
	p := newPinned(t, 3)
	ctx := testContext(t)
	for round := range 12 {
		from := round % 3
		cfg := jetstream.KeyValueConfig{Bucket: "b", Replicas: 3}
		if round%2 == 0 { // A single replica, on another server.
			cfg.Replicas, cfg.Placement = 1, &jetstream.Placement{Tags: []string{fmt.Sprint("n", (from+1)%3)}}
		}
		_, err := p.js[from].CreateKeyValue(ctx, cfg)
		must(t, err)
		var kvs []jetstream.KeyValue
		for _, js := range p.js {
			kv, err := js.KeyValue(ctx, "b")
			must(t, err)
			kvs = append(kvs, kv)
		}
		_, err = kvs[from].Put(ctx, "k", []byte("v"))
		must(t, err)
		must(t, p.js[from].DeleteKeyValue(ctx, "b"))
		var all sync.WaitGroup
		for j, js := range p.js {
			all.Go(func() {
				if _, err := js.KeyValue(ctx, "b"); !errors.Is(err, jetstream.ErrBucketNotFound) {
					t.Errorf("round %d, %d replicas: server %d finds the deleted bucket: %v", round, cfg.Replicas, j, err)
				}
			})
			all.Go(func() {
				if e, err := kvs[j].Get(ctx, "k"); err == nil {
					t.Errorf("round %d, %d replicas: server %d still has %q of the deleted bucket", round, cfg.Replicas, j, e.Value())
				}
			})
			all.Go(func() {
				if revision, err := kvs[j].Put(ctx, "k", nil); err == nil {
					t.Errorf("round %d, %d replicas: server %d put something into the deleted bucket, at %d", round, cfg.Replicas, j, revision)
				}
			})
		}
		all.Wait()
	}
}

// A durable pull consumer is made, used, described and deleted from any server, and goes on without
// losing a message when its leader dies. So do a bucket and its watchers.
func TestClusterLeaderKilled(t *testing.T) {
	p := newPinned(t, 3)
	ctx := testContext(t)
	kv, err := p.js[0].CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", Replicas: 3})
	must(t, err)
	_, err = kv.Put(ctx, "before", []byte("1"))
	must(t, err)
	s, err := p.js[0].CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: 3})
	must(t, err)
	_, err = s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second})
	must(t, err)
	const half = 30
	for i := range half {
		_, err := p.from(i).Publish(ctx, fmt.Sprint("s.", i), []byte("m"))
		must(t, err)
	}
	got := map[uint64]bool{}
	for i, js := range p.js {
		c, err := js.Consumer(ctx, "S", "d")
		must(t, err)
		if n := c.CachedInfo().NumPending + uint64(c.CachedInfo().NumAckPending); n != uint64(half-5*i) {
			t.Fatalf("server %d: %d messages to come", i, n)
		}
		takeAndAck(t, c, 5, got)
	}

	lead := p.leader(t, p.js[0], "S", "", 3, true)
	other, third := (lead+1)%3, (lead+2)%3
	okv, err := p.js[other].KeyValue(ctx, "b")
	must(t, err)
	w, err := okv.WatchAll(ctx)
	must(t, err)
	defer w.Stop()
	p.servers[lead].Kill()
	killed := time.Now()
	for i := range half {
		js := p.js[[]int{other, third}[i%2]]
		untilDone(t, func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Second) // A message whose fate is unknown is not answered.
			defer cancel()
			_, err := js.Publish(ctx, fmt.Sprint("s.late.", i), []byte("m"), jetstream.WithMsgID(fmt.Sprint(i)))
			return err
		})
		if i == 0 {
			t.Logf("writes resumed after %s", time.Since(killed))
		}
	}
	for end := time.Now().Add(2 * wait); len(got) < 2*half && time.Now().Before(end); {
		c, err := p.js[third].Consumer(ctx, "S", "d")
		if err != nil {
			continue
		}
		takeAndAck(t, c, 10, got)
	}
	if len(got) != 2*half {
		t.Fatalf("%d of %d messages were delivered", len(got), 2*half)
	}
	untilDone(t, func() error { _, err := okv.Put(ctx, "after", []byte("2")); return err })
	for _, want := range []string{"before", "after"} {
		for {
			var e jetstream.KeyValueEntry
			select {
			case e = <-w.Updates():
			case <-time.After(wait):
				t.Fatalf("the watcher does not see %q", want)
			}
			if e != nil {
				if e.Key() != want {
					t.Fatalf("the watcher saw %q, want %q", e.Key(), want)
				}
				break
			}
		}
	}

	must(t, p.servers[lead].Start())
	js := jetStream(t, p.servers[lead])
	p.leader(t, js, "S", "", 3, true)
	c, err := js.Consumer(ctx, "S", "d")
	must(t, err)
	if i := c.CachedInfo(); i.NumPending != 0 || i.Cluster == nil || i.Cluster.Leader == "" {
		t.Fatalf("consumer: %+v", i)
	}
	must(t, p.js[other].DeleteConsumer(ctx, "S", "d"))
	if _, err := js.Consumer(ctx, "S", "d"); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Fatalf("after the delete: %v", err)
	}
}

// takeAndAck takes up to n messages, acknowledges them and notes which they were.
func takeAndAck(t *testing.T, c jetstream.Consumer, n int, got map[uint64]bool) {
	t.Helper()
	batch, err := c.Fetch(n, jetstream.FetchMaxWait(time.Second))
	must(t, err)
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		if err := m.DoubleAck(ctx); err == nil {
			got[meta.Sequence.Stream] = true
		}
		cancel()
	}
}

// untilDone repeats what a client repeats when it hears that it was not done, or nothing.
func untilDone(t *testing.T, fn func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(2 * wait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = fn(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// Replicas are added and taken away while the bucket is in use, the lead is handed over on request,
// and every server tells the same of it.
func TestClusterScaleAndStepDown(t *testing.T) {
	p := newPinned(t, 3)
	ctx := testContext(t)
	cfg := jetstream.KeyValueConfig{Bucket: "b", Replicas: 1}
	kv, err := p.js[0].CreateKeyValue(ctx, cfg)
	must(t, err)
	_, err = kv.Put(ctx, "k", []byte("0"))
	must(t, err)
	for i, n := range []int{3, 1, 3} {
		cfg.Replicas = n
		_, err := p.from(i).UpdateKeyValue(ctx, cfg)
		must(t, err)
		p.leader(t, p.from(i+1), "KV_b", "", n, true)
		value := fmt.Sprint("at ", n)
		_, err = kv.Put(ctx, "k", []byte(value))
		must(t, err)
		for j, js := range p.js {
			reader, err := js.KeyValue(ctx, "b")
			must(t, err)
			e, err := reader.Get(ctx, "k")
			must(t, err)
			if string(e.Value()) != value {
				t.Fatalf("server %d with %d replicas: %q", j, n, e.Value())
			}
		}
	}
	was := p.leader(t, p.js[0], "KV_b", "", 3, true)
	nc := p.servers[(was+1)%3].Connect(t)
	m, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.KV_b", nil, wait)
	must(t, err)
	if want := `"success":true`; !strings.Contains(string(m.Data), want) {
		t.Fatalf("step down: %s", m.Data)
	}
	if is := p.leader(t, p.js[was], "KV_b", "", 3, false); is == was {
		t.Fatalf("n%d leads still", is)
	}
	m, err = nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.KV_b", []byte(`{"placement":{"preferred":"nobody"}}`), wait)
	must(t, err)
	if want := `preferred server \"nobody\" not known`; !strings.Contains(string(m.Data), want) {
		t.Fatalf("step down: %s", m.Data)
	}
}

// Once a change of a bucket is answered every server reads what it made of it.
func TestPromiseClusterUpdateIsSeenAtOnce(t *testing.T) {
	p := newPinned(t, 3)
	ctx := testContext(t)
	cfg := jetstream.KeyValueConfig{Bucket: "b", History: 5, Replicas: 1, Placement: &jetstream.Placement{Tags: []string{"n0"}}}
	kv, err := p.js[1].CreateKeyValue(ctx, cfg)
	must(t, err)
	for round := range 20 {
		for range 5 {
			_, err := kv.Put(ctx, "k", nil)
			must(t, err)
		}
		through, reader := p.from(1+round%2), p.from(round)
		for _, history := range []uint8{2, 5} {
			cfg.History = history
			_, err = through.UpdateKeyValue(ctx, cfg)
			must(t, err)
			kv, err := reader.KeyValue(ctx, "b")
			must(t, err)
			st, err := kv.Status(ctx)
			must(t, err)
			if st.History() != int64(history) || st.Values() != 2 {
				t.Fatalf("round %d: history %d and %d values after an update to %d", round, st.History(), st.Values(), history)
			}
		}
	}
}
