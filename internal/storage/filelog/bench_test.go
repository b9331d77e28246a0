package filelog_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/storage/storagetest"
)

var real = storagetest.Kind{Open: func(fs vfs.FS, dir string) (storage.Store, error) {
	return filelog.OpenStore(fs, dir)
}}

func BenchmarkEngine(b *testing.B)       { storagetest.Benchmark(b, real) }
func BenchmarkDigest1M(b *testing.B)     { storagetest.Digest(b, real) }
func BenchmarkFootprint1M(b *testing.B)  { storagetest.Footprint(b, real, 1_000_000) }
func BenchmarkFootprint10M(b *testing.B) { storagetest.Footprint(b, real, 10_000_000) }
