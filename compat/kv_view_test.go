package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// The first values of a watch, a list of keys, and a direct get of many are what the bucket held at one moment, however many
// keys there are and however fast they change: no key is missing that was there all the time, and no value
// is older than another one that the watch shows.
func TestPromiseFirstValuesAreOneView(t *testing.T) {
	for _, storage := range []string{"file", "rocksdb", "memory"} {
		t.Run(storage, func(t *testing.T) { firstValues(t, storage) })
	}
}

func firstValues(t *testing.T, storage string) {
	const keys, writers, batched = 4000, 4, 1000
	cfg := jetstream.KeyValueConfig{Metadata: map[string]string{"cleat.storage": storage}}
	if storage == "memory" {
		cfg = jetstream.KeyValueConfig{Storage: jetstream.MemoryStorage}
	}
	kv := bucket(t, cfg)
	// acked is every revision of each key, in order.
	var acked [keys][]uint64
	put := func(ctx context.Context, key int) error {
		revision, err := kv.Put(ctx, fmt.Sprint("k.", key), nil)
		if err == nil {
			acked[key] = append(acked[key], revision)
		}
		return err
	}
	var load sync.WaitGroup
	var stop atomic.Bool
	ready := make(chan error, writers)
	for n := range writers {
		load.Go(func() { // Each has keys of its own.
			ctx, random := testContext(t), rand.New(rand.NewSource(int64(n)))
			var err error
			for key := n; key < keys && err == nil; key += writers {
				err = put(ctx, key)
			}
			ready <- err
			for !stop.Load() && err == nil {
				err = put(ctx, random.Intn(keys/writers)*writers+n)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(load.Wait)
	t.Cleanup(func() { stop.Store(true) })
	for range writers {
		must(t, <-ready)
	}
	var views []map[string]uint64
	var parts []map[string]uint64 // of the first keys only
	ctx, nc := testContext(t), shared().Connect(t)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		names, err := kv.Keys(ctx)
		must(t, err)
		seen := make(map[string]bool)
		for _, name := range names {
			if seen[name] {
				t.Errorf("%s is in the list twice", name)
			}
			seen[name] = true
		}
		if len(seen) != keys {
			t.Errorf("%d keys listed of %d", len(seen), keys)
		}
		views = append(views, firstOf(t, kv))
		parts = append(parts, lastOf(t, nc, kv.Bucket(), batched))
		if t.Failed() {
			return
		}
	}
	stop.Store(true)
	load.Wait()
	for _, view := range slices.Concat(views, parts) {
		var at uint64
		for _, revision := range view {
			at = max(at, revision)
		}
		for key, all := range acked {
			if key >= len(view) {
				break
			}
			want := all[0]
			for _, revision := range all {
				if revision <= at {
					want = revision
				}
			}
			if got := view[fmt.Sprint("k.", key)]; got != want {
				t.Fatalf("of %d views: k.%d is %d at revision %d, where it was %d", len(views), key, got, at, want)
			}
		}
	}
	t.Logf("%d views of %d keys, %d of %d", len(views), keys, len(parts), batched)
}

// lastOf reads so many keys by one request.
func lastOf(t *testing.T, nc *nats.Conn, bucket string, keys int) map[string]uint64 {
	t.Helper()
	prefix, inbox := "$KV."+bucket+".", nats.NewInbox()
	var filters []string
	for key := range keys {
		filters = append(filters, fmt.Sprintf("%sk.%d", prefix, key))
	}
	request, err := json.Marshal(map[string]any{"multi_last": filters})
	must(t, err)
	sub, err := nc.SubscribeSync(inbox)
	must(t, err)
	defer sub.Unsubscribe()
	must(t, nc.PublishRequest("$JS.API.DIRECT.GET.KV_"+bucket, inbox, request))
	view := make(map[string]uint64)
	for {
		m, err := sub.NextMsg(wait)
		must(t, err)
		if status := m.Header.Get("Status"); status != "" {
			equal(t, "status", status, "204")
			equal(t, "keys in an answer", len(view), keys)
			return view
		}
		view[strings.TrimPrefix(m.Header.Get("Nats-Subject"), prefix)], err = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
		must(t, err)
	}
}

// firstOf returns the first values of a watch of everything.
func firstOf(t *testing.T, kv jetstream.KeyValue) map[string]uint64 {
	t.Helper()
	w, err := kv.WatchAll(testContext(t))
	must(t, err)
	defer w.Stop()
	view, last := make(map[string]uint64), uint64(0)
	for {
		select {
		case e := <-w.Updates():
			if e == nil {
				return view
			}
			if e.Revision() <= last {
				t.Errorf("revision %d after %d", e.Revision(), last)
			}
			last = e.Revision()
			view[e.Key()] = last
		case <-time.After(wait):
			t.Fatalf("%d first values, and no end", len(view))
		}
	}
}

// A watcher that does not take its first values stands in nobody's way: its bucket can be deleted and made again,
// and its server stops in order.
func TestStalledWatcherIsNoObstacle(t *testing.T) {
	for _, storage := range []string{"file", "rocksdb"} {
		t.Run(storage, func(t *testing.T) {
			server := process.New(t, "")
			ctx, nc := testContext(t), server.Connect(t)
			js, err := jetstream.New(nc)
			must(t, err)
			for range 2 {
				kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", Metadata: map[string]string{"cleat.storage": storage}})
				must(t, err)
				for key := range 800 {
					_, err := kv.Put(ctx, fmt.Sprint("k.", key), make([]byte, 10_000))
					must(t, err)
				}
				stall(t, nc)
				must(t, js.DeleteKeyValue(ctx, "b"))
			}
			kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", Metadata: map[string]string{"cleat.storage": storage}})
			must(t, err)
			for key := range 800 {
				_, err := kv.Put(ctx, fmt.Sprint("k.", key), make([]byte, 10_000))
				must(t, err)
			}
			stall(t, nc)
			must(t, server.Restart())
			if log := server.LogTail(100); strings.Contains(log, "[ERR]") || strings.Contains(log, "panic") {
				t.Errorf("the server says:\n%s", log)
			}
		})
	}
}

// stall begins to watch bucket b and does not say that it has processed anything.
func stall(t *testing.T, nc *nats.Conn) {
	t.Helper()
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	must(t, err)
	config := fmt.Sprintf(`{"stream_name":"KV_b","config":{"deliver_subject":%q,"filter_subject":"$KV.b.>","deliver_policy":"last_per_subject","ack_policy":"none","max_deliver":1,`+
		`"flow_control":true,"idle_heartbeat":5000000000,"mem_storage":true,"num_replicas":1}}`, inbox)
	m, err := nc.Request("$JS.API.CONSUMER.CREATE.KV_b", []byte(config), wait)
	must(t, err)
	if strings.Contains(string(m.Data), `"error"`) {
		t.Fatalf("%s", m.Data)
	}
	for got := 0; ; got++ { // Until the window is full.
		if _, err := sub.NextMsg(300 * time.Millisecond); err != nil {
			if got == 0 || got >= 800 {
				t.Fatalf("%d messages before the watcher stalled", got)
			}
			return
		}
	}
}
