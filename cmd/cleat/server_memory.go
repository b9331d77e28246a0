package main

import (
	"io/fs"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// The garbage collector runs when the heap has grown by a percentage of what is alive. Of a small heap
// that is little memory and spares work; with millions of keys it would be as much again as all
// indexes together. So garbage may be as much as what is alive up to garbageFree, then less.
const (
	garbageFree       = 192 << 20
	garbagePercentMin = 20
	garbageLookEvery  = 2 * time.Second
)

// garbagePercent is how much garbage may gather for so much that is alive.
func garbagePercent(live uint64) int {
	return int(min(100, max(garbagePercentMin, garbageFree*100/max(live, 1))))
}

// boundMemory lets the garbage collector follow the size of the heap, unless GOGC is set.
func (n *node) boundMemory() error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		boundGarbage(stop)
	}()
	n.onStop(func() error {
		close(stop)
		<-done
		return nil
	})
	return nil
}

// memoryBytes is the memory that this process may use: that of the machine, or of its control group
// if that is less; 0 if it is not known.
func memoryBytes(root fs.FS) (bytes int64) {
	if b, err := fs.ReadFile(root, "proc/meminfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "MemTotal:"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				kib, _ := strconv.ParseInt(f[0], 10, 64)
				bytes = kib << 10
			}
		}
	}
	if b, err := fs.ReadFile(root, "sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n < bytes {
			bytes = n
		}
	}
	return bytes
}

func boundGarbage(stop <-chan struct{}) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(garbageLookEvery)
	defer ticker.Stop()
	for current := 100; ; {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		metrics.Read(live)
		// A change stops the world for a moment, and sets off a collection that is due by it.
		if percent := garbagePercent(live[0].Value.Uint64()); percent < current-5 || percent > current+5 {
			debug.SetGCPercent(percent)
			current = percent
		}
	}
}
