package inspect

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/storage/lsm"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
)

const engineName = "g101-r102"

// writeServer makes the directory of a server with a stream of 20 messages, applied up to log entry 30, and
// a log of it that goes on to entry 35.
func writeServer(t *testing.T, voters ...uint64) *simfs.FS {
	t.Helper()
	fs := simfs.New(1, simfs.Journal)
	must(t, fs.MkdirAll("srv", 0o755))
	lock, err := fs.Lock("srv/lock")
	must(t, err)
	must(t, lock.Close())
	f, err := fs.Create("srv/lock", vfs.WriteCategoryUnspecified)
	must(t, err)
	must(t, f.Close())
	files, err := filelog.OpenStore(fs, "srv/streams")
	must(t, err)
	writeEngine(t, files, engineName, voters)
	rocks, err := lsm.OpenStore(fs, "srv/rocksdb", lsm.WithReport(func(string) {}))
	must(t, err)
	writeEngine(t, rocks, "g103-r104", voters)
	l, err := wal.Open(wal.Options{FS: fs, Dir: "srv/wal", SegmentBytes: 16 << 10, ServerID: 1, ClusterID: 2, Stepped: true})
	must(t, err)
	l.Submit([]wal.Update{{Group: 101, Reset: &wal.Position{Index: 20, Term: 1}, Hard: &wal.HardState{Term: 1, Commit: 20}}}, nil)
	for i := uint64(21); i <= 35; i++ {
		l.Submit([]wal.Update{{Group: 101, Hard: &wal.HardState{Term: 3, Vote: 102, Commit: i}, Entries: []wal.Entry{{Index: i, Term: 3, Data: []byte("entry")}}}}, nil)
		l.Step()
	}
	must(t, l.Close())
	return fs
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeEngine(t *testing.T, store storage.Store, name string, voters []uint64) {
	t.Helper()
	e, err := store.Open(name, storage.Options{})
	must(t, err)
	tx := e.Begin()
	tx.SetAux("config", []byte(`{"config":{"name":"KV_b"},"revision":1}`))
	for i := uint64(1); i <= 20; i++ {
		must(t, tx.Append(storage.Message{Seq: i, Time: int64(i), Subject: fmt.Sprintf("$KV.b.k%d", i), Data: []byte(strings.Repeat("v", 100))}))
	}
	must(t, tx.Commit(storage.Applied{Index: 30, Term: 3, Conf: replica.EncodeConf(&pb.ConfState{Voters: voters})}))
	must(t, e.Checkpoint())
	must(t, e.Close())
	must(t, store.Close())
}

func engines(t *testing.T, fs vfs.FS, path string) (damaged, lost int) {
	t.Helper()
	found, err := Engines(fs, path)
	must(t, err)
	var b strings.Builder
	for i := range found {
		e := &found[i]
		damaged += len(e.Damage)
		lost += len(e.Lost)
		must(t, WriteEngine(&b, e, true))
		if len(e.Damage) == 0 && (e.Stream != "KV_b" || e.Index != 30 || e.Messages != 20 || e.Voters == 0) {
			t.Errorf("%s says %+v", path, e)
		}
	}
	if damaged != strings.Count(b.String(), "DAMAGED") || lost != strings.Count(b.String(), "lost:") {
		t.Errorf("%d damages and %d lost, but the text is\n%s", damaged, lost, b.String())
	}
	return damaged, lost
}

func TestEngines(t *testing.T) {
	fs := writeServer(t, 102)
	for _, path := range []string{"srv", "srv/streams", "srv/streams/" + engineName, "srv/rocksdb"} {
		if damaged, lost := engines(t, fs, path); damaged+lost != 0 {
			t.Errorf("%s: %d damages, %d lost", path, damaged, lost)
		}
	}
	if _, err := Engines(fs, "srv/wal"); err == nil {
		t.Error("a directory without engines is taken for one with")
	}
	must(t, fs.FlipBit("srv/streams/"+engineName+"/block-00000001", 500, 1))
	if damaged, lost := engines(t, fs, "srv"); damaged != 1 || lost != 1 {
		t.Errorf("%d damages, %d lost", damaged, lost)
	}
	names, err := fs.List("srv/rocksdb")
	must(t, err)
	i := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".sst") })
	must(t, fs.FlipBit("srv/rocksdb/"+names[i], 200, 1))
	if damaged, _ := engines(t, fs, "srv/rocksdb"); damaged == 0 {
		t.Error("damage of a table is not seen")
	}
}

func TestLock(t *testing.T) {
	fs := writeServer(t, 102)
	held, err := fs.Lock("srv/lock")
	must(t, err)
	for _, path := range []string{"srv", "srv/wal", "srv/streams/" + engineName} {
		if _, _, err := Lock(fs, path); err == nil || !strings.Contains(err.Error(), "stop the server") {
			t.Errorf("%s: %v", path, err)
		}
	}
	must(t, held.Close())
	root, lock, err := Lock(fs, "srv/streams")
	if err != nil || root != "srv" {
		t.Fatalf("root %q, %v", root, err)
	}
	must(t, lock.Close())
}

func repairs(t *testing.T, fs vfs.FS) []*Repair {
	t.Helper()
	list, err := Repairs(fs, "srv")
	must(t, err)
	for _, r := range list {
		var b strings.Builder
		must(t, WriteRepair(&b, r))
		if strings.Count(b.String(), "DAMAGED") != len(r.Damage) || !strings.Contains(b.String(), r.Advice) {
			t.Errorf("%+v is written as\n%s", r, b.String())
		}
	}
	return list
}

// A damaged block and a damaged log of a stream that has no other replica can be given up, and only then
// anything changes.
func TestRepair(t *testing.T) {
	fs := writeServer(t, 102)
	if list := repairs(t, fs); len(list) != 0 {
		t.Fatalf("to be repaired: %+v", list[0])
	}
	must(t, fs.FlipBit("srv/streams/"+engineName+"/block-00000001", 500, 1))
	must(t, fs.FlipBit("srv/wal/000000000001.wal", someBatch(t, fs), 1))
	before := fs.Ops()
	writes := 0
	fs.SetHook(func(o simfs.Op) error {
		if o.Writes() && o.Kind != "lock" {
			writes++
		}
		return nil
	})
	list := repairs(t, fs)
	if writes != 0 || fs.Ops() == before {
		t.Errorf("a plan changed %d things", writes)
	}
	fs.SetHook(nil)
	if len(list) != 1 || !list[0].Can || len(list[0].Lost) != 2 || len(list[0].Damage) != 2 {
		t.Fatalf("planned %+v", list)
	}
	must(t, list[0].Discard(fs, "srv"))
	if list := repairs(t, fs); len(list) != 0 {
		t.Fatalf("still to be repaired: %+v", list[0])
	}
	found, err := Engines(fs, "srv/streams/"+engineName)
	must(t, err)
	if e := &found[0]; e.Messages != 19 || e.Last != 20 || e.Index != 30 || e.Stream != "KV_b" {
		t.Errorf("repaired to %+v", e)
	}
	l, err := ReadWAL(fs, "srv/wal")
	must(t, err)
	if g := l.Groups[0]; g.First != 31 || g.Last != 30 || g.Term < 3 || !l.Right() {
		t.Errorf("the log was repaired to %+v", g)
	}
	if !hasManifest(fs, "srv/damaged/"+engineName) {
		t.Error("the damaged files are gone")
	}
}

// someBatch is a place in the last batch but three of the log.
func someBatch(t *testing.T, fs vfs.FS) int64 {
	t.Helper()
	var batches []int64
	must(t, wal.Walk(fs, "srv/wal", func(p wal.Part) error {
		if p.Kind == wal.KindBatch {
			batches = append(batches, p.Offset)
		}
		return nil
	}))
	return batches[len(batches)-4] + 100
}

// Where others have the data, or it can not be told what there is, nothing can be given up.
func TestRepairRefused(t *testing.T) {
	for name, c := range map[string]struct {
		voters []uint64
		file   string // the first of these, below the engine's directory
	}{
		"others have it": {[]uint64{102, 103, 104}, "block-"},
		"no manifest":    {[]uint64{102}, "MANIFEST"},
	} {
		fs := writeServer(t, c.voters...)
		dir := "srv/streams/" + engineName
		names, err := fs.List(dir)
		must(t, err)
		i := slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, c.file) })
		must(t, fs.FlipBit(fs.PathJoin(dir, names[i]), 20, 1))
		list := repairs(t, fs)
		if len(list) != 1 || list[0].Can {
			t.Fatalf("%s: planned %+v", name, list)
		}
		if err := list[0].Discard(fs, "srv"); err == nil {
			t.Errorf("%s: repaired", name)
		}
		if isDir(fs, "srv/damaged") {
			t.Errorf("%s: something was put aside", name)
		}
	}
}

// A damaged index file is made anew out of the messages, which loses none, but only when told to.
func TestRepairIndex(t *testing.T) {
	fs := writeServer(t, 102)
	must(t, fs.FlipBit("srv/streams/"+engineName+"/index-00000002", 20, 1))
	list := repairs(t, fs)
	if len(list) != 1 || !list[0].Can || len(list[0].Lost) != 1 || !strings.HasPrefix(list[0].Lost[0], "no message") || list[0].Stream != "KV_b" {
		t.Fatalf("planned %+v", list[0])
	}
	if isDir(fs, "srv/damaged") {
		t.Error("a plan changed something")
	}
	must(t, list[0].Discard(fs, "srv"))
	if list := repairs(t, fs); len(list) != 0 {
		t.Fatalf("still to be repaired: %+v", list[0])
	}
	found, err := Engines(fs, "srv/streams/"+engineName)
	must(t, err)
	if e := &found[0]; e.Messages != 20 || e.Index != 30 || e.Stream != "KV_b" || e.Voters != 1 {
		t.Errorf("repaired to %+v", e)
	}
}

// A repair that is interrupted at any write leaves what another one completes.
func TestRepairInterrupted(t *testing.T) {
	for at := 1; ; at++ {
		fs := writeServer(t, 102)
		must(t, fs.FlipBit("srv/streams/"+engineName+"/block-00000001", 500, 1))
		list := repairs(t, fs)
		n := 0
		fs.SetHook(func(o simfs.Op) error {
			if o.Writes() {
				if n++; n == at {
					fs.SetHook(nil)
					return fmt.Errorf("interrupted at %v", o)
				}
			}
			return nil
		})
		err := list[0].Discard(fs, "srv")
		fs.SetHook(nil)
		fs.Crash(simfs.Nothing)
		for _, r := range repairs(t, fs) {
			must(t, r.Discard(fs, "srv"))
		}
		found, err2 := Engines(fs, "srv/streams/"+engineName)
		must(t, err2)
		if e := &found[0]; e.Messages != 19 || len(e.Damage) != 0 {
			t.Fatalf("interrupted at %d (%v): %+v", at, err, e)
		}
		if !hasManifest(fs, "srv/damaged/"+engineName) {
			t.Fatalf("interrupted at %d: the damaged files are gone", at)
		}
		if err == nil {
			return
		}
	}
}

func TestCheckSnapshot(t *testing.T) {
	fs := writeServer(t, 102)
	store, err := filelog.OpenStore(fs, "srv/streams")
	must(t, err)
	e, err := store.Open(engineName, storage.Options{})
	must(t, err)
	f, err := fs.Create("snapshot", vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = e.WriteSnapshot(f)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, e.Close())
	s, err := CheckSnapshot(fs, "snapshot")
	must(t, err)
	if s.Index != 30 || s.Messages != 20 || s.Read != 20 || s.Records != 1 || len(s.Damage) != 0 {
		t.Errorf("%+v", s)
	}
	must(t, fs.FlipBit("snapshot", 900, 1))
	s, err = CheckSnapshot(fs, "snapshot")
	must(t, err)
	var b strings.Builder
	must(t, WriteSnapshot(&b, s))
	if len(s.Damage) != 1 || s.Damage[0].Offset == 0 || !strings.Contains(b.String(), "DAMAGED") {
		t.Errorf("%+v\n%s", s, b.String())
	}
}
