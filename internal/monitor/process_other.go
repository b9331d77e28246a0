//go:build !linux

package monitor

import (
	"runtime/metrics"
	"time"
)

// resources returns what the Go runtime knows: the processor time it accounts for, and the memory it
// has from the operating system.
func resources() (used time.Duration, mem int64) {
	s := []metrics.Sample{
		{Name: "/cpu/classes/total:cpu-seconds"}, {Name: "/cpu/classes/idle:cpu-seconds"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s)
	busy := s[0].Value.Float64() - s[1].Value.Float64()
	return time.Duration(busy * float64(time.Second)), int64(s[2].Value.Uint64() - s[3].Value.Uint64())
}
