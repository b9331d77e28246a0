package cluster

import (
	"slices"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/wal"
)

// A pass reads everything once, in order, never faster than the rate, and the next one begins a day later.
func TestScrubberPace(t *testing.T) {
	streams := make([]*Stream, 3)
	size := map[*Stream]int64{}
	for i := range streams {
		streams[i] = &Stream{group: &group{id: wal.GroupID(103 - i)}}
		size[streams[i]] = int64(i+1) * 20 << 20
	}
	var b scrubber
	var order []wal.GroupID
	read := map[*Stream]int64{}
	begun := time.Unix(1000, 0)
	passes, total := 0, int64(0)
	var ended time.Duration
	for at := time.Duration(0); at < 50*time.Hour; at += 500 * time.Millisecond {
		now := begun.Add(at)
		before := total
		b.step(now, func() []*Stream {
			if passes++; passes > 1 && at < 24*time.Hour {
				t.Fatalf("pass %d begins after %v", passes, at)
			}
			return slices.Clone(streams)
		}, func(s *Stream, limit int64) (int64, bool) {
			n := min(limit, size[s]-read[s])
			if n == limit && read[s] == 0 {
				n *= 5 // A piece that is larger than asked for.
			}
			read[s] += n
			total += n
			if read[s] < size[s] {
				return n, false
			}
			order, read[s] = append(order, s.id), 0
			return n, true
		})
		if total-before > scrubCreditMax+5*scrubStep {
			t.Fatalf("%d bytes in one step", total-before)
		}
		if passes == 1 && total == 120<<20 && ended == 0 {
			ended = at
		}
	}
	if passes != 3 || !slices.Equal(order[:3], []wal.GroupID{101, 102, 103}) || len(order) != 9 {
		t.Errorf("%d passes: %v", passes, order)
	}
	if took := ended - scrubDelay; took < 58*time.Second || took > 65*time.Second {
		t.Errorf("120 MiB took %v", took)
	}
}
