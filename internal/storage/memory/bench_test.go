package memory_test

import (
	"testing"

	"github.com/cleatkv/cleat/internal/storage/storagetest"
)

func BenchmarkEngine(b *testing.B)       { storagetest.Benchmark(b, kind) }
func BenchmarkFootprint1M(b *testing.B)  { storagetest.Footprint(b, kind, 1_000_000) }
func BenchmarkFootprint10M(b *testing.B) { storagetest.Footprint(b, kind, 10_000_000) }
