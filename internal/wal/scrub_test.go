package wal

import (
	"errors"
	"maps"
	"testing"

	"github.com/cleatkv/cleat/sim/simfs"
)

// Scrubbing finds what a flipped bit anywhere in the log harms: the groups of which reading every entry says
// the same, no other, and with the file. Where it harms nobody it is reported all the same, unless it lies where
// nothing was ever written, at the head.
func TestScrubFindsDamage(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	names, err := w.fs.List("data/wal")
	if err != nil {
		t.Fatal(err)
	}
	harmed, found := 0, 0
	for _, name := range names {
		if name == "LOCK" {
			continue
		}
		info, err := w.fs.Stat("data/wal/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(11); at < info.Size(); at += 257 {
			fs := w.fs.CrashClone(simfs.Everything, 1)
			l := testLog(t, fs, func(o *Options) { o.SegmentBytes, o.CacheBytes = 16<<10, 1 })
			clean := scrubAll(t, l, 4<<10)
			if len(clean.Findings)+len(clean.Damage) > 0 || clean.Read < 20<<10 {
				t.Fatalf("%d bytes of a log without damage: %v %v", clean.Read, clean.Findings, clean.Damage)
			}
			if err := fs.FlipBit("data/wal/"+name, at, uint(at)); err != nil {
				t.Fatal(err)
			}
			out := scrubAll(t, l, 4<<10)
			want := unreadable(l)
			if got := harmedBy(out); !maps.Equal(got, want) {
				t.Fatalf("%s at %d: scrubbing finds harm to %v, reading to %v", name, at, got, want)
			}
			for _, d := range out.Damage {
				if d.File != name || d.Offset != at/sectorSize*sectorSize || len(d.Lost) != 1 {
					t.Fatalf("%s at %d: %v", name, at, d)
				}
			}
			harmed += len(out.Damage)
			switch n := len(out.Damage) + len(out.Findings); {
			case n > 0:
				found++
			case name < segmentName(l.w.active.number):
				t.Fatalf("%s at %d: nothing is found", name, at)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d flips found, %d runs of log entries harmed", found, harmed)
	if harmed < 30 || found < harmed {
		t.Errorf("%d flips found, %d runs of log entries harmed", found, harmed)
	}
}

func scrubAll(t *testing.T, l *Log, limit int64) (all Scrubbed) {
	t.Helper()
	for range 10_000 {
		out := l.Scrub(limit)
		all.Read += out.Read
		all.Findings = append(all.Findings, out.Findings...)
		all.Damage = append(all.Damage, out.Damage...)
		if l.Err() != nil {
			t.Fatal(l.Err())
		}
		if out.Done {
			return all
		}
		if out.Read > limit+16<<10 {
			t.Fatalf("%d bytes in one piece", out.Read)
		}
	}
	t.Fatal("scrubbing does not end")
	return all
}

func harmedBy(out Scrubbed) map[GroupID]bool {
	harmed := make(map[GroupID]bool)
	for _, d := range out.Damage {
		harmed[d.Group] = true
	}
	return harmed
}

// unreadable reads all entries of all groups from the disk.
func unreadable(l *Log) map[GroupID]bool {
	harmed := make(map[GroupID]bool)
	for _, g := range l.Groups() {
		s, _ := l.State(g)
		for i := s.First; i <= s.Last; i++ {
			var d *DamageError
			if _, err := l.Entries(nil, g, i, i+1, 1); errors.As(err, &d) {
				harmed[g] = true
			}
		}
	}
	return harmed
}

// Scrubbing goes on beside writing, and takes nothing that is being written for damage.
func TestScrubBesideWrites(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	l := testLog(t, fs, func(o *Options) { o.SegmentBytes, o.CacheBytes, o.Stepped = 16<<10, 1, false })
	acked := make(chan error)
	passes := 0
	for _, us := range mixedUpdates() {
		l.Submit(us, func(err error) { acked <- err })
		for done := false; !done; {
			select {
			case err := <-acked:
				if err != nil {
					t.Fatal(err)
				}
				done = true
			default:
				out := l.Scrub(2 << 10)
				if len(out.Findings)+len(out.Damage) > 0 {
					t.Fatalf("%v %v", out.Findings, out.Damage)
				}
				if out.Done {
					passes++
				}
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if passes == 0 {
		t.Error("no pass came to its end")
	}
}
