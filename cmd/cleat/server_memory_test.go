package main

import (
	"testing"
	"testing/fstest"
)

func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 50 << 20: 100, 192 << 20: 100, 384 << 20: 50, 600 << 20: 32, 8 << 30: 20} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MiB alive: %d %% of garbage, want %d", live>>20, got, want)
		}
	}
}

func TestMemoryBytes(t *testing.T) {
	const meminfo = "MemTotal:       24657684 kB\nMemFree:        23110256 kB\n"
	for _, tt := range []struct {
		group string
		want  int64
	}{{"max\n", 24657684 << 10}, {"1073741824\n", 1 << 30}, {"", 24657684 << 10}, {"99999999999999\n", 24657684 << 10}} {
		root := fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}, "sys/fs/cgroup/memory.max": {Data: []byte(tt.group)}}
		if got := memoryBytes(root); got != tt.want {
			t.Errorf("%q: %d, want %d", tt.group, got, tt.want)
		}
	}
	if got := memoryBytes(fstest.MapFS{}); got != 0 {
		t.Errorf("nothing known: %d", got)
	}
}
