package main

import (
	"fmt"
	"slices"
	"time"
)

// sample is when something was due, and how long after that it was done.
type sample struct {
	due  time.Time
	took time.Duration
}

type samples []sample

// times says what they took, in milliseconds: half of them, 99 of 100, 999 of 1000, and all.
func (l samples) times() string {
	if len(l) == 0 {
		return "-"
	}
	took := make([]time.Duration, len(l))
	for i := range l {
		took[i] = l[i].took
	}
	slices.Sort(took)
	at := func(permille int) float64 { return 1e3 * took[(len(took)-1)*permille/1000].Seconds() }
	return fmt.Sprintf("%.1f / %.1f / %.1f / %.1f", at(500), at(990), at(999), at(1000))
}

// slow is how long a probe takes that is held up.
const slow = 3 * time.Millisecond

// beyond returns the samples less the time during which a probe was held up: what is left, somebody else
// answers for.
func (l samples) beyond(probes ...samples) samples {
	held := slices.DeleteFunc(slices.Concat(probes...), func(p sample) bool { return p.took < slow })
	slices.SortFunc(held, func(a, b sample) int { return a.due.Compare(b.due) })
	rest := slices.Clone(l)
	for i := range rest {
		s := &rest[i]
		end := s.due.Add(s.took)
		// Probes come at fixed times, so what is held up at once lies close together.
		from, _ := slices.BinarySearchFunc(held, s.due.Add(-longest), func(p sample, t time.Time) int { return p.due.Compare(t) })
		covered := s.due
		for _, p := range held[from:] {
			if !p.due.Before(end) {
				break
			}
			begin, until := later(p.due, covered), earlier(p.due.Add(p.took), end)
			if until.After(begin) {
				s.took -= until.Sub(begin)
				covered = until
			}
		}
	}
	return rest
}

// longest is longer than a probe is ever held up.
const longest = 5 * time.Second

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
