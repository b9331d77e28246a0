package compat

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ttl is the shortest that the clients may ask for.
const ttl = time.Second

func TestKeyTTL(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 3, LimitMarkerTTL: ttl})
	w, err := kv.WatchAll(ctx)
	w = watcher(t, w, err)
	expect(t, w, "initial")

	_, err = kv.Create(ctx, "short", []byte("v"), jetstream.KeyTTL(ttl))
	must(t, err)
	_, err = kv.Create(ctx, "long", []byte("v"), jetstream.KeyTTL(time.Minute))
	must(t, err)
	_, err = kv.Create(ctx, "short", []byte("v"), jetstream.KeyTTL(ttl))
	wantErr(t, err, jetstream.ErrKeyExists)

	// Expiry leaves a marker, which watchers see as a purge.
	expect(t, w, "PUT short=v@1", "PUT long=v@2", "PURGE short=@3")
	_, err = kv.Get(ctx, "short")
	wantErr(t, err, jetstream.ErrKeyNotFound)
	_, err = kv.Get(ctx, "long")
	must(t, err)
	revision, err := kv.Create(ctx, "short", []byte("again"))
	must(t, err)
	equal(t, "revision", revision, 4)
}

func TestKeyTTLNotOffered(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{})
	_, err := kv.Create(ctx, "key", []byte("v"), jetstream.KeyTTL(ttl))
	wantCode(t, err, 10166) // Per-message TTL is disabled.
	_, err = kv.Get(ctx, "key")
	wantErr(t, err, jetstream.ErrKeyNotFound)
}

func TestBucketTTL(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{TTL: ttl})
	status, err := kv.Status(ctx)
	must(t, err)
	equal(t, "TTL", status.TTL(), ttl)

	_, err = kv.PutString(ctx, "key", "v")
	must(t, err)
	_, err = kv.Get(ctx, "key")
	must(t, err)
	eventually(t, "the key expires", func() bool {
		_, err := kv.Get(ctx, "key")
		return err != nil
	})
	// It leaves nothing: no marker, and a revision that goes on from where it was.
	status, err = kv.Status(ctx)
	must(t, err)
	equal(t, "values", status.Values(), 0)
	revision, err := kv.Create(ctx, "key", []byte("again"))
	must(t, err)
	equal(t, "revision", revision, 2)
}

func TestLimitMarkers(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{TTL: ttl, LimitMarkerTTL: ttl})
	status, err := kv.Status(ctx)
	must(t, err)
	equal(t, "limit marker TTL", status.LimitMarkerTTL(), ttl)
	w, err := kv.WatchAll(ctx)
	w = watcher(t, w, err)
	expect(t, w, "initial")

	_, err = kv.PutString(ctx, "key", "v")
	must(t, err)
	expect(t, w, "PUT key=v@1", "PURGE key=@2")
	eventually(t, "the marker expires too", func() bool {
		status, err := kv.Status(ctx)
		must(t, err)
		return status.Values() == 0
	})
	quiet(t, kv, w, "key") // And leaves no marker of its own.
}

func TestPurgeTTL(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 3, LimitMarkerTTL: ttl})
	for range 3 {
		_, err := kv.PutString(ctx, "key", "v")
		must(t, err)
	}
	must(t, kv.Purge(ctx, "key", jetstream.PurgeTTL(ttl)))
	history, err := kv.History(ctx, "key")
	must(t, err)
	equal(t, "history", operations(history), "PURGE")
	eventually(t, "the purge marker expires", func() bool {
		status, err := kv.Status(ctx)
		must(t, err)
		return status.Values() == 0
	})
}
