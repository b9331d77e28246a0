package compat

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// next returns the next update of a watch as text: "PUT key=value@revision", or "initial" for the
// mark after the first values.
func next(t *testing.T, w jetstream.KeyWatcher) string {
	t.Helper()
	select {
	case e, open := <-w.Updates():
		switch {
		case !open:
			return "closed"
		case e == nil:
			return "initial"
		}
		return fmt.Sprintf("%s %s=%s@%d", operations([]jetstream.KeyValueEntry{e}), e.Key(), e.Value(), e.Revision())
	case <-time.After(wait):
		t.Fatal("no update")
		return ""
	}
}

// expect reads one update for each of the wanted texts and compares.
func expect(t *testing.T, w jetstream.KeyWatcher, want ...string) {
	t.Helper()
	for _, want := range want {
		equal(t, "update", next(t, w), want)
	}
}

// quiet sends a last put and expects it to be the next update: nothing else came before.
func quiet(t *testing.T, kv jetstream.KeyValue, w jetstream.KeyWatcher, key string) {
	t.Helper()
	revision, err := kv.PutString(context.Background(), key, "end")
	must(t, err)
	expect(t, w, fmt.Sprintf("PUT %s=end@%d", key, revision))
}

func watcher(t *testing.T, w jetstream.KeyWatcher, err error) jetstream.KeyWatcher {
	t.Helper()
	must(t, err)
	t.Cleanup(func() { _ = w.Stop() })
	return w
}

// abc is a bucket in which a was put twice, b put and deleted, c put: revisions 1 to 5.
func abc(t *testing.T) jetstream.KeyValue {
	t.Helper()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 5})
	for _, put := range []string{"a=1", "a=2", "b=1"} {
		key, value, _ := strings.Cut(put, "=")
		_, err := kv.PutString(ctx, key, value)
		must(t, err)
	}
	must(t, kv.Delete(ctx, "b"))
	_, err := kv.PutString(ctx, "c", "1")
	must(t, err)
	return kv
}

func TestWatchAll(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.WatchAll(ctx)
	w = watcher(t, w, err)
	expect(t, w, "PUT a=2@2", "DEL b=@4", "PUT c=1@5", "initial")

	_, err = kv.PutString(ctx, "d", "1")
	must(t, err)
	must(t, kv.Delete(ctx, "d"))
	must(t, kv.Purge(ctx, "a"))
	expect(t, w, "PUT d=1@6", "DEL d=@7", "PURGE a=@8")
}

func TestWatchEmptyBucket(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{})
	w, err := kv.WatchAll(ctx)
	w = watcher(t, w, err)
	expect(t, w, "initial")
	quiet(t, kv, w, "first")
}

func TestWatchOneKey(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.Watch(ctx, "a")
	w = watcher(t, w, err)
	expect(t, w, "PUT a=2@2", "initial")
	_, err = kv.PutString(ctx, "c", "unseen")
	must(t, err)
	quiet(t, kv, w, "a")
}

func TestWatchWildcards(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{})
	for _, key := range []string{"x.1", "y.1", "x.2.a", "x.2"} {
		_, err := kv.PutString(ctx, key, "v")
		must(t, err)
	}
	star, err := kv.Watch(ctx, "x.*")
	star = watcher(t, star, err)
	expect(t, star, "PUT x.1=v@1", "PUT x.2=v@4", "initial")
	tail, err := kv.Watch(ctx, "x.>")
	tail = watcher(t, tail, err)
	expect(t, tail, "PUT x.1=v@1", "PUT x.2.a=v@3", "PUT x.2=v@4", "initial")
	middle, err := kv.Watch(ctx, "*.1")
	middle = watcher(t, middle, err)
	expect(t, middle, "PUT x.1=v@1", "PUT y.1=v@2", "initial")
	quiet(t, kv, star, "x.9")
	expect(t, tail, "PUT x.9=end@5")
	quiet(t, kv, middle, "z.1")
}

func TestWatchSeveralFilters(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.WatchFiltered(ctx, []string{"a", "c.>", "c"})
	w = watcher(t, w, err)
	expect(t, w, "PUT a=2@2", "PUT c=1@5", "initial")
	_, err = kv.PutString(ctx, "b", "unseen")
	must(t, err)
	quiet(t, kv, w, "c.d.e")
}

func TestWatchIncludeHistory(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.WatchAll(ctx, jetstream.IncludeHistory())
	w = watcher(t, w, err)
	expect(t, w, "PUT a=1@1", "PUT a=2@2", "PUT b=1@3", "DEL b=@4", "PUT c=1@5", "initial")
	quiet(t, kv, w, "a")
}

func TestWatchUpdatesOnly(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.WatchAll(ctx, jetstream.UpdatesOnly())
	w = watcher(t, w, err)
	quiet(t, kv, w, "a")
}

func TestWatchIgnoreDeletes(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	w = watcher(t, w, err)
	expect(t, w, "PUT a=2@2", "PUT c=1@5", "initial")
	must(t, kv.Delete(ctx, "a"))
	must(t, kv.Purge(ctx, "c"))
	quiet(t, kv, w, "d")
}

func TestWatchMetaOnly(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.WatchAll(ctx, jetstream.MetaOnly())
	w = watcher(t, w, err)
	expect(t, w, "PUT a=@2", "DEL b=@4", "PUT c=@5", "initial")
	_, err = kv.PutString(ctx, "a", "unseen value")
	must(t, err)
	expect(t, w, "PUT a=@6")
}

func TestWatchResumeFromRevision(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	w, err := kv.WatchAll(ctx, jetstream.ResumeFromRevision(3))
	w = watcher(t, w, err)
	expect(t, w, "PUT b=1@3", "DEL b=@4", "PUT c=1@5", "initial")
	quiet(t, kv, w, "a")

	one, err := kv.Watch(ctx, "a", jetstream.ResumeFromRevision(2))
	one = watcher(t, one, err)
	expect(t, one, "PUT a=2@2", "PUT a=end@6", "initial")
}

func TestWatchStop(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), abc(t)
	js := jetStream(t, shared())
	w, err := kv.WatchAll(ctx)
	must(t, err)
	expect(t, w, "PUT a=2@2")
	must(t, w.Stop())
	eventually(t, "the consumer of a stopped watch is gone", func() bool {
		stream, err := js.Stream(ctx, "KV_"+kv.Bucket())
		must(t, err)
		return stream.CachedInfo().State.Consumers == 0
	})
}

// A watch that begins among writers sees each key's changes once and in order, from a first value
// on that is one consistent view.
func TestWatchAmongWriters(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 64})

	const writers, puts = 4, 400
	var all sync.WaitGroup
	for i := range writers {
		own, err := jetStream(t, shared()).KeyValue(ctx, kv.Bucket())
		must(t, err)
		all.Go(func() {
			for n := range puts {
				if _, err := own.PutString(ctx, fmt.Sprintf("key.%d.%d", i, n%7), fmt.Sprint(n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond) // Among them, not before; the assertions hold either way.
	w, err := kv.WatchAll(ctx)
	w = watcher(t, w, err)
	all.Wait()
	last, err := kv.PutString(ctx, "end", "")
	must(t, err)
	equal(t, "last revision", last, writers*puts+1)

	// The first values leave older ones out. After the mark nothing may be missing, for the history
	// is long enough to hold every put.
	initial, seen := true, uint64(0)
	for {
		select {
		case e := <-w.Updates():
			if e == nil {
				initial = false
				continue
			}
			if e.Revision() <= seen || (!initial && seen > 0 && e.Revision() > seen+1) {
				t.Fatalf("revision %d after %d (first values: %v)", e.Revision(), seen, initial)
			}
			if seen = e.Revision(); seen == last {
				return
			}
		case <-time.After(wait):
			t.Fatalf("stopped at revision %d of %d", seen, last)
		}
	}
}

// First values larger than one flow-control window arrive complete and in order.
func TestWatchManyKeys(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{})
	js := jetStream(t, shared())
	const keys = 20_000
	for n := range keys {
		_, err := js.PublishAsync(fmt.Sprintf("$KV.%s.key.%d", kv.Bucket(), n), []byte(strings.Repeat("v", 100)))
		must(t, err)
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(6 * wait):
		t.Fatal("puts are not acknowledged")
	}
	w, err := kv.WatchAll(ctx)
	w = watcher(t, w, err)
	for n := range keys {
		select {
		case e := <-w.Updates():
			if e == nil || e.Revision() != uint64(n+1) {
				t.Fatalf("update %d is %v", n, e)
			}
		case <-time.After(wait):
			t.Fatalf("stopped after %d keys", n)
		}
	}
	expect(t, w, "initial")
}
