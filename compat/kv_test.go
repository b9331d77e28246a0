package compat

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestPutGet(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 5})

	before := time.Now().Add(-time.Minute)
	first, err := kv.Put(ctx, "greeting", []byte("hello"))
	must(t, err)
	equal(t, "first revision", first, 1)
	second, err := kv.PutString(ctx, "greeting", "hello world")
	must(t, err)
	equal(t, "second revision", second, 2)

	entry, err := kv.Get(ctx, "greeting")
	must(t, err)
	equal(t, "bucket", entry.Bucket(), kv.Bucket())
	equal(t, "key", entry.Key(), "greeting")
	equal(t, "value", string(entry.Value()), "hello world")
	equal(t, "revision", entry.Revision(), second)
	equal(t, "operation", entry.Operation(), jetstream.KeyValuePut)
	if c := entry.Created(); c.Before(before) || c.After(time.Now().Add(time.Minute)) {
		t.Fatalf("created %s, now is %s", c, time.Now())
	}

	_, err = kv.Get(ctx, "nothing")
	wantErr(t, err, jetstream.ErrKeyNotFound)
}

func TestValues(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{})
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	for key, value := range map[string][]byte{
		"empty":                   {},
		"binary":                  binary,
		"crlf":                    []byte("+OK\r\nPING\r\nMSG x 1 0\r\n\r\n"),
		"large":                   []byte(strings.Repeat("0123456789abcdef", 60_000)),
		"a.b.c.d.e.f.g":           []byte("deep"),
		"A-Z_a-z/0=9":             []byte("every character a key may have"),
		strings.Repeat("k", 1000): []byte("long key"),
	} {
		_, err := kv.Put(ctx, key, value)
		must(t, err)
		entry, err := kv.Get(ctx, key)
		must(t, err)
		if !slices.Equal(entry.Value(), value) {
			t.Errorf("key %.20q: read %d bytes, wrote %d, or other ones", key, len(entry.Value()), len(value))
		}
	}
}

func TestGetRevision(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 3})
	for _, value := range []string{"1", "2", "3", "4"} {
		_, err := kv.PutString(ctx, "key", value)
		must(t, err)
	}
	other, err := kv.PutString(ctx, "other", "x")
	must(t, err)

	for revision, value := range map[uint64]string{2: "2", 3: "3", 4: "4"} {
		entry, err := kv.GetRevision(ctx, "key", revision)
		must(t, err)
		equal(t, "value", string(entry.Value()), value)
		equal(t, "revision", entry.Revision(), revision)
	}
	_, err = kv.GetRevision(ctx, "key", 1)
	wantErr(t, err, jetstream.ErrKeyNotFound) // Pushed out by history.
	_, err = kv.GetRevision(ctx, "key", other)
	wantErr(t, err, jetstream.ErrKeyNotFound) // A revision of another key.
	_, err = kv.GetRevision(ctx, "key", 100)
	wantErr(t, err, jetstream.ErrKeyNotFound)
}

func TestCreate(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 5})

	_, err := kv.Create(ctx, "key", []byte("1"))
	must(t, err)
	_, err = kv.Create(ctx, "key", []byte("2"))
	wantErr(t, err, jetstream.ErrKeyExists)
	wantCode(t, err, jetstream.JSErrCodeStreamWrongLastSequence)

	must(t, kv.Delete(ctx, "key"))
	revision, err := kv.Create(ctx, "key", []byte("3"))
	must(t, err)
	equal(t, "revision over a delete marker", revision, 3)

	must(t, kv.Purge(ctx, "key"))
	revision, err = kv.Create(ctx, "key", []byte("4"))
	must(t, err)
	equal(t, "revision over a purge marker", revision, 5)
	entry, err := kv.Get(ctx, "key")
	must(t, err)
	equal(t, "value", string(entry.Value()), "4")
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{})

	first, err := kv.PutString(ctx, "key", "1")
	must(t, err)
	_, err = kv.PutString(ctx, "neighbour", "x")
	must(t, err)
	second, err := kv.Update(ctx, "key", []byte("2"), first)
	must(t, err)
	equal(t, "revision", second, 3)

	_, err = kv.Update(ctx, "key", []byte("3"), first)
	wantCode(t, err, jetstream.JSErrCodeStreamWrongLastSequence)
	if !strings.Contains(err.Error(), "wrong last sequence: 3") {
		t.Fatalf("error %q does not say which revision is the last", err)
	}
	entry, err := kv.Get(ctx, "key")
	must(t, err)
	equal(t, "value after a lost update", string(entry.Value()), "2")

	_, err = kv.Update(ctx, "unknown", []byte("1"), 7)
	wantCode(t, err, jetstream.JSErrCodeStreamWrongLastSequence)
}

// One of many that compare and set at once wins each round; none is told wrongly that it lost.
func TestUpdateConcurrent(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{})
	_, err := kv.PutString(ctx, "counter", "0")
	must(t, err)

	const clients, rounds = 8, 20
	var lost, won atomic.Int64
	var all sync.WaitGroup
	for range clients {
		js := jetStream(t, shared())
		own, err := js.KeyValue(ctx, kv.Bucket())
		must(t, err)
		all.Go(func() {
			for range rounds {
				entry, err := own.Get(ctx, "counter")
				if err != nil {
					t.Error(err)
					return
				}
				value := append(slices.Clone(entry.Value()), 'x')
				switch _, err := own.Update(ctx, "counter", value, entry.Revision()); {
				case err == nil:
					won.Add(1)
				case strings.Contains(err.Error(), "wrong last sequence"):
					lost.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	entry, err := kv.Get(ctx, "counter")
	must(t, err)
	equal(t, "updates in the value", int64(len(entry.Value())-1), won.Load())
	equal(t, "last revision", int64(entry.Revision()), won.Load()+1)
	equal(t, "attempts", won.Load()+lost.Load(), clients*rounds)
}

func TestDelete(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 5})

	_, err := kv.PutString(ctx, "key", "1")
	must(t, err)
	must(t, kv.Delete(ctx, "key"))
	_, err = kv.Get(ctx, "key")
	wantErr(t, err, jetstream.ErrKeyNotFound)

	history, err := kv.History(ctx, "key")
	must(t, err)
	equal(t, "history", operations(history), "PUT DEL")

	last, err := kv.PutString(ctx, "key", "2")
	must(t, err)
	err = kv.Delete(ctx, "key", jetstream.LastRevision(last-1))
	wantCode(t, err, jetstream.JSErrCodeStreamWrongLastSequence)
	_, err = kv.Get(ctx, "key")
	must(t, err)
	must(t, kv.Delete(ctx, "key", jetstream.LastRevision(last)))
	_, err = kv.Get(ctx, "key")
	wantErr(t, err, jetstream.ErrKeyNotFound)
}

func TestPurge(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 5})

	for range 3 {
		_, err := kv.PutString(ctx, "key", "v")
		must(t, err)
	}
	kept, err := kv.PutString(ctx, "kept", "v")
	must(t, err)
	err = kv.Purge(ctx, "key", jetstream.LastRevision(1))
	wantCode(t, err, jetstream.JSErrCodeStreamWrongLastSequence)
	must(t, kv.Purge(ctx, "key", jetstream.LastRevision(3)))

	history, err := kv.History(ctx, "key")
	must(t, err)
	equal(t, "history", operations(history), "PURGE")
	equal(t, "revision of the marker", history[0].Revision(), kept+1)
	_, err = kv.Get(ctx, "key")
	wantErr(t, err, jetstream.ErrKeyNotFound)
	_, err = kv.Get(ctx, "kept")
	must(t, err)
}

func TestPurgeDeletes(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 10})

	for _, key := range []string{"deleted", "purged", "kept"} {
		for range 3 {
			_, err := kv.PutString(ctx, key, "v")
			must(t, err)
		}
	}
	must(t, kv.Delete(ctx, "deleted"))
	must(t, kv.Purge(ctx, "purged"))

	// Young markers stay, what they hide goes.
	must(t, kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(time.Hour)))
	history, err := kv.History(ctx, "deleted")
	must(t, err)
	equal(t, "history", operations(history), "DEL")

	must(t, kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)))
	for _, key := range []string{"deleted", "purged"} {
		_, err = kv.History(ctx, key)
		wantErr(t, err, jetstream.ErrKeyNotFound)
	}
	status, err := kv.Status(ctx)
	must(t, err)
	equal(t, "values", status.Values(), 3)
	revision, err := kv.Create(ctx, "deleted", []byte("v"))
	must(t, err)
	equal(t, "revision, which no purge takes back", revision, 12)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 2})

	_, err := kv.Keys(ctx)
	wantErr(t, err, jetstream.ErrNoKeysFound)

	for _, key := range []string{"a", "b.1", "b.2", "c.1.x", "c.2.x", "gone"} {
		for range 2 {
			_, err := kv.PutString(ctx, key, "v")
			must(t, err)
		}
	}
	must(t, kv.Delete(ctx, "gone"))

	keys, err := kv.Keys(ctx)
	must(t, err)
	slices.Sort(keys)
	equal(t, "keys", strings.Join(keys, " "), "a b.1 b.2 c.1.x c.2.x")

	lister, err := kv.ListKeys(ctx)
	must(t, err)
	equal(t, "listed", drain(lister), "a b.1 b.2 c.1.x c.2.x")

	for filters, want := range map[string]string{
		"b.*":         "b.1 b.2",
		"c.>":         "c.1.x c.2.x",
		"c.*.x":       "c.1.x c.2.x",
		"a":           "a",
		"a b.1 c.2.>": "a b.1 c.2.x",
		"nothing.>":   "",
	} {
		lister, err := kv.ListKeysFiltered(ctx, strings.Fields(filters)...)
		must(t, err)
		equal(t, "listed with "+filters, drain(lister), want)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	ctx, kv := testContext(t), bucket(t, jetstream.KeyValueConfig{History: 3})

	for _, value := range []string{"1", "2", "3"} {
		_, err := kv.PutString(ctx, "key", value)
		must(t, err)
		_, err = kv.PutString(ctx, "other", value)
		must(t, err)
	}
	must(t, kv.Delete(ctx, "key"))

	history, err := kv.History(ctx, "key")
	must(t, err)
	equal(t, "history", operations(history), "PUT PUT DEL")
	equal(t, "oldest value", string(history[0].Value()), "2")
	for i, revision := range []uint64{3, 5, 7} {
		equal(t, "revision", history[i].Revision(), revision)
		equal(t, "delta", history[i].Delta(), uint64(len(history)-1-i))
	}

	history, err = kv.History(ctx, ">")
	must(t, err)
	equal(t, "entries of all keys", len(history), 6)
	_, err = kv.History(ctx, "nothing")
	wantErr(t, err, jetstream.ErrKeyNotFound)
}

// operations lists the operations of entries, oldest first.
func operations(entries []jetstream.KeyValueEntry) string {
	words := make([]string, len(entries))
	for i, e := range entries {
		switch e.Operation() {
		case jetstream.KeyValuePut:
			words[i] = "PUT"
		case jetstream.KeyValueDelete:
			words[i] = "DEL"
		case jetstream.KeyValuePurge:
			words[i] = "PURGE"
		}
	}
	return strings.Join(words, " ")
}

// drain reads the keys of a lister to the end and sorts them.
func drain(lister jetstream.KeyLister) string {
	var keys []string
	for key := range lister.Keys() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return strings.Join(keys, " ")
}
