package filelog_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/sim/simfs"
)

// historyOne is that of a stream whose "config" says nothing but that it keeps one message of each subject.
var historyOne = filelog.History{Aux: "config", Decode: func(value []byte) (int, error) {
	if string(value) != "one" {
		return 0, fmt.Errorf("config %q", value)
	}
	return 1, nil
}}

// An index file that is damaged anywhere but in the stream's configuration is made anew out of the messages, and
// is the same one. Keys were overwritten at random, blocks compacted, the file has a base and changes.
func TestRebuildIndex(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	writeForRebuild(t, disk, 1<<20, func(storage.Tx) error { return nil })
	index := indexFile(t, disk)
	info, err := disk.Stat(index)
	if err != nil {
		t.Fatal(err)
	}
	want := wholeState(t, disk.CrashClone(simfs.Everything, 1), "store")
	rebuilt := 0
	for at := int64(0); at < info.Size(); at += 1 + info.Size()/60 {
		bad := disk.CrashClone(simfs.Everything, 1)
		if err := bad.FlipBit(index, at, uint(at)); err != nil {
			t.Fatal(err)
		}
		i, err := filelog.Inspect(bad, "store", "e", historyOne)
		if err != nil || len(i.Damage) != 1 || i.Damage[0].Path != index {
			t.Fatalf("at %d: %+v, %v", at, i, err)
		}
		if i.Rebuilt == nil {
			continue // The frame with the configuration.
		}
		rebuilt++
		if !i.Rebuilt.Exact {
			t.Fatalf("at %d: the index that was made is another one: %+v, %+v", at, i.Rebuilt, i.State)
		}
		if _, err := filelog.Salvage(bad, "store", "e", "saved", historyOne); err != nil {
			t.Fatal(err)
		}
		if got := wholeState(t, bad, "saved"); got != want {
			t.Fatalf("at %d: saved %d bytes of state, want %d", at, len(got), len(want))
		}
	}
	if rebuilt < 50 {
		t.Errorf("only %d of 61 indexes were rebuilt", rebuilt)
	}
}

// Messages that were removed, and of which the damaged part of the index alone said so, are told to be there again.
func TestRebuildIndexInDoubt(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	writeForRebuild(t, disk, 1, func(tx storage.Tx) error {
		for seq := tx.State().LastSeq - 20; seq <= tx.State().LastSeq; seq++ {
			if _, err := tx.Remove(seq); err != nil {
				return err
			}
		}
		return nil
	})
	if err := disk.FlipBit(indexFile(t, disk), 100, 1); err != nil { // The base's first frame.
		t.Fatal(err)
	}
	i, err := filelog.Inspect(disk, "store", "e", historyOne)
	if err != nil || i.Rebuilt == nil || i.Rebuilt.Exact || i.State.Msgs <= i.Rebuilt.Want {
		t.Fatalf("%+v, %v", i, err)
	}
}

// writeForRebuild makes an engine of many keys; last is done before the index is written for the last time. The
// index is written anew when its changes come to deltaBytes.
func writeForRebuild(t *testing.T, disk *simfs.FS, deltaBytes int64, last func(tx storage.Tx) error) {
	t.Helper()
	e := open(t, disk, filelog.WithBlockBytes(16<<10, 16<<10), filelog.WithIndexDeltaBytes(deltaBytes))
	change := func(fn func(tx storage.Tx) error) {
		t.Helper()
		tx := e.Begin()
		if err := fn(tx); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(storage.Applied{Index: e.Applied().Index + 1, Term: 3, Conf: []byte("conf")}); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 3000 {
		put(t, e, rng.IntN(900))
		if i == 2000 {
			if err := e.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		if i%500 == 499 {
			work(t, e)
		}
	}
	change(last)
	change(func(tx storage.Tx) error {
		tx.SetAux("config", []byte("one"))
		tx.SetAux("other", []byte("two"))
		return nil
	})
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func indexFile(t *testing.T, disk *simfs.FS) string {
	t.Helper()
	names, err := disk.List("store/e")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "index-") {
			return "store/e/" + n
		}
	}
	t.Fatal("there is no index file")
	return ""
}

// wholeState is all that an engine says, but for where it keeps it.
func wholeState(t *testing.T, disk *simfs.FS, root string) string {
	t.Helper()
	store, err := filelog.OpenStore(disk, root)
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.Open("e", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%+v %+v\n", e.State(), e.Applied())
	e.Subjects(nil, "", func(subject string, s storage.SubjectState) bool {
		m, err := e.Load(s.Last)
		fmt.Fprintf(&b, "%s %+v %+v %v\n", subject, s, m, err)
		return true
	})
	e.AuxRange("", func(key string, value []byte) bool {
		fmt.Fprintf(&b, "%s %s\n", key, value)
		return true
	})
	return b.String()
}
