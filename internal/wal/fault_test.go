package wal

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/sim/simfs"
)

// TestWALFsyncErrorStops fails each write and each sync of the writer once. The update is not
// acknowledged, nothing is tried again, everything later is refused, the owner is told once, and what was
// acknowledged before is there after a restart.
func TestWALFsyncErrorStops(t *testing.T) {
	for _, kind := range []string{"write", "sync-data"} {
		for nth := 1; nth <= 5; nth++ {
			fs := simfs.New(1, simfs.Strict)
			var told []error
			l := testLog(t, fs, func(o *Options) { o.OnError = func(err error) { told = append(told, err) } })
			calls, after := 0, 0
			fs.SetHook(func(op simfs.Op) error {
				if op.Kind == kind {
					if calls++; calls == nth {
						return syscall.EIO
					}
				}
				if calls >= nth && op.Writes() {
					after++
				}
				return nil
			})
			var acked, refused uint64
			for i := uint64(1); i <= 8; i++ {
				l.Submit([]Update{{Group: 1, Entries: entries(1, i, i+1, 1, 600)}}, func(err error) {
					switch {
					case err == nil && refused == 0:
						acked = i
					case errors.Is(err, syscall.EIO):
						refused++
					default:
						t.Errorf("update %d: %v after %d refusals", i, err, refused)
					}
				})
				for l.Step() {
				}
			}
			if acked != uint64(nth-1) || refused != 8-acked {
				t.Fatalf("%s %d fails: %d acknowledged, %d refused", kind, nth, acked, refused)
			}
			if after > 0 {
				t.Fatalf("%s %d fails: %d calls that write after it", kind, nth, after)
			}
			if len(told) != 1 || !errors.Is(told[0], syscall.EIO) || !errors.Is(l.Err(), syscall.EIO) {
				t.Fatalf("owner was told %v", told)
			}
			if err := l.Close(); !errors.Is(err, syscall.EIO) {
				t.Fatalf("close: %v", err)
			}
			fs.SetHook(nil)
			fs.Crash(simfs.Nothing)
			l = testLog(t, fs)
			if s, _ := l.State(1); s.Last != acked || len(l.Findings()) > 0 {
				t.Fatalf("after the restart: %+v, %v", s, l.Findings())
			}
		}
	}
}

// TestWALFailEveryCall fails every call to the file system of a run with several segments, once each:
// what was acknowledged is there after a crash and a restart.
func TestWALFailEveryCall(t *testing.T) {
	run := func(fs *simfs.FS, ref *reference) error {
		l, err := Open(damageOptions(fs))
		if err != nil {
			return err
		}
		for _, us := range mixedUpdates() {
			ref.submit(t, l, us...)
			l.Step()
		}
		ref.submit(t, l, Update{Group: 1, Compact: Position{40, 2}}, Update{Group: 2, Compact: Position{40, 2}}, Update{Group: 3, Compact: Position{38, 2}})
		ref.submit(t, l, Update{Group: 4, Reset: &Position{100, 9}, Hard: &HardState{Term: 9}})
		return l.Close()
	}
	whole := simfs.New(1, simfs.Strict)
	if err := run(whole, newReference()); err != nil {
		t.Fatal(err)
	}
	if names, _ := whole.List("data/wal"); strings.Contains(fmt.Sprint(names), segmentName(1)) {
		t.Fatalf("the run is too simple: no segment was deleted, there are %v", names)
	}
	refused := 0
	for n := 1; n <= whole.Ops(); n++ {
		fs := simfs.New(uint64(n), simfs.Strict)
		var failed simfs.Op
		fs.SetHook(func(op simfs.Op) error {
			if op.Seq == n {
				failed = op
				return syscall.EIO
			}
			return nil
		})
		ref := newReference()
		if err := run(fs, ref); err != nil {
			refused++
		}
		fs.SetHook(nil)
		fs.Crash(simfs.Outcome(n % 4))
		l, err := Open(damageOptions(fs))
		if err != nil {
			t.Fatalf("after call %v failed: %v", failed, err)
		}
		if err := ref.check(l); err != nil {
			t.Fatalf("after call %v failed: %v", failed, err)
		}
		l.closeFiles()
	}
	if refused < whole.Ops()/2 {
		t.Fatalf("of %d failed calls only %d were noticed", whole.Ops(), refused)
	}
}

// TestWALTruncateNeverPastDurable watches each deletion of a segment: at that moment the disk alone, without
// anything that is not synced, must have every group with all entries that its last acknowledged
// compaction left.
func TestWALTruncateNeverPastDurable(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	l, err := Open(crashOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	const groups = 5
	last, kept := map[GroupID]uint64{}, map[GroupID]uint64{}
	removed := 0
	fs.SetHook(func(op simfs.Op) error {
		if op.Kind != "remove" || !strings.HasSuffix(op.Path, segmentSuffix) {
			return nil
		}
		removed++
		c := fs.CrashClone(simfs.Nothing, uint64(op.Seq))
		// The deletion itself may be on disk first.
		if err := c.LoseFile(op.Path); err != nil {
			return err
		}
		l, err := Open(crashOptions(c))
		if err != nil {
			t.Fatal(err)
		}
		defer l.closeFiles()
		for g := GroupID(1); g <= groups; g++ {
			s, _ := l.State(g)
			if s.Damage != nil || s.Last != last[g] || s.First > kept[g]+1 {
				t.Fatalf("at deletion %d: group %d: %+v, want entries %d to %d", removed, g, s, kept[g]+1, last[g])
			}
			if s.Last >= s.First {
				wantEntries(t, l, g, entries(g, kept[g]+1, last[g]+1, 1, 300))
			}
		}
		return nil
	})
	for i := range 2000 {
		g := 1 + GroupID(i%groups)
		if g == 5 && i > 40 {
			g = 4 // Group 5 falls idle and holds the first segment.
		}
		last[g]++
		put(t, l, Update{Group: g, Entries: entries(g, last[g], last[g]+1, 1, 300)})
		if i%7 == 0 && last[g] > kept[g]+4 {
			kept[g] = last[g] - 4
			put(t, l, Update{Group: g, Compact: Position{kept[g], 1}})
		}
	}
	if removed < 20 {
		t.Fatalf("only %d segments deleted", removed)
	}
	if n := l.w.active.number - l.w.firstSegment; n > segmentsPinned+1 {
		t.Fatalf("%d segments are held back", n)
	}
	wantEntries(t, l, 5, entries(5, kept[5]+1, last[5]+1, 1, 300))
}

// TestWALNoSpace fills the disk. Updates go on to the end of the segment that is there, then wait, without
// an error; they are written when there is room, and compaction makes room.
func TestWALNoSpace(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	l, err := Open(damageOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fs.SetCapacity(2 * 16 << 10)
	submitted, acked := uint64(0), uint64(0)
	submit := func() {
		submitted++
		l.Submit([]Update{{Group: 1, Entries: entries(1, submitted, submitted+1, 1, 900)}}, func(err error) {
			if err != nil {
				t.Errorf("update: %v", err)
			}
			acked++
		})
		for l.Step() {
		}
	}
	for !l.NoSpace() {
		submit()
	}
	if acked != submitted {
		t.Fatalf("%d of %d written when the log first said that there is no room", acked, submitted)
	}
	warned := acked
	for acked == submitted {
		submit()
	}
	if acked < warned+5 {
		t.Fatalf("no time between the warning at %d and the end at %d", warned, acked)
	}
	submit()
	if l.Err() != nil || acked+2 != submitted {
		t.Fatalf("%d of %d written, %v", acked, submitted, l.Err())
	}
	wantEntries(t, l, 1, entries(1, 1, submitted+1, 1, 900))
	// Room for one more segment.
	fs.SetCapacity(3 * 16 << 10)
	for l.Step() {
	}
	if acked != submitted {
		t.Fatalf("%d of %d written although there is room", acked, submitted)
	}
	for !l.NoSpace() {
		submit()
	}
	// What is compacted frees its segments, and that is room for the next ones.
	l.Submit([]Update{{Group: 1, Compact: Position{submitted - 1, 1}}}, nil)
	for range 100 {
		submit()
		l.Submit([]Update{{Group: 1, Compact: Position{submitted - 1, 1}}}, nil)
	}
	for l.Step() {
	}
	if acked != submitted || l.Err() != nil {
		t.Fatalf("%d of %d written, %v", acked, submitted, l.Err())
	}
}

// TestWALLooksForSpace has a log without updates, whose owner refuses all until there is room, find it.
func TestWALLooksForSpace(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	l, err := Open(damageOptions(fs))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fs.SetCapacity(16 << 10)
	n := uint64(0)
	update := func() {
		n++
		l.Submit([]Update{{Group: 1, Entries: entries(1, n, n+1, 1, 900)}}, nil)
		for l.Step() {
		}
	}
	for !l.NoSpace() {
		update()
	}
	l.LookForSpace()
	l.runPending()
	if !l.NoSpace() {
		t.Fatal("the log found room where there is none")
	}
	fs.SetCapacity(0)
	if !l.NoSpace() {
		t.Fatal("the log looked by itself")
	}
	l.LookForSpace()
	l.runPending()
	if l.NoSpace() {
		t.Fatal("there is room, and the log did not find it")
	}
	for range 40 {
		update()
	}
	wantEntries(t, l, 1, entries(1, 1, n+1, 1, 900))
}

// TestWALSegmentsFitDisk has segments grow, but on a small disk only to a small part of it.
func TestWALSegmentsFitDisk(t *testing.T) {
	for diskBytes, want := range map[int64]int64{0: 16 << 20, 1 << 30: 16 << 20, 256 << 20: 8 << 20, 16 << 20: 1 << 20} {
		fs := simfs.New(1, simfs.Strict)
		fs.SetCapacity(diskBytes)
		l, err := Open(Options{FS: fs, Dir: "wal", Stepped: true})
		if err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		for range 8 {
			size = l.segmentSize(size)
		}
		if size != want {
			t.Errorf("on a disk of %d bytes segments grow to %d, want %d", diskBytes, size, want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestWALNoSpaceLoop has the real writer wait for room, and Close while it waits.
func TestWALNoSpaceLoop(t *testing.T) {
	for _, room := range []bool{true, false} {
		fs := simfs.New(1, simfs.Strict)
		o := damageOptions(fs)
		o.Stepped = false
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		fs.SetCapacity(16 << 10)
		var done, failed atomic.Int64
		const all = 100
		for i := uint64(1); i <= all; i++ {
			l.Submit([]Update{{Group: 1, Entries: entries(1, i, i+1, 1, 900)}}, func(err error) {
				if done.Add(1); err != nil {
					failed.Add(1)
				}
			})
		}
		until(t, func() bool { return l.NoSpace() && l.SyncAge() > 0 })
		if room {
			fs.SetCapacity(0)
			until(t, func() bool { return done.Load() == all })
		}
		err = l.Close()
		if done.Load() != all || room != (err == nil) || room != (failed.Load() == 0) {
			t.Fatalf("room %v: %d done, %d failed, close: %v", room, done.Load(), failed.Load(), err)
		}
		if room != !vfs.IsNoSpaceError(err) {
			t.Fatalf("close: %v", err)
		}
	}
}

// until waits for a condition.
func until(t testing.TB, ok func() bool) {
	t.Helper()
	for range 5000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it does not happen")
}

// TestWALStalledDisk blocks a sync: its age shows, and the log takes updates all the while.
func TestWALStalledDisk(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	o := damageOptions(fs)
	o.Stepped = false
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	stall := make(chan struct{})
	fs.SetHook(func(op simfs.Op) error {
		if op.Kind == "sync-data" {
			<-stall
		}
		return nil
	})
	if l.SyncAge() != 0 {
		t.Fatal("a sync is under way in an idle log")
	}
	var done atomic.Int64
	for i := uint64(1); i <= 10; i++ {
		l.Submit([]Update{{Group: 1, Entries: entries(1, i, i+1, 1, 100)}}, func(error) { done.Add(1) })
	}
	until(t, func() bool { return l.SyncAge() > 20*time.Millisecond })
	if s, _ := l.State(1); s.Last != 10 || done.Load() != 0 {
		t.Fatalf("while the disk stalls: %+v, %d done", s, done.Load())
	}
	wantEntries(t, l, 1, entries(1, 1, 11, 1, 100))
	close(stall)
	until(t, func() bool { return done.Load() == 10 && l.SyncAge() == 0 })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWALLazyUpdates checks that commit and compaction alone cost no write, and reach the disk when the log
// is closed.
func TestWALLazyUpdates(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	l := testLog(t, fs)
	put(t, l, Update{Group: 1, Entries: entries(1, 1, 11, 1, 100), Hard: &HardState{1, 2, 0}})
	before := fs.Ops()
	for i := uint64(1); i <= 10; i++ {
		put(t, l, Update{Group: 1, Hard: &HardState{1, 2, i}})
		put(t, l, Update{Group: 1, Compact: Position{i - 1, 1}})
	}
	if n := fs.Ops() - before; n != 0 {
		t.Fatalf("%d calls to the file system", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = testLog(t, fs)
	want := State{Hard: HardState{1, 2, 10}, First: 10, Last: 10, Snapshot: Position{9, 1}}
	if s, _ := l.State(1); s != want {
		t.Fatalf("%+v, want %+v", s, want)
	}
}

// TestWALOneSyncPerUpdate counts the calls that one client's updates cost: a write and a sync each.
func TestWALOneSyncPerUpdate(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	l := testLog(t, fs, func(o *Options) { o.SegmentBytes = 1 << 20 })
	kinds := map[string]int{}
	fs.SetHook(func(op simfs.Op) error {
		kinds[op.Kind]++
		return nil
	})
	for i := uint64(1); i <= 100; i++ {
		put(t, l, Update{Group: 1, Entries: entries(1, i, i+1, 1, 200), Hard: &HardState{1, 1, i - 1}})
	}
	if len(kinds) != 2 || kinds["write"] != 100 || kinds["sync-data"] != 100 {
		t.Fatalf("100 updates cost %v", kinds)
	}
}

// TestWALRefusesOthersFiles opens a directory of another server.
func TestWALRefusesOthersFiles(t *testing.T) {
	fs := simfs.New(1, simfs.Strict)
	l := testLog(t, fs)
	put(t, l, Update{Group: 1, Hard: &HardState{1, 1, 0}})
	if _, err := Open(testOptions(fs)); err == nil {
		t.Fatal("opened twice")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Options){func(o *Options) { o.ServerID++ }, func(o *Options) { o.ClusterID++ }} {
		if _, err := Open(testOptions(fs, change)); err == nil || !strings.Contains(err.Error(), "belongs to server 7 of cluster 9") {
			t.Fatalf("opened: %v", err)
		}
	}
	testLog(t, fs)
}
