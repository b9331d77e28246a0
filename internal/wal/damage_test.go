package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/sim/simfs"
)

// written is a closed log on disk and what it holds.
type written struct {
	fs      *simfs.FS
	o       Options
	ref     *reference
	batches []batchAt
}

// batchAt is where a batch is and which groups are in it.
type batchAt struct {
	place
	sectors uint32
	head    batchHeader
	rows    []row
}

func damageOptions(fs *simfs.FS) Options {
	return testOptions(fs, func(o *Options) { o.SegmentBytes = 16 << 10 })
}

// writeLog runs the updates, one batch each, and closes the log.
func writeLog(t testing.TB, updates ...[]Update) *written {
	t.Helper()
	fs := simfs.New(1, simfs.Strict)
	return writeLogWith(t, damageOptions(fs), fs, updates...)
}

func writeLogWith(t testing.TB, o Options, fs *simfs.FS, updates ...[]Update) *written {
	t.Helper()
	w := &written{fs: fs, o: o, ref: newReference()}
	w.fs.KeepHistory()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, us := range updates {
		w.ref.submit(t, l, us...)
		for l.Step() {
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w.scan(t)
	return w
}

// scan lists the batches on disk.
func (w *written) scan(t testing.TB) {
	t.Helper()
	w.batches = nil
	l, err := Open(w.o)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); l.files.open[n] != nil; n++ {
		s := l.files.open[n]
		sc := &scanner{f: s.f, stamp: s.stamp, seg: n, end: s.end()}
		for at := uint32(1); at < sc.end; {
			it, err := sc.next(at)
			if err != nil {
				t.Fatal(err)
			}
			if it.kind == itemBatch {
				w.batches = append(w.batches, batchAt{it.at, it.sectors, it.head, it.rows})
			}
			at += it.sectors
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func path(segment uint64) string { return "data/wal/" + segmentName(segment) }

// spoiled opens a copy of the log after damage was done to it, and checks that nothing it says is wrong:
// a group without damage holds everything, and a group with damage returns right entries or an error.
func (w *written) spoiled(t testing.TB, damage func(fs *simfs.FS) error) *Log {
	t.Helper()
	fs := w.fs.CrashClone(simfs.Everything, 1)
	if err := damage(fs); err != nil {
		t.Fatal(err)
	}
	l, err := Open(damageOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	w.verify(t, l)
	return l
}

func (w *written) verify(t testing.TB, l *Log) (damaged []GroupID) {
	t.Helper()
	for g := range w.ref.history {
		want := w.ref.now(g)
		s, ok := l.State(g)
		if s.Damage == nil {
			if err := want.matches(l, g, w.ref.history[g]); err != nil {
				t.Fatalf("group %d, not reported as damaged: %v", g, err)
			}
			continue
		}
		damaged = append(damaged, g)
		if len(l.Findings()) == 0 {
			t.Fatalf("group %d is damaged but nothing was found", g)
		}
		if s.Damage.Group != g || s.Damage.File == "" || s.Damage.Reason == "" {
			t.Fatalf("damage does not say where: %+v", s.Damage)
		}
		if ok && !s.Damage.Unknown {
			w.verifyKnown(t, l, g, s)
		}
	}
	return damaged
}

// verifyKnown checks a group of which it is known what was lost: all the rest is right.
func (w *written) verifyKnown(t testing.TB, l *Log, g GroupID, s State) {
	t.Helper()
	want := w.ref.now(g)
	if s.Hard.Term != want.hard.Term || s.Hard.Vote != want.hard.Vote {
		t.Fatalf("group %d: hard state %+v, want %+v", g, s.Hard, want.hard)
	}
	if s.Last != want.start.Index+uint64(len(want.entries)) {
		t.Fatalf("group %d: last %d, want %d", g, s.Last, want.start.Index+uint64(len(want.entries)))
	}
	for _, e := range want.entries {
		if term, err := l.Term(g, e.Index); err != nil || term != e.Term {
			t.Fatalf("group %d entry %d: term %d, %v, want %d", g, e.Index, term, err, e.Term)
		}
		lost := false
		for _, r := range s.Damage.Lost {
			lost = lost || r.First <= e.Index && e.Index <= r.Last
		}
		got, err := l.Entries(nil, g, e.Index, e.Index+1, 1<<40)
		var d *DamageError
		switch {
		case lost && !errors.As(err, &d):
			t.Fatalf("group %d entry %d is lost, reading it gives %v", g, e.Index, err)
		case !lost && (err != nil || !bytes.Equal(got[0].Data, e.Data)):
			t.Fatalf("group %d entry %d: %v", g, e.Index, err)
		}
	}
	for _, r := range s.Damage.Lost {
		fold := uint64(0)
		for i := r.First; i <= r.Last; i++ {
			fold = FoldHash(fold, HashData(want.entries[i-want.start.Index-1].Data))
		}
		if r.Fold != 0 && r.Fold != fold {
			t.Fatalf("group %d: lost entries %d to %d have another identity", g, r.First, r.Last)
		}
	}
}

// mixedUpdates are batches of several groups over a few segments.
func mixedUpdates() (all [][]Update) {
	next := map[GroupID]uint64{}
	for i := range 60 {
		var us []Update
		for _, g := range []GroupID{1 + GroupID(i%3), 4} {
			if g == 4 && i%7 != 0 {
				continue
			}
			n := next[g] + 1
			next[g] += 2
			us = append(us, Update{Group: g, Entries: entries(g, n, n+2, 1+uint64(i/30), 250), Hard: &HardState{Term: 1 + uint64(i/30), Vote: uint64(g), Commit: n}})
		}
		all = append(all, us)
	}
	return all
}

// TestWALFlipEveryByte flips one bit of every byte of a small log, one at a time. It must be found, and
// what the log then says must not be wrong.
func TestWALFlipEveryByte(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	o := testOptions(fs, func(o *Options) { o.SegmentBytes = 8 << 10 })
	w := writeLogWith(t, o, fs, mixedUpdates()[:9]...)
	names, err := w.fs.List("data/wal")
	if err != nil {
		t.Fatal(err)
	}
	segments, harmless := 0, 0
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			segments++
		}
		info, err := w.fs.Stat("data/wal/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for at := range info.Size() {
			fs := w.fs.CrashClone(simfs.Everything, 1)
			if err := fs.FlipBit("data/wal/"+name, at, uint(at)); err != nil {
				t.Fatal(err)
			}
			o.FS = fs
			l, err := Open(o)
			if err != nil {
				t.Fatalf("%s byte %d: %v", name, at, err)
			}
			if len(l.Findings()) == 0 {
				t.Fatalf("%s byte %d: not detected", name, at)
			}
			if f := l.Findings()[0]; f.File != name {
				t.Fatalf("%s byte %d: blamed on %v", name, at, f)
			}
			if len(w.verify(t, l)) == 0 {
				harmless++
			}
			l.closeFiles()
		}
	}
	if segments < 2 || harmless == 0 {
		t.Fatalf("%d segments, %d harmless flips", segments, harmless)
	}
}

// TestWALTornTailEverySector leaves out sectors of the last batch in every way that a power cut can:
// all from one on, all up to one, each single one. The batch is cut; everything before stays.
func TestWALTornTailEverySector(t *testing.T) {
	us := mixedUpdates()
	w := writeLog(t, us...)
	before := w.ref.clone()
	l, err := Open(damageOptions(w.fs))
	if err != nil {
		t.Fatal(err)
	}
	// Not the first one in its segment: then the footer of the segment before would prove it.
	for i := uint64(19); l.w.next == 1 || !l.w.fits(l.w.active, l.w.next, 14); i++ {
		u := Update{Group: 4, Entries: entries(4, i, i+1, 9, 300)}
		put(t, l, u)
		now := before.now(4)
		now.entries = append(slices.Clone(now.entries), u.Entries...)
		before.history[4] = append(before.history[4], now)
	}
	w.ref.submit(t, l, Update{Group: 2, Entries: entries(2, 41, 47, 3, 900), Hard: &HardState{3, 1, 0}})
	for l.Step() {
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w.scan(t)
	last := w.batches[len(w.batches)-1]
	if last.sectors < 10 || last.sector == 1 {
		t.Fatalf("last batch has %d sectors at %d", last.sectors, last.sector)
	}
	w.ref = before
	n := last.sectors
	for i := range n {
		for what, missing := range map[string]func(s uint32) bool{
			"from":  func(s uint32) bool { return s >= i },
			"up to": func(s uint32) bool { return s <= i },
			"only":  func(s uint32) bool { return s == i },
		} {
			l := w.spoiled(t, func(fs *simfs.FS) error {
				for s := range n {
					if missing(s) {
						if err := fs.ZeroSector(path(last.segment), int64(last.sector+s)); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if len(l.Findings()) > 0 {
				t.Fatalf("torn %s sector %d is taken for damage: %v", what, i, l.Findings())
			}
			// The log goes on, and what was cut does not come back.
			put(t, l, Update{Group: 2, Hard: &HardState{9, 9, 0}}, Update{Group: 1, Entries: entries(1, 41, 42, 9, 10)})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, err := Open(l.o)
			if err != nil {
				t.Fatal(err)
			}
			if s, _ := l.State(2); s.Last != 40 || s.Hard.Term != 9 || len(l.Findings()) > 0 {
				t.Fatalf("torn %s sector %d: after going on: %+v, %v", what, i, s, l.Findings())
			}
		}
	}
}

// TestWALZeroedSector zeroes each sector of each batch but the last: a lost write, never a torn tail.
func TestWALZeroedSector(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	for i, b := range w.batches[:len(w.batches)-1] {
		for s := range b.sectors {
			l := w.spoiled(t, func(fs *simfs.FS) error { return fs.ZeroSector(path(b.segment), int64(b.sector+s)) })
			w.wantDamage(t, l, i, s)
		}
	}
}

// TestWALStaleSector makes each sector of each batch but the last what it was before it was written.
func TestWALStaleSector(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	for i, b := range w.batches[:len(w.batches)-1] {
		for s := range b.sectors {
			// History is kept by the disk itself; a copy has none.
			before := w.fs.CrashClone(simfs.Everything, 1)
			if err := w.fs.StaleSector(path(b.segment), int64(b.sector+s)); err != nil {
				t.Fatal(err)
			}
			l := w.spoiled(t, func(*simfs.FS) error { return nil })
			w.wantDamage(t, l, i, s)
			restore(t, w.fs, before, path(b.segment), b.sector+s)
		}
	}
}

// restore copies a sector from another disk.
func restore(t testing.TB, to, from *simfs.FS, name string, sector uint32) {
	t.Helper()
	b := make([]byte, sectorSize)
	src, err := from.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := to.OpenReadWrite(name, "test")
	if err != nil {
		t.Fatal(err)
	}
	_, err = src.ReadAt(b, int64(sector)*sectorSize)
	if err == nil {
		_, err = dst.WriteAt(b, int64(sector)*sectorSize)
	}
	if err := errors.Join(err, src.Close(), dst.Close()); err != nil {
		t.Fatal(err)
	}
}

// wantDamage checks that exactly groups of batch i are damaged, with a known loss that lies in the
// batch.
func (w *written) wantDamage(t testing.TB, l *Log, i int, sector uint32) {
	t.Helper()
	b := w.batches[i]
	in := map[GroupID]row{}
	for _, r := range b.rows {
		in[r.group] = r
	}
	damaged := w.verify(t, l)
	if len(damaged) == 0 && sector+1 < b.sectors {
		t.Fatalf("batch %d sector %d: no group is damaged", i, sector)
	}
	for _, g := range damaged {
		s, _ := l.State(g)
		r, ok := in[g]
		if !ok || s.Damage.Unknown {
			t.Fatalf("batch %d sector %d: group %d: %+v", i, sector, g, s.Damage)
		}
		for _, lost := range s.Damage.Lost {
			if lost.First < r.first || lost.Last > r.last() || lost.Term != r.term {
				t.Fatalf("batch %d sector %d: lost %+v, batch has %d to %d", i, sector, lost, r.first, r.last())
			}
		}
	}
	if f := l.Findings()[0]; f.File != segmentName(b.segment) {
		t.Fatalf("batch %d sector %d: found %v", i, sector, f)
	}
}

// TestWALDirectoryCopyIdentifiesLoss destroys whole batches beyond recognition: the copy of the
// directory in the next batch tells what they held.
func TestWALDirectoryCopyIdentifiesLoss(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	for i, b := range w.batches[:len(w.batches)-1] {
		l := w.spoiled(t, func(fs *simfs.FS) error {
			for s := range b.sectors {
				if err := fs.FlipBit(path(b.segment), int64(b.sector+s)*sectorSize+5, 1); err != nil {
					return err
				}
			}
			return nil
		})
		for _, r := range b.rows {
			s, ok := l.State(r.group)
			want := LostRange{First: r.first, Last: r.last(), Term: r.term, Fold: r.fold}
			if !ok || s.Damage == nil || s.Damage.Unknown || len(s.Damage.Lost) != 1 || s.Damage.Lost[0] != want {
				t.Fatalf("batch %d: group %d: %+v, want loss of %+v", i, r.group, s.Damage, want)
			}
		}
		if damaged := w.verify(t, l); len(damaged) != len(b.rows) {
			t.Fatalf("batch %d: damaged %v, batch has %d rows", i, damaged, len(b.rows))
		}
	}
}

// TestWALGarbageTail spoils the start of the last batch: nobody knows whom it was about, so every group
// is in doubt, now and after the log went on.
func TestWALGarbageTail(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	last := w.batches[len(w.batches)-1]
	l := w.spoiled(t, func(fs *simfs.FS) error { return fs.FlipBit(path(last.segment), last.offset()+20, 1) })
	check := func(l *Log, unknown ...GroupID) {
		t.Helper()
		for g := GroupID(1); g <= 4; g++ {
			want := false
			for _, u := range unknown {
				want = want || u == g
			}
			if s, ok := l.State(g); (ok && s.Damage != nil && s.Damage.Unknown) != want {
				t.Fatalf("group %d: %+v", g, s.Damage)
			}
		}
		if s, ok := l.State(99); ok || s.Damage == nil || s.Damage.Group != 99 {
			t.Fatalf("a group that is not there: %v, %+v", ok, s.Damage)
		}
	}
	check(l, 1, 2, 3, 4)
	put(t, l, Update{Group: 2, Reset: &Position{50, 7}, Hard: &HardState{7, 0, 50}})
	check(l, 1, 3, 4)
	put(t, l, Update{Group: 3, Remove: true}, Update{Group: 2, Entries: entries(2, 51, 60, 7, 300)})
	for range 3 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		var err error
		if l, err = Open(l.o); err != nil {
			t.Fatal(err)
		}
		check(l, 1, 4)
		wantEntries(t, l, 2, entries(2, 51, 60, 7, 300))
	}
}

// TestWALDamageBehindTail spoils a sector where nothing was written yet: reported, no group harmed, and
// the log goes on.
func TestWALDamageBehindTail(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	last := w.batches[len(w.batches)-1]
	at := int64(last.sector+last.sectors+1) * sectorSize
	for what, damage := range map[string]func(fs *simfs.FS) error{
		"flipped":   func(fs *simfs.FS) error { return fs.FlipBit(path(last.segment), at, 1) },
		"broken":    func(fs *simfs.FS) error { return fs.BreakSector(path(last.segment), at/sectorSize) },
		"truncated": func(fs *simfs.FS) error { return fs.TruncateFile(path(last.segment), at) },
	} {
		l := w.spoiled(t, damage)
		if d := w.verify(t, l); len(d) > 0 || len(l.Findings()) == 0 {
			t.Fatalf("%s: damaged %v, found %v", what, d, l.Findings())
		}
		put(t, l, Update{Group: 1, Entries: entries(1, 41, 43, 5, 100)})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, err := Open(l.o)
		if err != nil {
			t.Fatal(err)
		}
		wantEntries(t, l, 1, entries(1, 41, 43, 5, 100))
	}
}

// TestWALUnreadableSector makes reads of each sector fail, at the end too.
func TestWALUnreadableSector(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	for i, b := range w.batches {
		for s := range b.sectors {
			l := w.spoiled(t, func(fs *simfs.FS) error { return fs.BreakSector(path(b.segment), int64(b.sector+s)) })
			if i < len(w.batches)-1 {
				w.wantDamage(t, l, i, s)
			} else if len(w.verify(t, l)) == 0 && s+1 < b.sectors {
				t.Fatalf("last batch, sector %d: no group is damaged", s)
			}
		}
	}
}

// TestWALMisdirectedSector puts a good sector of the log in another's place.
func TestWALMisdirectedSector(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	from := w.batches[2]
	for i, b := range w.batches[:len(w.batches)-1] {
		if b.segment != from.segment || i == 2 {
			continue
		}
		l := w.spoiled(t, func(fs *simfs.FS) error {
			return fs.MisdirectSector(path(b.segment), int64(from.sector), int64(b.sector))
		})
		w.wantDamage(t, l, i, 0)
	}
}

// TestWALMissingSegment removes each segment, with and without its index file.
func TestWALMissingSegment(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	lastOf := w.batches[len(w.batches)-1].segment
	for n := uint64(1); n <= lastOf; n++ {
		for _, index := range []bool{true, false} {
			sealed := n < lastOf
			l := w.spoiled(t, func(fs *simfs.FS) error {
				err := fs.LoseFile(path(n))
				if !index && sealed {
					err = errors.Join(err, fs.LoseFile("data/wal/"+indexName(n)))
				}
				return err
			})
			w.wantMissing(t, l, n, index && sealed)
			// The same after the log went on for a group that is not touched.
			put(t, l, Update{Group: 50, Hard: &HardState{1, 1, 0}})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, err := Open(l.o)
			if err != nil {
				t.Fatal(err)
			}
			w.verify(t, l)
			w.wantMissing(t, l, n, index && sealed)
		}
	}
}

func (w *written) wantMissing(t testing.TB, l *Log, segment uint64, known bool) {
	t.Helper()
	if len(l.Findings()) == 0 {
		t.Fatalf("segment %d missing: not found", segment)
	}
	for g := range w.ref.history {
		var lost []row
		for _, b := range w.batches {
			for _, r := range b.rows {
				if r.group == g && b.segment == segment {
					lost = append(lost, r)
				}
			}
		}
		s, _ := l.State(g)
		switch {
		case len(lost) == 0 && s.Damage != nil && known:
			t.Fatalf("segment %d missing: group %d was not in it: %v", segment, g, s.Damage)
		case len(lost) > 0 && s.Damage == nil:
			t.Fatalf("segment %d missing: group %d was in it", segment, g)
		case len(lost) > 0 && s.Damage.Unknown == known:
			t.Fatalf("segment %d missing, index %v: group %d: %+v", segment, known, g, s.Damage)
		case len(lost) > 0 && known:
			first, last := s.Damage.Lost[0].First, s.Damage.Lost[len(s.Damage.Lost)-1].Last
			if first != lost[0].first || last != lost[len(lost)-1].last() {
				t.Fatalf("segment %d missing: group %d lost %d to %d, want %d to %d", segment, g, first, last, lost[0].first, lost[len(lost)-1].last())
			}
		}
	}
}

// TestWALHeadersGone destroys both headers of a segment: it counts as missing.
func TestWALHeadersGone(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	l := w.spoiled(t, func(fs *simfs.FS) error {
		return errors.Join(fs.ZeroSector(path(2), 0), fs.ZeroSector(path(2), 16<<10/sectorSize-1))
	})
	w.wantMissing(t, l, 2, true)
}

// TestWALRepair repairs a group whose entries are lost, by writing them again, by compaction beyond
// them, and by a reset; it stays repaired.
func TestWALRepair(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	b := w.batches[9] // Of group 1, entries 7 and 8.
	if len(b.rows) != 1 || b.rows[0].group != 1 || b.rows[0].first != 7 {
		t.Fatalf("batch 9 is not what this test needs: %+v", b.rows)
	}
	all := w.ref.now(1).entries
	for what, repair := range map[string]Update{
		"entries": {Group: 1, Entries: all[6:]},
		"compact": {Group: 1, Compact: Position{8, 1}, Hard: &HardState{Term: 9}},
		"reset":   {Group: 1, Reset: &Position{100, 9}, Hard: &HardState{Term: 9}},
	} {
		l := w.spoiled(t, func(fs *simfs.FS) error { return fs.FlipBit(path(b.segment), b.offset(), 1) })
		if s, _ := l.State(1); s.Damage == nil || s.Damage.Unknown {
			t.Fatalf("%+v", s)
		}
		put(t, l, repair)
		for range 3 {
			s, _ := l.State(1)
			if s.Damage != nil {
				t.Fatalf("%s: still damaged: %v", what, s.Damage)
			}
			if what != "reset" {
				wantEntries(t, l, 1, all[8:])
			} else if s.First != 101 || s.Last != 100 {
				t.Fatalf("%s: %+v", what, s)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			var err error
			if l, err = Open(l.o); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestWALReopenIdempotent opens and closes logs, good ones and damaged ones, again and again: the verdict
// does not change.
func TestWALReopenIdempotent(t *testing.T) {
	w := writeLog(t, mixedUpdates()...)
	verdict := func(l *Log) string {
		var b strings.Builder
		for _, g := range l.Groups() {
			s, _ := l.State(g)
			fmt.Fprintf(&b, "%d %+v %v %v\n", g, s.Hard, s.First, s.Last)
			if s.Damage != nil {
				fmt.Fprintf(&b, "%v %+v\n", s.Damage, *s.Damage)
			}
		}
		fmt.Fprintf(&b, "%v\n", l.Findings())
		return b.String()
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		l := w.spoiled(t, func(fs *simfs.FS) error {
			for range rnd.IntN(4) {
				b := w.batches[rnd.IntN(len(w.batches))]
				if err := fs.FlipBit(path(b.segment), b.offset()+rnd.Int64N(int64(b.sectors)*sectorSize), 1); err != nil {
					return err
				}
			}
			return nil
		})
		first := verdict(l)
		for range 3 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			var err error
			if l, err = Open(l.o); err != nil {
				t.Fatal(err)
			}
			if v := verdict(l); v != first {
				t.Fatalf("verdict changes from\n%sto\n%s", first, v)
			}
		}
	}
}
