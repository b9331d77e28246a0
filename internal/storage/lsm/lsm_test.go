package lsm_test

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/lsm"
	"github.com/cleatkv/cleat/internal/storage/storagetest"
	"github.com/cleatkv/cleat/sim/simfs"
)

var kind = storagetest.Kind{Open: func(fs vfs.FS, dir string) (storage.Store, error) {
	return lsm.OpenStore(fs, dir, lsm.WithMemTable(64<<10), lsm.WithCache(1<<20), lsm.WithReport(func(string) {}))
}}

func TestEngineConformance(t *testing.T) { storagetest.Conformance(t, kind) }
func TestEngineMetamorphic(t *testing.T) { storagetest.Metamorphic(t, kind, 3, 300) }
func TestEngineCrashPrefix(t *testing.T) { storagetest.CrashPrefix(t, kind, 3, 40) }

func TestEngineCorruptBlockReported(t *testing.T) {
	k := kind
	k.Damage = func(path string) storagetest.Damage {
		switch name := path[strings.LastIndexByte(path, '/')+1:]; {
		case strings.HasSuffix(name, ".sst"):
			return storagetest.Damage{Every: 60}
		case strings.HasPrefix(name, "MANIFEST"), strings.HasPrefix(name, "marker.manifest"):
			return storagetest.Damage{Every: 4, Unnoticed: true}
		case name == "FLOOR":
			return storagetest.Damage{Every: 1}
		}
		return storagetest.Damage{}
	}
	storagetest.CorruptBlockReported(t, k)
}

func TestEngineErrorEveryOp(t *testing.T) {
	k := kind
	k.Fails = func(op simfs.Op) bool {
		return strings.HasSuffix(op.Path, ".sst") || strings.Contains(op.Path, "FLOOR")
	}
	storagetest.ErrorEveryOp(t, k, 60)
}

func TestEngineConcurrent(t *testing.T)           { storagetest.Concurrent(t, kind, 1000) }
func TestEngineEraseOverwrites(t *testing.T)      { storagetest.EraseOverwrites(t, kind) }
func TestEngineDropAtomic(t *testing.T)           { storagetest.DropAtomic(t, kind) }
func TestEngineScrubFindsDamage(t *testing.T)     { storagetest.ScrubFindsDamage(t, kind) }
func TestEngineSnapshotIngestAtomic(t *testing.T) { storagetest.SnapshotIngestAtomic(t, kind) }

func TestEngineDurableAppliedNeverAhead(t *testing.T) {
	storagetest.DurableAppliedNeverAhead(t, kind, 80)
}

func FuzzEngineOps(f *testing.F) { storagetest.FuzzOps(f, kind) }
