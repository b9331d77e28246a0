package cluster

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/sim/simfs"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// fallBehind stops server i and has the others go on until what it lacks is not in their logs any more.
func (c *trio) fallBehind(i int, name, subject string) {
	c.t.Helper()
	had := c.servers[i].Stream("$G", name).Machine().Applied().Index
	c.servers[i].Close()
	other := (i + 1) % len(c.servers)
	for n := range keepEntriesOfReplica + 200 {
		c.putAnywhere(other, name, fmt.Sprint(subject, n%50), strings.Repeat(fmt.Sprint(n), 100))
	}
	for j, s := range c.servers {
		st := s.Stream("$G", name)
		if j == i || st.Machine() == nil {
			continue
		}
		if err := st.Machine().Checkpoint(); err != nil {
			c.t.Fatal(err)
		}
		eventually(c.t, "the log is cut", func() bool { // The leader waits until it misses the other one.
			st.shard.Call(st.rep.Load().Compact)
			l, _ := s.log.State(st.id)
			return l.First > had+1
		})
	}
}

// keepEntriesOfReplica is what package replica leaves in a log.
const keepEntriesOfReplica = 1024

// The power is cut at many places while a replica takes in a state: the server finds the old state or the
// new one, never a part of both, knows what it has voted, and catches up.
func TestSnapshotCrashEveryStep(t *testing.T) {
	c := prepareTrio(t, 3)
	disk := simfs.New(1, simfs.Journal)
	c.fs[2] = disk
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	for n := range 60 {
		c.putAnywhere(n%3, "KV_b", fmt.Sprintf("$KV.b.old%d", n), strings.Repeat("v", 2000))
	}
	c.settled("KV_b", 3)
	was, _ := c.servers[2].Stream("$G", "KV_b").Assignment().On(c.servers[2].id.server)
	old := c.servers[2].Stream("$G", "KV_b").Machine().Applied().Index
	c.fallBehind(2, "KV_b", "$KV.b.k")

	// A cut behind each write to what comes in, and to what is made of it.
	type cut struct {
		where string
		disk  *simfs.FS
	}
	var mu sync.Mutex
	var cuts []cut
	incoming := 0
	disk.SetHook(func(op simfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(op.Path, "incoming/") {
			incoming++
		}
		if incoming > 0 && op.Writes() && !strings.Contains(op.Path, "/meta/") {
			cuts = append(cuts, cut{op.String(), disk.CrashClone(simfs.Outcome(len(cuts)%4), uint64(len(cuts)))})
		}
		return nil
	})
	c.start(2)
	c.formed(2)
	c.settled("KV_b", 3)
	disk.SetHook(nil)
	now := c.servers[2].Stream("$G", "KV_b").Machine().Applied().Index
	if incoming == 0 || len(cuts) < 10 {
		t.Fatalf("%d operations on what came in, %d cuts: no state was sent", incoming, len(cuts))
	}
	t.Logf("%d cuts", len(cuts))
	for _, s := range c.servers {
		s.Close()
	}

	// Alone, it commits nothing: what it has is what the crash left.
	news := 0
	for k, cut := range cuts {
		c.fs[2] = cut.disk
		c.start(2)
		c.formed(2)
		var s *Stream
		eventually(t, "the stream is known", func() bool {
			s = c.servers[2].Stream("$G", "KV_b")
			return s != nil && s.Machine() != nil
		})
		at := s.Machine().Applied().Index
		if at >= now-5 {
			news++
		} else if at > old {
			t.Errorf("cut %d, at %s: a state at %d, where the old one was at %d and the new one at %d", k, cut.where, at, old, now)
		}
		if err := s.local.Load().engine.Verify(); err != nil {
			t.Errorf("cut %d, at %s: %v", k, cut.where, err)
		}
		if s.lost.Load() != nil {
			t.Errorf("cut %d, at %s: the replica is lost: %v", k, cut.where, s.lost.Load().cause)
		}
		c.servers[2].Close()
		if left, err := cut.disk.List("data/incoming"); err != nil || len(left) > 0 {
			t.Errorf("cut %d, at %s: %v is left, %v", k, cut.where, left, err)
		}
	}
	if news == 0 || news == len(cuts) {
		t.Errorf("%d of %d cuts found the new state: not all steps were met", news, len(cuts))
	}
	c.start(0)
	c.start(1)
	c.fs[2] = cuts[len(cuts)/2].disk
	c.start(2)
	c.formed(2)
	if is, _ := c.settled("KV_b", 3).On(c.servers[2].id.server); is.ID != was.ID {
		t.Errorf("replica %d has taken the place of %d", is.ID, was.ID)
	}
}

// spoiler is a file system that changes what is written to states that come in, for a while.
type spoiler struct {
	vfs.FS
	left atomic.Int32 // so many files
}

func (s *spoiler) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	if err == nil && strings.Contains(name, snapshotDir+"/") && s.left.Add(-1) >= 0 {
		f = spoiledFile{f}
	}
	return f, err
}

type spoiledFile struct{ vfs.File }

func (f spoiledFile) Write(b []byte) (int, error) {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 8
	return f.File.Write(b)
}

// A state that is damaged on its way into this server's disk does not get at what is there: the replica
// goes on as it is, and is sent another one.
func TestDamagedSnapshotReplacesNothing(t *testing.T) {
	c := prepareTrio(t, 3)
	disk := &spoiler{FS: vfs.NewMem()}
	c.fs[2] = disk
	c.startAll()
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.putAnywhere(0, "KV_b", "$KV.b.k", "v")
	before := c.settled("KV_b", 3)
	c.fallBehind(2, "KV_b", "$KV.b.k")
	disk.left.Store(2)
	c.start(2)
	c.formed(2)
	s := waitStream(t, c.servers[2], "KV_b")
	eventually(t, "damaged states were sent", func() bool { return disk.left.Load() <= 0 })
	if r := s.rep.Load(); r == nil || r.Status().Stopped != nil || s.lost.Load() != nil {
		t.Fatal("a damaged state stopped the replica")
	}
	after := c.settled("KV_b", 3)
	for i, r := range after.Replicas {
		if r != before.Replicas[i] {
			t.Errorf("replicas %v, then %v", before.Replicas, after.Replicas)
		}
	}
	if n := disk.left.Load(); n >= 0 {
		t.Errorf("%d files: no sound state was sent", n)
	}
}

// What a state must be before Raft hears of it: whole, readable to its end, and at the place that its
// message says.
func TestSnapshotIsCheckedBeforeUse(t *testing.T) {
	at := storage.Applied{Index: 50, Term: 3, Conf: genesisEntry([]uint64{1, 2, 3}).Conf}
	var state bytes.Buffer
	sw, err := storage.NewSnapshotWriter(&state, storage.SnapshotState{Applied: at, LastSeq: 1, LastTime: 9, Msgs: 1, Bytes: (&storage.Message{Seq: 1, Time: 9, Subject: "a", Data: []byte("v")}).Size()})
	if err == nil {
		err = sw.Message(&storage.Message{Seq: 1, Time: 9, Subject: "a", Data: []byte("v")})
	}
	if err == nil {
		err = sw.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	message := func(index, term uint64) []byte {
		conf := &pb.ConfState{Voters: []uint64{1, 2, 3}}
		return peer.AppendMessage(nil, 7, &pb.Message{
			Type: pb.MsgSnap.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(4)),
			Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: &index, Term: &term, ConfState: conf}},
		})
	}
	whole := state.Bytes()
	if err := check(nil, bytes.NewReader(whole), message(50, 3)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		state   []byte
		trailer []byte
	}{
		"an earlier place": {whole, message(49, 3)},
		"another term":     {whole, message(50, 4)},
		"truncated":        {whole[:len(whole)-1], message(50, 3)},
		"empty":            {nil, message(50, 3)},
		"no message":       {whole, nil},
	} {
		if err := check(nil, bytes.NewReader(c.state), c.trailer); err == nil {
			t.Errorf("%s: taken for sound", name)
		}
	}
	for i := range whole {
		spoiled := bytes.Clone(whole)
		spoiled[i] ^= 0x10
		if err := check(nil, io.MultiReader(bytes.NewReader(spoiled)), message(50, 3)); err == nil {
			t.Errorf("byte %d changed: taken for sound", i)
		}
	}
}

// A member that can not be sent a state costs a try now and then, not one at every heartbeat.
func TestSnapshotRetriesWait(t *testing.T) {
	s := newSnapshots(New(Options{}))
	key := memberOf{7, 2}
	var waits []time.Duration
	for range 8 {
		s.ended(key, io.ErrUnexpectedEOF)
		waits = append(waits, s.failed[key].wait)
	}
	if waits[0] != snapRetryMin || waits[1] != 2*snapRetryMin || waits[7] != snapRetryMax {
		t.Errorf("waits %v", waits)
	}
	if s.ended(key, nil); len(s.failed) > 0 {
		t.Error("a success is not the end of waiting")
	}
}
