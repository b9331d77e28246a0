package filelog_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
)

// The blocks take at most twice what is live and one block, whatever is overwritten or removed, once
// compaction has nothing more to do and a checkpoint has passed.
func TestEngineSpaceBounded(t *testing.T) {
	const keys, blockBytes = 3000, 64 << 10
	loads := map[string]func(rng *rand.Rand, i int) int{
		"each in turn": func(_ *rand.Rand, i int) int { return i % keys },
		"any":          func(rng *rand.Rand, _ int) int { return rng.IntN(keys) },
		"mostly a few": func(rng *rand.Rand, _ int) int {
			return int(float64(keys) * rng.Float64() * rng.Float64() * rng.Float64())
		},
		"only ten": func(rng *rand.Rand, i int) int { return min(i, rng.IntN(10)+max(0, keys-i)) },
	}
	for name, load := range loads {
		t.Run(name, func(t *testing.T) {
			fs, rng := vfs.NewMem(), rand.New(rand.NewPCG(4, 4))
			e := open(t, fs, filelog.WithBlockBytes(blockBytes, blockBytes), filelog.WithCompactBytes(32<<10))
			defer e.Close()
			most := 0.0
			for i := range 12 * keys {
				put(t, e, load(rng, i))
				if i%1000 == 999 {
					most = max(most, rested(t, fs, e, blockBytes))
				}
			}
			removeMost(t, e, rng)
			most = max(most, rested(t, fs, e, blockBytes))
			t.Logf("at most %.2f of what is live, less one block", most)
		})
	}
}

// rested checkpoints, compacts and checkpoints, and checks the bound. It returns how often what is live
// fits into the blocks, of which one does not count.
func rested(t *testing.T, fs vfs.FS, e storage.Engine, blockBytes int64) float64 {
	t.Helper()
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for more := true; more; steps++ {
		var err error
		if more, err = e.Compact(); err != nil {
			t.Fatal(err)
		}
		if steps > 10_000 {
			t.Fatal("compaction does not end")
		}
	}
	promised := e.Reclaimable()
	before := blockFiles(t, fs)
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	taken, live := blockFiles(t, fs), int64(e.State().Bytes)
	if back := before - taken; promised > 0 && (back > promised || back < promised/2) {
		t.Errorf("the checkpoint gave back %d bytes, where %d were promised", back, promised)
	}
	// What is moved after the checkpoint is not durable before the next one: that block is let be.
	if taken > 2*live+live/20+blockBytes {
		t.Errorf("%d bytes of blocks for %d live", taken, live)
	}
	return float64(taken-blockBytes) / float64(live)
}

func blockFiles(t *testing.T, fs vfs.FS) (bytes int64) {
	t.Helper()
	names, err := fs.List("store/e")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if info, err := fs.Stat("store/e/" + n); err == nil && strings.HasPrefix(n, "block-") {
			bytes += info.Size()
		}
	}
	return bytes
}

// removeMost removes nine of ten keys.
func removeMost(t *testing.T, e storage.Engine, rng *rand.Rand) {
	t.Helper()
	tx := e.Begin()
	for key := range 3000 {
		if st, ok := tx.Subject(fmt.Sprintf("$KV.b.%06d", key)); ok && rng.IntN(10) > 0 {
			if _, err := tx.Remove(st.Last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tx.Commit(storage.Applied{Index: e.Applied().Index + 1}); err != nil {
		t.Fatal(err)
	}
}
