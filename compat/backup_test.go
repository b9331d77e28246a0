package compat

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jsm.go"
	"github.com/nats-io/nats.go/jetstream"
)

// manager is the library behind "nats stream backup" and "nats stream restore".
func manager(t *testing.T) *jsm.Manager {
	t.Helper()
	mgr, err := jsm.New(shared().Connect(t), jsm.WithTimeout(wait))
	must(t, err)
	return mgr
}

func backUp(t *testing.T, stream, dir string) {
	t.Helper()
	s, err := manager(t).LoadStream(stream)
	must(t, err)
	_, err = s.SnapshotToDirectory(testContext(t), dir, jsm.SnapshotConsumers())
	must(t, err)
}

func restore(t *testing.T, stream, dir string) error {
	t.Helper()
	_, _, err := manager(t).RestoreSnapshotFromDirectory(testContext(t), stream, dir)
	return err
}

// describe is all that a bucket holds.
func describe(t *testing.T, kv jetstream.KeyValue) (text string) {
	t.Helper()
	w, err := kv.WatchAll(testContext(t), jetstream.IncludeHistory())
	must(t, err)
	defer w.Stop()
	for e := range w.Updates() {
		if e == nil {
			return text
		}
		text += fmt.Sprintf("%d %s %v %v %.20q %d\n", e.Revision(), e.Key(), e.Operation(), e.Created().UnixNano(), e.Value(), len(e.Value()))
	}
	return text
}

// A bucket that is backed up, deleted and restored is what it was, and goes on from there.
func TestBackupBucket(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	kv := bucket(t, jetstream.KeyValueConfig{History: 3, Description: "kept", LimitMarkerTTL: time.Hour})
	for n := range 40 {
		_, err := kv.Put(ctx, fmt.Sprint("key.", n%15), bytes.Repeat([]byte{byte(n)}, 100_000))
		must(t, err)
	}
	must(t, kv.Delete(ctx, "key.3"))
	must(t, kv.Purge(ctx, "key.4"))
	_, err := kv.Create(ctx, "expiring", []byte("v"), jetstream.KeyTTL(time.Hour))
	must(t, err)
	must(t, kv.Delete(ctx, "key.5"))
	must(t, kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)))
	before := describe(t, kv)

	dir, stream, js := t.TempDir(), "KV_"+kv.Bucket(), jetStream(t, shared())
	backUp(t, stream, dir)
	if err := restore(t, stream, dir); err == nil {
		t.Fatal("restored over a bucket that is there")
	}
	must(t, js.DeleteKeyValue(ctx, kv.Bucket()))
	must(t, restore(t, stream, dir))

	kv, err = js.KeyValue(ctx, kv.Bucket())
	must(t, err)
	equal(t, "contents", describe(t, kv), before)
	s, err := kv.Status(ctx)
	must(t, err)
	equal(t, "history", s.History(), 3)
	equal(t, "limit marker", s.LimitMarkerTTL(), time.Hour)
	rev, err := kv.Put(ctx, "new", []byte("v"))
	must(t, err)
	equal(t, "next revision", rev, 45)
	_, err = kv.Update(ctx, "new", []byte("w"), rev)
	must(t, err)
}

// A durable consumer comes back too: what it has acknowledged is not delivered again.
func TestBackupConsumer(t *testing.T) {
	t.Parallel()
	ctx, js := testContext(t), jetStream(t, shared())
	s := stream(t, js, jetstream.StreamConfig{Retention: jetstream.InterestPolicy, Replicas: replicas()})
	_, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "slow", AckPolicy: jetstream.AckExplicitPolicy})
	must(t, err)
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "one", AckPolicy: jetstream.AckExplicitPolicy})
	must(t, err)
	publish(t, js, 0, 6)
	fetch(t, c, 0, 3, func(m jetstream.Msg) error { return m.DoubleAck(ctx) })
	dir := t.TempDir()
	backUp(t, name(t), dir)
	must(t, js.DeleteStream(ctx, name(t)))
	must(t, restore(t, name(t), dir))
	for durable, first := range map[string]int{"one": 3, "slow": 0} {
		c, err = js.Consumer(ctx, name(t), durable)
		must(t, err)
		fetch(t, c, first, 6-first, jetstream.Msg.Ack)
	}
}

// Backups that nats-server made: of 2.15, and of 2.9 in its old format.
func TestBackupForeign(t *testing.T) {
	t.Parallel()
	const (
		config = `"name":%q,"subjects":["$KV.%s.>"],"retention":"limits","max_consumers":-1,"max_msgs_per_subject":10,"max_msgs":-1,"max_bytes":-1,` +
			`"max_age":0,"max_msg_size":-1,"storage":"file","discard":"new","num_replicas":%d,"duplicate_window":120000000000,"deny_delete":true,"allow_rollup_hdrs":true,"allow_direct":true,"allow_msg_ttl":true`
		state = `"messages":%d,"bytes":1,"first_seq":1,"first_ts":"2026-11-21T23:34:55Z","last_seq":%d,"last_ts":"2026-11-21T23:34:59Z","consumer_count":0`
	)
	for _, tt := range []struct {
		file, bucket   string
		messages, last int
		key, want      string
	}{
		{"nats-2.9.10.tar.s2", "OLD", 6, 6, "k.1", "v1b"},
		{"nats-2.15.tar.s2", "CONFIG", 9, 13, "app.name", "demo"},
	} {
		dir, stream := t.TempDir(), "KV_"+tt.bucket
		data, err := os.ReadFile(filepath.Join("..", "internal", "backup", "testdata", tt.file))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "stream.tar.s2"), data, 0o600))
		meta := fmt.Sprintf(`{"config":{`+config+`},"state":{`+state+`}}`, stream, tt.bucket, replicas(), tt.messages, tt.last)
		must(t, os.WriteFile(filepath.Join(dir, "backup.json"), []byte(meta), 0o600))
		js := jetStream(t, shared())
		t.Cleanup(func() { _ = js.DeleteKeyValue(context.Background(), tt.bucket) })
		must(t, restore(t, stream, dir))
		kv, err := js.KeyValue(testContext(t), tt.bucket)
		must(t, err)
		e, err := kv.Get(testContext(t), tt.key)
		must(t, err)
		equal(t, "value", string(e.Value()), tt.want)
		s, err := kv.Status(testContext(t))
		must(t, err)
		equal(t, "values", s.Values(), uint64(tt.messages))
	}
}

// Of a backup that is not whole nothing stays.
func TestBackupDamaged(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	kv := bucket(t, jetstream.KeyValueConfig{})
	for n := range 20 {
		_, err := kv.Put(ctx, fmt.Sprint(n), []byte(fmt.Sprint("value ", n*n)))
		must(t, err)
	}
	dir, stream, js := t.TempDir(), "KV_"+kv.Bucket(), jetStream(t, shared())
	backUp(t, stream, dir)
	must(t, js.DeleteKeyValue(ctx, kv.Bucket()))
	files, err := filepath.Glob(filepath.Join(dir, "stream.*.s2")) // The format follows the server's version.
	must(t, err)
	equal(t, "archives", len(files), 1)
	file := files[0]
	whole, err := os.ReadFile(file)
	must(t, err)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for what, data := range map[string][]byte{"cut": whole[:len(whole)-3], "flipped": flipped, "noise": []byte("noise"), "empty": {}} {
		must(t, os.WriteFile(file, data, 0o600))
		if err := restore(t, stream, dir); err == nil {
			t.Errorf("%s: restored", what)
		}
		_, err := js.KeyValue(ctx, kv.Bucket())
		wantErr(t, err, jetstream.ErrBucketNotFound)
	}
	must(t, os.WriteFile(file, whole, 0o600))
	must(t, restore(t, stream, dir))
}
