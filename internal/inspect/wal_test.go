package inspect

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/wal"
)

func writeWAL(t *testing.T) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	l, err := wal.Open(wal.Options{FS: fs, Dir: "wal", SegmentBytes: 16 << 10, ServerID: 1, ClusterID: 2, Stepped: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 3; i++ {
		l.Submit([]wal.Update{
			{Group: 5, Hard: &wal.HardState{Term: 1, Vote: 3, Commit: i - 1}, Entries: []wal.Entry{{Index: i, Term: 1, Data: []byte("hello")}}},
		}, nil)
		l.Step()
	}
	l.Submit([]wal.Update{{Group: 6, Reset: &wal.Position{Index: 9, Term: 2}}}, nil)
	l.Submit([]wal.Update{{Group: 7, Remove: true}}, nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

func wantText(t *testing.T, got, want string) {
	t.Helper()
	if got = strings.TrimSpace(got); got != strings.TrimSpace(want) {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDumpWAL(t *testing.T) {
	fs := writeWAL(t)
	var b strings.Builder
	if err := DumpWAL(&b, fs, "wal"); err != nil {
		t.Fatal(err)
	}
	wantText(t, b.String(), `
000000000001.wal 512 batch 1 sectors=1
  group 5 term=1 vote=3 commit=0 start=0/0 entries=1-1 term=1
000000000001.wal 1024 batch 2 sectors=1
  group 5 term=1 vote=3 commit=1 start=0/0 entries=2-2 term=1
000000000001.wal 1536 batch 3 sectors=1
  group 5 term=1 vote=3 commit=2 start=0/0 entries=3-3 term=1
000000000001.wal 2048 batch 4 sectors=1
  group 6 reset term=0 vote=0 commit=0 start=9/2
000000000001.wal 2560 zeros sectors=26
`)
	b.Reset()
	if err := DumpWAL(&b, fs, "wal", 6); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); strings.Contains(s, "group 5") || !strings.Contains(s, "group 6 reset") {
		t.Fatalf("filtered dump:\n%s", s)
	}
}

func TestCheckWAL(t *testing.T) {
	fs := writeWAL(t)
	var b strings.Builder
	if ok, err := CheckWAL(&b, fs, "wal"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	wantText(t, b.String(), `
group 5: term 1, vote 3, commit 2, log entries 1 to 3
group 6: term 0, vote 0, commit 0, no log entries behind 9
server 0000000000000001 of cluster 0000000000000002: 1 segments from 1, 4 batches, 2 groups, 0 of them damaged, 0 findings
`)
	f, err := fs.OpenReadWrite("wal/000000000001.wal", "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 1024+30); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if ok, err := CheckWAL(&b, fs, "wal"); ok || err != nil {
		t.Fatal(ok, err)
	}
	wantText(t, b.String(), `
found: 000000000001.wal at offset 1024: sector damaged
group 5: term 1, vote 3, commit 2, log entries 1 to 3
  damaged: 000000000001.wal at offset 1024: sector damaged
  lost: log entries 2 to 2 of term 1
  the entries are known: the other replicas of the group can restore them
group 6: term 0, vote 0, commit 0, no log entries behind 9
server 0000000000000001 of cluster 0000000000000002: 1 segments from 1, 4 batches, 2 groups, 1 of them damaged, 1 findings
`)
	if _, err := CheckWAL(&b, fs, "/"); err == nil {
		t.Fatal("checked a directory without a log")
	}
}
