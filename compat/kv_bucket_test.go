package compat

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	kv := bucket(t, jetstream.KeyValueConfig{
		Description: "things", History: 7, TTL: time.Hour, MaxValueSize: 1000, MaxBytes: 1 << 20,
		Storage: jetstream.MemoryStorage, Metadata: map[string]string{"owner": "tests"},
	})
	for range 3 {
		_, err := kv.PutString(ctx, "key", "value")
		must(t, err)
	}
	status, err := kv.Status(ctx)
	must(t, err)
	equal(t, "bucket", status.Bucket(), name(t))
	equal(t, "values", status.Values(), 3)
	equal(t, "history", status.History(), 7)
	equal(t, "TTL", status.TTL(), time.Hour)
	equal(t, "backing store", status.BackingStore(), "JetStream")
	equal(t, "compressed", status.IsCompressed(), false)
	equal(t, "metadata", status.Metadata()["owner"], "tests")
	if b := status.Bytes(); b < 3*uint64(len("$KV.TestStatus.key")+len("value")) {
		t.Errorf("bytes %d: less than what was stored", b)
	}
	cfg := status.Config()
	equal(t, "description", cfg.Description, "things")
	equal(t, "largest value", cfg.MaxValueSize, 1000)
	equal(t, "max bytes", cfg.MaxBytes, 1<<20)
	equal(t, "storage", cfg.Storage, jetstream.MemoryStorage)
	equal(t, "replicas", cfg.Replicas, replicas())
}

func TestCreateBucket(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	cfg := jetstream.KeyValueConfig{Bucket: name(t), History: 3, Description: "same", Replicas: replicas()}
	bucket(t, cfg)

	_, err := js.CreateKeyValue(ctx, cfg) // The same again is no error.
	must(t, err)
	cfg.History = 4
	_, err = js.CreateKeyValue(ctx, cfg)
	wantErr(t, err, jetstream.ErrBucketExists)
	_, err = js.KeyValue(ctx, "no_such_bucket")
	wantErr(t, err, jetstream.ErrBucketNotFound)
	_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name(t) + "_65", History: 65})
	wantErr(t, err, jetstream.ErrHistoryTooLarge)
	_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "bad name"})
	wantErr(t, err, jetstream.ErrInvalidBucketName)
}

func TestCreateBucketConcurrent(t *testing.T) {
	t.Parallel()
	ctx, cfg := testContext(t), jetstream.KeyValueConfig{Bucket: name(t), History: 2}
	var all sync.WaitGroup
	for range 8 {
		js := jetStream(t, shared())
		all.Go(func() {
			if _, err := js.CreateKeyValue(ctx, cfg); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	must(t, jetStream(t, shared()).DeleteKeyValue(ctx, cfg.Bucket))
}

func TestUpdateBucket(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	cfg := jetstream.KeyValueConfig{Bucket: name(t), History: 5}
	_, err := js.UpdateKeyValue(ctx, cfg)
	wantErr(t, err, jetstream.ErrBucketNotFound)

	kv, err := js.CreateOrUpdateKeyValue(ctx, cfg)
	must(t, err)
	for n := range 5 {
		_, err := kv.PutString(ctx, "key", fmt.Sprint(n))
		must(t, err)
	}
	cfg.History, cfg.Description = 2, "less"
	kv, err = js.UpdateKeyValue(ctx, cfg)
	must(t, err)
	history, err := kv.History(ctx, "key")
	must(t, err)
	equal(t, "entries after less history", len(history), 2)
	equal(t, "oldest of them", string(history[0].Value()), "3")

	cfg.Storage = jetstream.MemoryStorage
	_, err = js.UpdateKeyValue(ctx, cfg)
	if err == nil {
		t.Fatal("storage cannot change, but the update was accepted")
	}
	must(t, js.DeleteKeyValue(ctx, cfg.Bucket))
}

func TestDeleteBucket(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	cfg := jetstream.KeyValueConfig{Bucket: name(t)}
	kv, err := js.CreateKeyValue(ctx, cfg)
	must(t, err)
	_, err = kv.PutString(ctx, "key", "v")
	must(t, err)
	must(t, js.DeleteKeyValue(ctx, cfg.Bucket))
	wantErr(t, js.DeleteKeyValue(ctx, cfg.Bucket), jetstream.ErrBucketNotFound)
	_, err = kv.PutString(ctx, "key", "v")
	wantErr(t, err, jetstream.ErrNoStreamResponse)

	// A new bucket of the same name is a new bucket.
	kv, err = js.CreateKeyValue(ctx, cfg)
	must(t, err)
	_, err = kv.Get(ctx, "key")
	wantErr(t, err, jetstream.ErrKeyNotFound)
	revision, err := kv.PutString(ctx, "key", "v")
	must(t, err)
	equal(t, "revision", revision, 1)
	must(t, js.DeleteKeyValue(ctx, cfg.Bucket))
}

func TestListBuckets(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	want := map[string]bool{}
	for _, letter := range []string{"a", "b", "c"} {
		cfg := jetstream.KeyValueConfig{Bucket: name(t) + letter}
		bucket(t, cfg)
		want[cfg.Bucket] = true
	}
	// A stream that is no bucket is not listed.
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name(t), Subjects: []string{name(t)}})
	must(t, err)
	t.Cleanup(func() { _ = js.DeleteStream(context.Background(), name(t)) })

	names := map[string]bool{}
	lister := js.KeyValueStoreNames(ctx)
	for n := range lister.Name() {
		if strings.HasPrefix(n, name(t)) {
			names[n] = true
		}
	}
	must(t, lister.Error())
	if !maps.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
	statuses := map[string]bool{}
	stores := js.KeyValueStores(ctx)
	for status := range stores.Status() {
		if strings.HasPrefix(status.Bucket(), name(t)) {
			statuses[status.Bucket()] = true
		}
	}
	must(t, stores.Error())
	if !maps.Equal(statuses, want) {
		t.Errorf("listed %v, want %v", statuses, want)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	small := bucket(t, jetstream.KeyValueConfig{Bucket: name(t) + "_value", MaxValueSize: 10})
	_, err := small.PutString(ctx, "key", "0123456789")
	must(t, err)
	_, err = small.PutString(ctx, "key", "0123456789a")
	wantCode(t, err, 10054)

	full := bucket(t, jetstream.KeyValueConfig{Bucket: name(t) + "_bytes", MaxBytes: 1000})
	var failed error
	for n := 0; failed == nil && n < 100; n++ {
		_, failed = full.PutString(ctx, fmt.Sprint(n), "value")
	}
	wantCode(t, failed, 10077) // Maximum bytes exceeded: buckets refuse, they do not drop.
	entry, err := full.Get(ctx, "0")
	must(t, err)
	equal(t, "first value", string(entry.Value()), "value")
}

func TestCompression(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	kv := bucket(t, jetstream.KeyValueConfig{Compression: true})
	status, err := kv.Status(ctx)
	must(t, err)
	equal(t, "compressed", status.IsCompressed(), true)
	value := bytes.Repeat([]byte("compressible "), 1000)
	for n := range 100 {
		_, err := kv.Put(ctx, fmt.Sprint(n), value)
		must(t, err)
	}
	for n := range 100 {
		entry, err := kv.Get(ctx, fmt.Sprint(n))
		must(t, err)
		if !slices.Equal(entry.Value(), value) {
			t.Fatal("another value came back")
		}
	}
}

func TestRepublish(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	kv := bucket(t, jetstream.KeyValueConfig{RePublish: &jetstream.RePublish{
		Source: ">", Destination: "copy.>",
	}})
	nc := shared().Connect(t)
	sub, err := nc.SubscribeSync("copy.$KV." + kv.Bucket() + ".>")
	must(t, err)
	must(t, nc.Flush())

	_, err = kv.PutString(ctx, "a.b", "v")
	must(t, err)
	msg, err := sub.NextMsg(wait)
	must(t, err)
	equal(t, "subject", msg.Subject, "copy.$KV."+kv.Bucket()+".a.b")
	equal(t, "data", string(msg.Data), "v")
	for header, want := range map[string]string{
		"Nats-Stream": "KV_" + kv.Bucket(), "Nats-Subject": "$KV." + kv.Bucket() + ".a.b",
		"Nats-Sequence": "1", "Nats-Last-Sequence": "0",
	} {
		equal(t, header, msg.Header.Get(header), want)
	}

	headers := bucket(t, jetstream.KeyValueConfig{Bucket: name(t) + "_headers", RePublish: &jetstream.RePublish{
		Source: ">", Destination: "meta.>", HeadersOnly: true,
	}})
	meta, err := nc.SubscribeSync("meta.$KV." + headers.Bucket() + ".>")
	must(t, err)
	must(t, nc.Flush())
	_, err = headers.PutString(ctx, "a", "value")
	must(t, err)
	msg, err = meta.NextMsg(wait)
	must(t, err)
	equal(t, "data", string(msg.Data), "")
	equal(t, nats.MsgSize, msg.Header.Get(nats.MsgSize), "5")
}

// Once a bucket is created it is there for the clients of every server.
func TestCreateHereGetThere(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	for n := range 30 {
		here, there := jetStream(t, shared()), jetStream(t, shared())
		bucket := fmt.Sprint(name(t), n)
		_, err := here.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket, Replicas: replicas()})
		must(t, err)
		t.Cleanup(func() { _ = here.DeleteKeyValue(context.Background(), bucket) })
		kv, err := there.KeyValue(ctx, bucket)
		must(t, err)
		_, err = kv.Get(ctx, "key")
		wantErr(t, err, jetstream.ErrKeyNotFound)
	}
}
