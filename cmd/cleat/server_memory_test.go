package main

import "testing"

func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 50 << 20: 100, 192 << 20: 100, 384 << 20: 50, 600 << 20: 32, 8 << 30: 20} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MiB alive: %d %% of garbage, want %d", live>>20, got, want)
		}
	}
}
