package memory_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/memory"
	"github.com/cleatkv/cleat/internal/storage/storagetest"
)

var kind = storagetest.Kind{
	Open:     func(vfs.FS, string) (storage.Store, error) { return memory.NewStore(), nil },
	Volatile: true,
}

func TestEngineConformance(t *testing.T) { storagetest.Conformance(t, kind) }
func TestEngineMetamorphic(t *testing.T) { storagetest.Metamorphic(t, kind, 6, 400) }
func TestEngineConcurrent(t *testing.T)  { storagetest.Concurrent(t, kind, 3000) }

func FuzzEngineOps(f *testing.F) { storagetest.FuzzOps(f, kind) }
