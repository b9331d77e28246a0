package cluster

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

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
