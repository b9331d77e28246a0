package filelog_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/sim/simfs"
)

// A damaged index file or manifest is found while the server that wrote it still knows what it said: it is
// told with its place, and the next checkpoint writes it anew, so that a restart finds nothing damaged.
func TestScrubRenewsIndex(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	e := open(t, disk, filelog.WithBlockBytes(64<<10, 64<<10))
	for key := range 4000 {
		put(t, e, key)
	}
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	files := []string{"MANIFEST", ""}
	names, err := disk.List("store/e")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "index-") {
			files[1] = n
		}
	}
	if err := errors.Join(e.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		info, err := disk.Stat("store/e/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < info.Size(); at += 1 + info.Size()/40 {
			bad := disk.CrashClone(simfs.Everything, 1)
			e := open(t, bad, filelog.WithBlockBytes(64<<10, 64<<10))
			if err := bad.FlipBit("store/e/"+name, at, 4); err != nil {
				t.Fatal(err)
			}
			err := scrubOnce(t, e)
			var corrupt *storage.CorruptError
			if !errors.As(err, &corrupt) || corrupt.Path != "store/e/"+name || corrupt.Offset > at {
				t.Fatalf("%s at %d: scrubbing says %v", name, at, err)
			}
			if e.Err() != nil || e.Dirty() == 0 {
				t.Fatalf("%s at %d: what memory has is not damaged, and is to be written: %v, %d", name, at, e.Err(), e.Dirty())
			}
			if err := errors.Join(e.Checkpoint(), scrubOnce(t, e), e.Close()); err != nil {
				t.Fatalf("%s at %d: after a checkpoint: %v", name, at, err)
			}
			e = open(t, bad, filelog.WithBlockBytes(64<<10, 64<<10))
			if err := e.Verify(); err != nil || e.State().Msgs != 4000 {
				t.Fatalf("%s at %d: after a restart: %v, %d messages", name, at, err, e.State().Msgs)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// scrubOnce reads everything once, in small pieces.
func scrubOnce(t *testing.T, e storage.Engine) error {
	t.Helper()
	for range 10_000 {
		_, done, err := e.(storage.Scrubber).Scrub(8 << 10)
		if done || err != nil {
			return err
		}
	}
	t.Fatal("scrubbing does not end")
	return nil
}
