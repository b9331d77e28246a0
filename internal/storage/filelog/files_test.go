package filelog_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/sim/simfs"
)

func open(t *testing.T, fs vfs.FS, options ...filelog.Option) storage.Engine {
	t.Helper()
	store, err := filelog.OpenStore(fs, "store", options...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.Open("e", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// put replaces the message of each key in one commit.
func put(t *testing.T, e storage.Engine, keys ...int) {
	t.Helper()
	tx := e.Begin()
	for _, key := range keys {
		subject := fmt.Sprintf("$KV.b.%06d", key)
		if st, ok := tx.Subject(subject); ok {
			if _, err := tx.Remove(st.Last); err != nil {
				t.Fatal(err)
			}
		}
		seq := tx.State().LastSeq + 1
		if err := tx.Append(storage.Message{Seq: seq, Time: int64(seq), Subject: subject, Data: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(storage.Applied{Index: e.Applied().Index + 1}); err != nil {
		t.Fatal(err)
	}
}

func work(t *testing.T, e storage.Engine) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = e.Compact(); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
}

func diskBytes(t *testing.T, fs vfs.FS, prefix string) (total int64) {
	t.Helper()
	names, err := fs.List("store/e")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if len(name) < len(prefix) || name[:len(prefix)] != prefix {
			continue
		}
		info, err := fs.Stat("store/e/" + name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

// TestSpaceIsBounded overwrites keys for long and looks at what is on disk: no more than twice what
// is live, and the newest blocks.
func TestSpaceIsBounded(t *testing.T) {
	const keys, block = 2000, 32 << 10
	fs := vfs.NewMem()
	e := open(t, fs, filelog.WithBlockBytes(block, block))
	defer e.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for range keys {
		put(t, e, rng.IntN(keys))
	}
	for round := range 60 {
		for range 500 {
			put(t, e, rng.IntN(keys)*rng.IntN(keys)/keys) // Some are written more often.
		}
		work(t, e)
		live := int64(e.State().Msgs) * (100 + 13 + 33)
		if used := diskBytes(t, fs, "block-"); used > 2*live+3*block {
			t.Fatalf("round %d: %d bytes for %d live ones", round, used, live)
		}
		// The index is saved anew before its changes outgrow it.
		if saved := diskBytes(t, fs, "index-"); saved > 2*(1<<20) {
			t.Fatalf("round %d: %d bytes of index", round, saved)
		}
	}
}

// TestPurgeGivesSpaceBack removes everything: no block is left but the newest.
func TestPurgeGivesSpaceBack(t *testing.T) {
	const block = 16 << 10
	fs := vfs.NewMem()
	e := open(t, fs, filelog.WithBlockBytes(block, block))
	defer e.Close()
	for i := range 3000 {
		put(t, e, i)
	}
	work(t, e)
	tx := e.Begin()
	for seq := uint64(1); seq <= 3000; seq++ {
		if _, err := tx.Remove(seq); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(storage.Applied{Index: 9999}); err != nil {
		t.Fatal(err)
	}
	work(t, e)
	if used := diskBytes(t, fs, "block-"); used > block {
		t.Fatalf("%d bytes are left for nothing", used)
	}
}

// TestCheckpointFollowsChanges counts what a checkpoint of one change writes and syncs when there
// is much that did not change, and what one without a change does.
func TestCheckpointFollowsChanges(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	e := open(t, disk)
	defer e.Close()
	for i := range 200 {
		keys := make([]int, 100)
		for j := range keys {
			keys[j] = i*100 + j
		}
		put(t, e, keys...)
	}
	work(t, e)
	written, syncs := int64(0), 0
	disk.SetHook(func(o simfs.Op) error {
		switch o.Kind {
		case "write":
			written += o.Len
		case "sync", "sync-data":
			syncs++
		}
		return nil
	})
	put(t, e, 77)
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	// Its record, its row, the manifest; block, index, manifest and directory.
	if written > 600 || syncs > 4 {
		t.Fatalf("%d bytes written, %d syncs for one change", written, syncs)
	}
	written, syncs = 0, 0
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if written != 0 || syncs != 0 {
		t.Fatalf("%d bytes written, %d syncs for no change", written, syncs)
	}
}

// TestNoSyncOnTheWritePath commits for long and sees no sync, and few writes.
func TestNoSyncOnTheWritePath(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	e := open(t, disk)
	defer e.Close()
	writes := 0
	disk.SetHook(func(o simfs.Op) error {
		if o.Kind == "sync" || o.Kind == "sync-data" || o.Kind == "rename" {
			t.Errorf("a commit made a %v", o)
		}
		if o.Kind == "write" {
			writes++
		}
		return nil
	})
	for i := range 5000 {
		put(t, e, i)
	}
	if writes > 40 {
		t.Fatalf("%d writes for 5000 commits", writes)
	}
	last := e.State().LastSeq
	disk.SetHook(func(o simfs.Op) error {
		t.Errorf("reading the newest messages made a %v", o)
		return nil
	})
	for seq := last; seq > last-3000; seq-- {
		if _, err := e.Load(seq); err != nil {
			t.Fatal(err)
		}
	}
	disk.SetHook(nil)
}

// TestFullDiskDoesNotFillFurther tries checkpoints again and again on a full disk: no files gather.
func TestFullDiskDoesNotFillFurther(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	e := open(t, disk, filelog.WithIndexDeltaBytes(100))
	defer e.Close()
	for i := range 2000 {
		put(t, e, i)
	}
	work(t, e)
	disk.SetCapacity(diskBytes(t, disk, "") + 64<<10)
	failed := 0
	for i := range 300 {
		for j := range 10 {
			put(t, e, i*10+j)
		}
		if e.Checkpoint() != nil {
			failed++
		}
	}
	names, err := disk.List("store/e")
	if err != nil {
		t.Fatal(err)
	}
	if failed < 100 || len(names) > 6 {
		t.Fatalf("%d checkpoints failed, and there are %q", failed, names)
	}
	disk.SetCapacity(0)
	work(t, e)
	if err := e.Verify(); err != nil {
		t.Fatal(err)
	}
}
