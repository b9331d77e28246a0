package cluster

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/stream"
)

// However fast keys are overwritten, maintenance keeps the space bounded: twice what is live and a block,
// besides what was written since the last round and waits for a checkpoint.
func TestMaintenanceBoundsSpace(t *testing.T) {
	const keys, valueBytes, perRound = 24 << 10, 1 << 10, 24 << 10
	c := start(t, Options{Name: "S1"})
	fs, rng := vfs.NewMem(), rand.New(rand.NewPCG(1, 2))
	store, err := filelog.OpenStore(fs, "data")
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.Open("e", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Open(e, replica.Entry{})
	if err != nil {
		t.Fatal(err)
	}
	s := &Stream{group: &group{c: c}, key: meta.Key{Account: "A", Name: "S"}}
	s.local.Store(&local{engine: e, machine: m})
	value, since, now := make([]byte, valueBytes), make(map[storage.Engine]time.Time), time.Unix(0, 0)
	live := int64(keys * (valueBytes + 40))
	const block, waiting = 4 << 20, 2*checkpointBytes + perRound*(valueBytes+40)
	most := int64(0)
	for range 16 {
		for range perRound / 256 {
			tx := e.Begin()
			for range 256 {
				overwrite(t, tx, fmt.Sprintf("k.%d", rng.IntN(keys)), value)
			}
			if err := tx.Commit(storage.Applied{Index: e.Applied().Index + 1}); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(maintainEvery)
		c.maintain(s, since, now)
		most = max(most, blockBytes(t, fs, "data/e"))
	}
	// When it says that nothing is left to do that is so: nobody looks until something is done again.
	rounds := 0
	for c.maintain(s, since, now) {
		now = now.Add(maintainEvery)
		if rounds++; rounds > 1000 {
			t.Fatal("it never ends")
		}
	}
	if more, err := e.Compact(); more || err != nil || e.Dirty() > 0 || e.Reclaimable() > 0 {
		t.Errorf("after %d rounds %d bytes wait, %d can be given back, and there is more to compact: %v, %v", rounds, e.Dirty(), e.Reclaimable(), more, err)
	}
	t.Logf("at most %d MiB of blocks, %d MiB live", most>>20, live>>20)
	if most > 2*live+block+waiting {
		t.Errorf("%d MiB of blocks, %d MiB live", most>>20, live>>20)
	}
	if err := s.closeEngine(s.local.Load()); err != nil {
		t.Error(err)
	}
}

func overwrite(t *testing.T, tx storage.Tx, subject string, value []byte) {
	t.Helper()
	if st, ok := tx.Subject(subject); ok {
		if _, err := tx.Remove(st.Last); err != nil {
			t.Fatal(err)
		}
	}
	seq := tx.State().LastSeq + 1
	if err := tx.Append(storage.Message{Seq: seq, Time: int64(seq), Subject: subject, Data: value}); err != nil {
		t.Fatal(err)
	}
}

func blockBytes(t *testing.T, fs vfs.FS, dir string) (n int64) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := fs.Stat(fs.PathJoin(dir, name)); err == nil && strings.HasPrefix(name, "block-") {
			n += info.Size()
		}
	}
	return n
}

// Streams are looked at for what has expired as long as something in them expires some time, also when that was
// so once before, and after a restart.
func TestStreamsWithDeadlinesAreTimed(t *testing.T) {
	fs := vfs.NewMem()
	c := start(t, Options{FS: fs, Name: "S1"})
	limited := bucket("b", 1, api.FileStorage)
	limited.MaxAge = 300 * time.Millisecond
	create(t, c, limited)
	create(t, c, bucket("other", 1, api.FileStorage))
	s, other := waitStream(t, c, "KV_b"), waitStream(t, c, "KV_other")
	expires := func(key string) {
		t.Helper()
		eventually(t, key+" is gone, and nothing is looked at", func() bool {
			_, err := get(t, s, key)
			return err != nil && len(c.timed.list()) == 0
		})
	}
	for _, key := range []string{"$KV.b.one", "$KV.b.two"} {
		if _, err := put(t, s, key, "v"); err != nil {
			t.Fatal(err)
		}
		if _, err := put(t, other, "$KV.other.k", "v"); err != nil {
			t.Fatal(err)
		}
		if all := c.timed.list(); len(all) > 1 || len(all) == 1 && all[0] != s {
			t.Errorf("%d streams are looked at", len(all))
		}
		expires(key)
	}
	if _, err := put(t, s, "$KV.b.three", "v"); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start(t, Options{FS: fs, Name: "S1"})
	s = waitStream(t, c, "KV_b")
	expires("$KV.b.three")
}
