package storagetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/sim/simfs"
)

// ScrubFindsDamage damages the files with messages, a place at a time, and expects scrubbing in small pieces
// to find it, without anybody reading what is damaged.
func ScrubFindsDamage(t *testing.T, k Kind) {
	disk := simfs.New(1, simfs.Journal)
	fill := func(e storage.Engine) {
		tx := e.Begin()
		for i := range uint64(600) {
			data := fmt.Appendf(nil, "%x", i*0x9e3779b97f4a7c15)
			m := storage.Message{Seq: i + 1, Time: int64(i + 1), Subject: fmt.Sprintf("k.%d", i), Data: []byte(strings.Repeat(string(data), 60))}
			if err := tx.Append(m); err != nil {
				t.Fatal(err)
			}
		}
		commit(t, tx, e)
		if err := e.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	reopen := func(disk *simfs.FS, fn func(e storage.Engine)) {
		store, e, err := (&damager{kind: k}).open(disk)
		var corrupt *storage.CorruptError
		if errors.As(err, &corrupt) {
			return // It is found even earlier.
		}
		if err != nil {
			t.Fatal(err)
		}
		fn(e)
		if err := errors.Join(e.Close(), store.Close()); err != nil {
			t.Fatal(err)
		}
	}
	reopen(disk, fill)
	steps := 0
	reopen(disk, func(e storage.Engine) {
		for range 2 { // It begins anew.
			n, read := scrub(t, e, 16<<10)
			if steps = n; e.Err() != nil || read < int64(e.State().Bytes)/20 {
				t.Fatalf("%d bytes read of %d, %v", read, e.State().Bytes, e.Err())
			}
		}
	})
	tried, scrubbed := 0, 0
	files := messageFiles(t, disk, dir)
	for n := 0; n < len(files); n += 1 + len(files)/10 {
		path := files[n]
		info, err := disk.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(100); at < info.Size(); at += info.Size()/7 + 1 {
			bad := disk.CrashClone(simfs.Everything, 1)
			if err := bad.FlipBit(path, at, 5); err != nil {
				t.Fatal(err)
			}
			tried++
			reopen(bad, func(e storage.Engine) {
				scrub(t, e, 16<<10)
				scrubbed++
				var corrupt *storage.CorruptError
				if !errors.As(e.Err(), &corrupt) || corrupt.Path != path {
					t.Fatalf("%s, byte %d: scrubbing says %v", path, at, e.Err())
				}
			})
		}
	}
	t.Logf("%d steps, %d places damaged, %d of them found by scrubbing", steps, tried, scrubbed)
	if scrubbed < 3 {
		t.Errorf("only %d places were found by scrubbing", scrubbed)
	}
}

// scrub reads everything once, as long as nothing is damaged.
func scrub(t *testing.T, e storage.Engine, limit int64) (steps int, read int64) {
	t.Helper()
	for done := false; !done && e.Err() == nil; steps++ {
		n, d, err := e.(storage.Scrubber).Scrub(limit)
		if err != nil && e.Err() == nil {
			t.Fatal(err)
		}
		if steps > 10_000 {
			t.Fatal("scrubbing does not end")
		}
		done, read = d, read+n
	}
	return steps, read
}

// messageFiles lists the files that hold messages.
func messageFiles(t *testing.T, fs *simfs.FS, dir string) (paths []string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		path := fs.PathJoin(dir, n)
		info, err := fs.Stat(path)
		switch {
		case err != nil:
			t.Fatal(err)
		case info.IsDir():
			paths = append(paths, messageFiles(t, fs, path)...)
		case strings.HasPrefix(n, "block-"), strings.HasSuffix(n, ".sst") && info.Size() > 8<<10:
			paths = append(paths, path)
		}
	}
	return paths
}
