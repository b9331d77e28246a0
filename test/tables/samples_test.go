package main

import (
	"slices"
	"testing"
	"time"
)

func TestBeyondProbes(t *testing.T) {
	begin := time.Unix(1000, 0)
	list := func(ms ...int) (l samples) {
		for i := 0; i < len(ms); i += 2 {
			l = append(l, sample{begin.Add(time.Duration(ms[i]) * time.Millisecond), time.Duration(ms[i+1]) * time.Millisecond})
		}
		return l
	}
	ops := list(0, 10, 100, 50, 200, 30, 400, 5)
	rest := ops.beyond(list(105, 20, 190, 15, 500, 9), list(110, 25, 210, 2))
	// The second is held up from 105 to 135, the third from 200 to 205; a probe that took 2 ms says nothing.
	if want := list(0, 10, 100, 20, 200, 25, 400, 5); !slices.Equal(rest, want) {
		t.Errorf("%v, want %v", rest, want)
	}
	if got := list(0, 1, 1, 2, 2, 3, 3, 40).times(); got != "2.0 / 3.0 / 3.0 / 40.0" {
		t.Error(got)
	}
}
