package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
)

// A pass reads everything once, in order, never faster than the rate, and the next one begins a day later.
func TestScrubberPace(t *testing.T) {
	const kinds = 3
	var b scrubber
	var order []int
	var read [kinds]int64
	begun := time.Unix(1000, 0)
	passes, total := 0, int64(0)
	var ended time.Duration
	for at := time.Duration(0); at < 50*time.Hour; at += 500 * time.Millisecond {
		now := begun.Add(at)
		before := total
		b.step(now, func() (all []scrub) {
			if passes++; passes > 1 && at < 24*time.Hour {
				t.Fatalf("pass %d begins after %v", passes, at)
			}
			for i := range kinds {
				size := int64(i+1) * 20 << 20
				all = append(all, func(limit int64) (int64, bool) {
					n := min(limit, size-read[i])
					if n == limit && read[i] == 0 {
						n *= 5 // A piece that is larger than asked for.
					}
					read[i] += n
					total += n
					if read[i] < size {
						return n, false
					}
					order, read[i] = append(order, i), 0
					return n, true
				})
			}
			return all
		})
		if total-before > scrubCreditMax+5*scrubStep {
			t.Fatalf("%d bytes in one step", total-before)
		}
		if passes == 1 && total == 120<<20 && ended == 0 {
			ended = at
		}
	}
	if passes != 3 || !slices.Equal(order[:3], []int{0, 1, 2}) || len(order) != 9 {
		t.Errorf("%d passes: %v", passes, order)
	}
	if took := ended - scrubDelay; took < 58*time.Second || took > 65*time.Second {
		t.Errorf("120 MiB took %v", took)
	}
}

// Log entries that scrubbing can not read any more, and that the stream has applied, are given up: the stream goes on, also
// after a restart, which would have met them. Where they are not applied the stream stops.
func TestScrubLog(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	c := start(t, Options{FS: disk, Name: "S1"})
	s := create(t, c, bucket("b", 1, api.FileStorage))
	for i := range 40 {
		if r, err := put(t, s, fmt.Sprintf("$KV.b.k%d", i), "v"); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	var file string
	var at int64
	err := wal.Walk(disk, "data/wal", func(p wal.Part) error {
		for _, r := range p.Rows {
			if r.Group == s.id && r.Count > 0 && r.First == 20 {
				file, at = "data/wal/"+p.File, p.Offset+int64(p.Sectors)*512/2
			}
		}
		return nil
	})
	if err != nil || file == "" {
		t.Fatalf("the batch with log entry 20 is not found: %v", err)
	}
	if err := disk.FlipBit(file, at, 3); err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		_, done = c.scrubLog(4 << 10)
	}
	eventually(t, "a log that begins behind the damage", func() bool {
		st, _ := c.log.State(s.id)
		return st.First > 20 && st.Damage == nil
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start(t, Options{FS: disk, Name: "S1"})
	s = waitStream(t, c, "KV_b")
	for i := range 40 {
		if v, err := get(t, s, fmt.Sprintf("$KV.b.k%d", i)); err != nil || v != "v" {
			t.Fatal(v, err)
		}
	}
	c.logDamaged(&wal.DamageError{Group: s.id, File: "f", Lost: []wal.LostRange{{First: 30, Last: 1 << 40}}})
	eventually(t, "a stream that is stopped", func() bool { return s.rep.Load().Status().Stopped != nil })
}
