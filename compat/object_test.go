package compat

import (
	"bytes"
	"context"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func objectStore(t *testing.T, cfg jetstream.ObjectStoreConfig) jetstream.ObjectStore {
	t.Helper()
	js := jetStream(t, shared())
	cfg.Bucket = name(t)
	store, err := js.CreateObjectStore(testContext(t), cfg)
	must(t, err)
	t.Cleanup(func() { _ = js.DeleteObjectStore(context.Background(), cfg.Bucket) })
	return store
}

func TestObjectPutGet(t *testing.T) {
	t.Parallel()
	ctx, store := testContext(t), objectStore(t, jetstream.ObjectStoreConfig{Description: "files"})

	// Two and a half chunks of the default size, of bytes that do not compress.
	content := make([]byte, 320<<10)
	rand.New(rand.NewSource(1)).Read(content)
	info, err := store.Put(ctx, jetstream.ObjectMeta{Name: "dir/file.bin", Description: "a file"}, bytes.NewReader(content))
	must(t, err)
	equal(t, "size", info.Size, uint64(len(content)))
	equal(t, "chunks", info.Chunks, 3)
	got, err := store.GetBytes(ctx, "dir/file.bin")
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Fatal("other bytes came back")
	}

	// A new version replaces the old one, chunks and all.
	_, err = store.PutString(ctx, "dir/file.bin", "short")
	must(t, err)
	text, err := store.GetString(ctx, "dir/file.bin")
	must(t, err)
	equal(t, "content", text, "short")
	status, err := store.Status(ctx)
	must(t, err)
	if status.Size() > 10_000 {
		t.Errorf("store has %d bytes: the old chunks are still there", status.Size())
	}
	_, err = store.GetBytes(ctx, "nothing")
	wantErr(t, err, jetstream.ErrObjectNotFound)
}

func TestObjectDelete(t *testing.T) {
	t.Parallel()
	ctx, store := testContext(t), objectStore(t, jetstream.ObjectStoreConfig{})
	_, err := store.PutString(ctx, "name", "content")
	must(t, err)
	must(t, store.Delete(ctx, "name"))
	_, err = store.GetBytes(ctx, "name")
	wantErr(t, err, jetstream.ErrObjectNotFound)
	info, err := store.GetInfo(ctx, "name", jetstream.GetObjectInfoShowDeleted())
	must(t, err)
	equal(t, "deleted", info.Deleted, true)
	_, err = store.PutString(ctx, "name", "again")
	must(t, err)
}

func TestObjectList(t *testing.T) {
	t.Parallel()
	ctx, store := testContext(t), objectStore(t, jetstream.ObjectStoreConfig{})
	_, err := store.List(ctx)
	wantErr(t, err, jetstream.ErrNoObjectsFound)
	for _, object := range []string{"b", "a", "gone"} {
		_, err := store.PutString(ctx, object, object)
		must(t, err)
	}
	must(t, store.Delete(ctx, "gone"))
	must(t, store.UpdateMeta(ctx, "b", jetstream.ObjectMeta{Name: "c", Description: "renamed"}))
	infos, err := store.List(ctx)
	must(t, err)
	names := make([]string, len(infos))
	for i, info := range infos {
		names[i] = info.Name
	}
	slices.Sort(names)
	equal(t, "names", strings.Join(names, " "), "a c")
	text, err := store.GetString(ctx, "c")
	must(t, err)
	equal(t, "content under the new name", text, "b")
}

func TestObjectWatch(t *testing.T) {
	t.Parallel()
	ctx, store := testContext(t), objectStore(t, jetstream.ObjectStoreConfig{})
	_, err := store.PutString(ctx, "first", "1")
	must(t, err)
	w, err := store.Watch(ctx)
	must(t, err)
	defer w.Stop()
	_, err = store.PutString(ctx, "second", "2")
	must(t, err)
	must(t, store.Delete(ctx, "first"))
	for _, want := range []string{"first", "", "second", "first deleted"} {
		select {
		case info := <-w.Updates():
			got := ""
			if info != nil {
				got = info.Name
				if info.Deleted {
					got += " deleted"
				}
			}
			equal(t, "update", got, want)
		case <-time.After(wait):
			t.Fatalf("no update; wanted %q", want)
		}
	}
}

func TestObjectLinks(t *testing.T) {
	t.Parallel()
	ctx, store := testContext(t), objectStore(t, jetstream.ObjectStoreConfig{})
	info, err := store.PutString(ctx, "target", "content")
	must(t, err)
	_, err = store.AddLink(ctx, "link", info)
	must(t, err)
	text, err := store.GetString(ctx, "link")
	must(t, err)
	equal(t, "content through a link", text, "content")
}

func TestObjectSeal(t *testing.T) {
	t.Parallel()
	ctx, store := testContext(t), objectStore(t, jetstream.ObjectStoreConfig{})
	_, err := store.PutString(ctx, "name", "content")
	must(t, err)
	must(t, store.Seal(ctx))
	if _, err = store.PutString(ctx, "other", "content"); err == nil {
		t.Fatal("a sealed store took an object")
	}
	if err = store.Delete(ctx, "name"); err == nil {
		t.Fatal("a sealed store deleted an object")
	}
	text, err := store.GetString(ctx, "name")
	must(t, err)
	equal(t, "content", text, "content")
	status, err := store.Status(ctx)
	must(t, err)
	equal(t, "sealed", status.Sealed(), true)
}
