package filelog_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/storage/storagetest"
)

// Small blocks and few deltas, so that blocks get full, are compacted and dropped, and the index is
// saved anew, within the reach of a test.
var (
	plain = storagetest.Kind{Open: func(fs vfs.FS, dir string) (storage.Store, error) {
		return filelog.OpenStore(fs, dir, filelog.WithBlockBytes(2<<10, 8<<10), filelog.WithIndexDeltaBytes(512),
			filelog.WithCompactBytes(1<<10))
	}}
	compressed = storagetest.Kind{Open: plain.Open, Options: storage.Options{Compress: true}}
)

func TestEngineConformance(t *testing.T)           { storagetest.Conformance(t, plain) }
func TestEngineConformanceCompressed(t *testing.T) { storagetest.Conformance(t, compressed) }
func TestEngineMetamorphic(t *testing.T)           { storagetest.Metamorphic(t, plain, 6, 400) }
func TestEngineMetamorphicCompressed(t *testing.T) { storagetest.Metamorphic(t, compressed, 3, 400) }
func TestEngineCrashPrefix(t *testing.T)           { storagetest.CrashPrefix(t, plain, 6, 100) }
func TestEngineErrorEveryOp(t *testing.T)          { storagetest.ErrorEveryOp(t, plain, 60) }
func TestEngineCorruptBlockReported(t *testing.T)  { storagetest.CorruptBlockReported(t, plain) }
func TestEngineConcurrent(t *testing.T)            { storagetest.Concurrent(t, compressed, 3000) }
func TestEngineNoSpace(t *testing.T)               { storagetest.NoSpace(t, plain) }
func TestEngineEraseOverwrites(t *testing.T)       { storagetest.EraseOverwrites(t, plain) }
func TestEngineDropAtomic(t *testing.T)            { storagetest.DropAtomic(t, plain) }
func TestEngineScrubFindsDamage(t *testing.T)      { storagetest.ScrubFindsDamage(t, plain) }
func TestEngineSnapshotIngestAtomic(t *testing.T)  { storagetest.SnapshotIngestAtomic(t, plain) }

func TestEngineDurableAppliedNeverAhead(t *testing.T) {
	storagetest.DurableAppliedNeverAhead(t, plain, 80)
}

func FuzzEngineOps(f *testing.F) { storagetest.FuzzOps(f, plain) }
