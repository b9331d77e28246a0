package simfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func create(t testing.TB, f *FS, name string) vfs.File {
	t.Helper()
	h, err := f.Create(name, "test")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func writeTo(t testing.TB, h vfs.File, at int64, b []byte) {
	t.Helper()
	if n, err := h.WriteAt(b, at); n != len(b) || err != nil {
		t.Fatalf("wrote %d of %d: %v", n, len(b), err)
	}
}

func syncAll(t testing.TB, f *FS, h vfs.File) {
	t.Helper()
	d, err := f.OpenDir("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Sync(), d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, f *FS, name string) []byte {
	t.Helper()
	b, err := readAll(f, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sector(c byte) []byte { return bytes.Repeat([]byte{c}, SectorSize) }

func TestFailedSyncDropsWrites(t *testing.T) {
	f := New(1, Strict)
	h := create(t, f, "x")
	writeTo(t, h, 0, sector('a'))
	syncAll(t, f, h)
	writeTo(t, h, 0, sector('b'))
	f.SetHook(func(o Op) error {
		if o.Kind == "sync" {
			return syscall.EIO
		}
		return nil
	})
	if err := h.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	f.SetHook(nil)
	if !bytes.Equal(content(t, f, "x"), sector('b')) {
		t.Fatal("a read after the failed sync does not see the cache")
	}
	if err := h.Sync(); err != nil {
		t.Fatal(err)
	}
	f.Crash(Everything)
	if !bytes.Equal(content(t, f, "x"), sector('a')) {
		t.Fatal("the dropped write came back")
	}
}

func TestFailEveryCall(t *testing.T) {
	work := func(f *FS) error {
		h, err := f.Create("x", "test")
		if err != nil {
			return err
		}
		if _, err := h.Write(sector('a')); err != nil {
			return err
		}
		if err := h.Sync(); err != nil {
			return err
		}
		if _, err := f.List("/"); err != nil {
			return err
		}
		if err := f.Rename("x", "y"); err != nil {
			return err
		}
		if _, err := f.Stat("y"); err != nil {
			return err
		}
		_, err = h.ReadAt(make([]byte, 1), 0)
		return errors.Join(err, f.Remove("y"))
	}
	f := New(1, Strict)
	if err := work(f); err != nil {
		t.Fatal(err)
	}
	calls := f.Ops()
	if calls != 8 {
		t.Fatalf("%d calls", calls)
	}
	for n := 1; n <= calls; n++ {
		f := New(1, Strict)
		f.SetHook(func(o Op) error {
			if o.Seq == n {
				return syscall.EIO
			}
			return nil
		})
		if err := work(f); !errors.Is(err, syscall.EIO) {
			t.Fatalf("call %d: %v", n, err)
		}
	}
}

func TestCapacity(t *testing.T) {
	f := New(1, Strict)
	f.SetCapacity(4 * pageSize)
	h := create(t, f, "x")
	writeTo(t, h, 0, make([]byte, 3*pageSize)) // Zeros take space too.
	if _, err := h.WriteAt(make([]byte, 2*pageSize), 3*pageSize); !vfs.IsNoSpaceError(err) {
		t.Fatalf("write beyond the capacity: %v", err)
	}
	writeTo(t, h, 0, sector('a'))
	writeTo(t, h, 3*pageSize, sector('b'))
	syncAll(t, f, h)
	f.Crash(Nothing)
	if u, _ := f.GetDiskUsage("/"); u.AvailBytes != 0 || u.UsedBytes != 4*pageSize {
		t.Fatalf("usage %+v", u)
	}
	if err := f.Remove("x"); err != nil {
		t.Fatal(err)
	}
	if u, _ := f.GetDiskUsage("/"); u.AvailBytes != 4*pageSize {
		t.Fatalf("usage after remove %+v", u)
	}
}

func TestHandlesDieWithTheCrash(t *testing.T) {
	f := New(1, Strict)
	h := create(t, f, "x")
	l, err := f.Lock("LOCK")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock("LOCK"); err == nil {
		t.Fatal("locked twice")
	}
	syncAll(t, f, h)
	f.Crash(Nothing)
	if _, err := h.WriteAt(sector('a'), 0); !errors.Is(err, ErrCrashed) {
		t.Fatalf("write after the crash: %v", err)
	}
	if err := h.Sync(); !errors.Is(err, ErrCrashed) {
		t.Fatalf("sync after the crash: %v", err)
	}
	again, err := f.Lock("LOCK")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock("LOCK"); err == nil {
		t.Fatal("the lock of before the crash released the new one")
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	for _, names := range []Names{Strict, Journal} {
		f := New(1, names)
		h := create(t, f, "x")
		writeTo(t, h, 0, sector('a'))
		if err := h.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Crash(Nothing)
		_, err := f.Stat("x")
		if names == Strict && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("strict: name is there without a sync of the directory: %v", err)
		}
		if names == Journal && err != nil {
			t.Fatalf("journal: %v", err)
		}
	}
}

func TestDamage(t *testing.T) {
	f := New(1, Strict)
	f.KeepHistory()
	h := create(t, f, "x")
	writeTo(t, h, 0, slices.Concat(sector('a'), sector('b'), sector('c')))
	syncAll(t, f, h)
	writeTo(t, h, SectorSize, sector('B'))
	syncAll(t, f, h)
	f.Crash(Nothing)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(sectors ...[]byte) {
		t.Helper()
		if !bytes.Equal(content(t, f, "x"), slices.Concat(sectors...)) {
			t.Fatal("wrong content")
		}
	}
	must(f.StaleSector("x", 1))
	want(sector('a'), sector('b'), sector('c'))
	must(f.MisdirectSector("x", 2, 0))
	want(sector('c'), sector('b'), sector('c'))
	must(f.ZeroSector("x", 1))
	want(sector('c'), sector(0), sector('c'))
	must(f.FlipBit("x", SectorSize, 3))
	one := sector(0)
	one[0] = 8
	want(sector('c'), one, sector('c'))
	must(f.TruncateFile("x", SectorSize+1))
	want(sector('c'), []byte{8})
	if f.FlipBit("x", 5000, 0) == nil || f.ZeroSector("x", 9) == nil || f.TruncateFile("x", 5000) == nil {
		t.Fatal("damage beyond the end")
	}
	must(f.BreakSector("x", 0))
	r, err := f.OpenReadWrite("x", "test")
	must(err)
	if _, err := r.ReadAt(make([]byte, 10), 3); !errors.Is(err, syscall.EIO) {
		t.Fatalf("read of a broken sector: %v", err)
	}
	writeTo(t, r, 0, sector('n'))
	want(sector('n'), []byte{8})
	must(f.LoseFile("x"))
	f.Crash(Nothing)
	if _, err := f.Open("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("open of a lost file: %v", err)
	}
}

func TestReadAndStream(t *testing.T) {
	f := New(1, Strict)
	h := create(t, f, "x")
	for range 3 {
		if _, err := h.Write([]byte("hello ")); err != nil {
			t.Fatal(err)
		}
	}
	r, err := f.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || string(b) != "hello hello hello " {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := r.WriteAt(b, 0); err == nil {
		t.Fatal("wrote to a file opened for reading")
	}
}

// BenchmarkSync writes and syncs a sector of a big file: the cost must not depend on the file.
func BenchmarkSync(b *testing.B) {
	f := New(1, Strict)
	h := create(b, f, "x")
	writeTo(b, h, 0, make([]byte, 64<<20))
	if err := h.Sync(); err != nil {
		b.Fatal(err)
	}
	data := sector('a')
	for i := 0; b.Loop(); i++ {
		writeTo(b, h, int64(i%(128<<10))*SectorSize, data)
		if err := h.SyncData(); err != nil {
			b.Fatal(err)
		}
	}
}
