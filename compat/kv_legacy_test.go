package compat

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// The older API of nats.go, which most programs in the field still use: other requests, other
// consumers, other error mappings than the jetstream package.

func legacyBucket(t *testing.T, cfg nats.KeyValueConfig) nats.KeyValue {
	t.Helper()
	js := legacyJetStream(t, shared())
	cfg.Bucket = name(t)
	kv, err := js.CreateKeyValue(&cfg)
	must(t, err)
	t.Cleanup(func() { _ = js.DeleteKeyValue(cfg.Bucket) })
	return kv
}

func TestLegacyOperations(t *testing.T) {
	t.Parallel()
	kv := legacyBucket(t, nats.KeyValueConfig{History: 5})

	revision, err := kv.Create("key", []byte("1"))
	must(t, err)
	equal(t, "revision", revision, 1)
	_, err = kv.Create("key", []byte("x"))
	wantErr(t, err, nats.ErrKeyExists)
	revision, err = kv.Update("key", []byte("2"), revision)
	must(t, err)
	_, err = kv.Update("key", []byte("x"), revision-1)
	if err == nil || !strings.Contains(err.Error(), "wrong last sequence: 2") {
		t.Fatalf("lost update: %v", err)
	}
	_, err = kv.PutString("key", "3")
	must(t, err)
	entry, err := kv.Get("key")
	must(t, err)
	equal(t, "value", string(entry.Value()), "3")
	equal(t, "revision", entry.Revision(), 3)
	entry, err = kv.GetRevision("key", 2)
	must(t, err)
	equal(t, "value", string(entry.Value()), "2")

	must(t, kv.Delete("key", nats.LastRevision(3)))
	_, err = kv.Get("key")
	wantErr(t, err, nats.ErrKeyNotFound)
	history, err := kv.History("key")
	must(t, err)
	equal(t, "entries", len(history), 4)
	equal(t, "newest", history[3].Operation(), nats.KeyValueDelete)
	_, err = kv.Create("key", []byte("5"))
	must(t, err)
	must(t, kv.Purge("key"))
	history, err = kv.History("key")
	must(t, err)
	equal(t, "entries after a purge", len(history), 1)
	equal(t, "newest", history[0].Operation(), nats.KeyValuePurge)
	must(t, kv.PurgeDeletes(nats.DeleteMarkersOlderThan(-1)))
	_, err = kv.History("key")
	wantErr(t, err, nats.ErrKeyNotFound)
}

func TestLegacyKeys(t *testing.T) {
	t.Parallel()
	kv := legacyBucket(t, nats.KeyValueConfig{})
	_, err := kv.Keys()
	wantErr(t, err, nats.ErrNoKeysFound)
	for _, key := range []string{"c", "a", "b"} {
		_, err := kv.PutString(key, "v")
		must(t, err)
	}
	must(t, kv.Delete("b"))
	keys, err := kv.Keys()
	must(t, err)
	slices.Sort(keys)
	equal(t, "keys", strings.Join(keys, " "), "a c")
	lister, err := kv.ListKeys()
	must(t, err)
	keys = keys[:0]
	for key := range lister.Keys() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	equal(t, "listed", strings.Join(keys, " "), "a c")
}

func TestLegacyWatch(t *testing.T) {
	t.Parallel()
	for option, c := range map[string]struct {
		opts []nats.WatchOpt
		want string
	}{
		"Default":        {nil, "a=2 b= c=1 |"},
		"IncludeHistory": {[]nats.WatchOpt{nats.IncludeHistory()}, "a=1 a=2 b=1 b= c=1 |"},
		"IgnoreDeletes":  {[]nats.WatchOpt{nats.IgnoreDeletes()}, "a=2 c=1 |"},
		"MetaOnly":       {[]nats.WatchOpt{nats.MetaOnly()}, "a= b= c= |"},
		"UpdatesOnly":    {[]nats.WatchOpt{nats.UpdatesOnly()}, ""},
	} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			kv := legacyBucket(t, nats.KeyValueConfig{History: 5})
			for _, put := range []string{"a=1", "a=2", "b=1"} {
				key, value, _ := strings.Cut(put, "=")
				_, err := kv.PutString(key, value)
				must(t, err)
			}
			must(t, kv.Delete("b"))
			_, err := kv.PutString("c", "1")
			must(t, err)

			w, err := kv.WatchAll(c.opts...)
			must(t, err)
			defer w.Stop()
			_, err = kv.PutString("end", "")
			must(t, err)
			equal(t, "updates", legacyUntil(t, w, "end"), strings.TrimSpace(c.want+" end="))
		})
	}
}

func TestLegacyWatchFilters(t *testing.T) {
	t.Parallel()
	kv := legacyBucket(t, nats.KeyValueConfig{})
	for _, key := range []string{"a.1", "b.1", "c.1"} {
		_, err := kv.PutString(key, "v")
		must(t, err)
	}
	w, err := kv.Watch("b.*")
	must(t, err)
	defer w.Stop()
	several, err := kv.WatchFiltered([]string{"a.*", "c.*"})
	must(t, err)
	defer several.Stop()
	for _, key := range []string{"a.end", "b.end"} {
		_, err = kv.PutString(key, "")
		must(t, err)
	}
	equal(t, "one filter", legacyUntil(t, w, "b.end"), "b.1=v | b.end=")
	equal(t, "several filters", legacyUntil(t, several, "a.end"), "a.1=v c.1=v | a.end=")
}

// legacyUntil reads updates up to the one of the last key; "|" stands for the mark after the first
// values.
func legacyUntil(t *testing.T, w nats.KeyWatcher, last string) string {
	t.Helper()
	var seen []string
	for {
		select {
		case e := <-w.Updates():
			if e == nil {
				seen = append(seen, "|")
				continue
			}
			seen = append(seen, e.Key()+"="+string(e.Value()))
			if e.Key() == last {
				return strings.Join(seen, " ")
			}
		case <-time.After(wait):
			t.Fatalf("no update after %q", seen)
		}
	}
}

func TestLegacyBuckets(t *testing.T) {
	t.Parallel()
	js := legacyJetStream(t, shared())
	kv := legacyBucket(t, nats.KeyValueConfig{
		Description: "old", History: 2, TTL: time.Hour, MaxValueSize: 100, Storage: nats.MemoryStorage, Compression: true,
	})
	_, err := kv.PutString("key", "v")
	must(t, err)
	status, err := kv.Status()
	must(t, err)
	equal(t, "bucket", status.Bucket(), name(t))
	equal(t, "values", status.Values(), 1)
	equal(t, "history", status.History(), 2)
	equal(t, "TTL", status.TTL(), time.Hour)
	equal(t, "compressed", status.IsCompressed(), true)

	_, err = js.KeyValue("no_such_bucket")
	wantErr(t, err, nats.ErrBucketNotFound)
	var named, listed bool
	for n := range js.KeyValueStoreNames() {
		named = named || n == "KV_"+name(t) || n == name(t)
	}
	for s := range js.KeyValueStores() {
		listed = listed || s.Bucket() == name(t)
	}
	if !named || !listed {
		t.Errorf("bucket named: %v, listed: %v", named, listed)
	}
	must(t, js.DeleteKeyValue(name(t)))
	_, err = js.KeyValue(name(t))
	wantErr(t, err, nats.ErrBucketNotFound)
}
