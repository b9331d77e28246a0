package cluster

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/sim/simfs"
)

// Another process takes all that is left of a small disk, and for a while all that becomes free, too. What is purged
// then is given back all the same, though the other one keeps what it took; when that is gone puts are taken again.
func TestDiskFilledByOthers(t *testing.T) {
	disk := simfs.New(1, simfs.Journal)
	disk.SetCapacity(48 << 20)
	c := start(t, Options{FS: disk, Name: "S1"})
	s := create(t, c, bucket("b", 1, api.FileStorage))
	held := func() int {
		names, err := disk.List("data/reserve")
		if err != nil {
			return 0
		}
		return len(names)
	}
	value := strings.Repeat("v", 100_000)
	for round := range 2 {
		eventually(t, "a reserve", func() bool { return held() == 3 })
		for i := range 65 { // The last ones are in memory when the disk is full.
			if i == 60 {
				eventually(t, "a checkpoint", func() bool { return s.local.Load().engine.Dirty() == 0 })
			}
			if r, err := put(t, s, fmt.Sprintf("$KV.b.%d.k%d", round, i), value); err != nil || r.Err != nil {
				t.Fatalf("put %d: %v", i, err)
			}
		}
		other := fill(t, disk, fmt.Sprintf("other-%d", round))
		purged, err := call(t, func(done func(any, error)) {
			s.Propose(stream.EncodePurge(&stream.Purge{}), WaiterFunc(done))
		})
		if err != nil || purged.(*stream.Result).Purged == 0 {
			t.Fatalf("purge on a full disk: %+v, %v", purged, err)
		}
		eventually(t, "what was purged given back", func() bool {
			du, err := disk.GetDiskUsage("data")
			return err == nil && du.AvailBytes > 4<<20
		})
		if err := errors.Join(other.Close(), disk.Remove(fmt.Sprintf("other-%d", round))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "room for puts", func() bool {
			r, err := put(t, s, "$KV.b.after", value)
			return err == nil && r.Err == nil
		})
	}
}

// fill takes all room of a disk, for a while.
func fill(t *testing.T, disk *simfs.FS, name string) vfs.File {
	t.Helper()
	f, err := disk.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for size := 1 << 20; size >= 4<<10; {
			_, err := f.Write(make([]byte, size))
			if errors.Is(err, syscall.ENOSPC) {
				size /= 2
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// The trap: a disk that stood still while a piece of the reserve was made held up the loop that gives up on what is
// late, as that looks at the reserve first.
func TestReserveOnStillDiskHoldsUpNobody(t *testing.T) {
	disk := simfs.New(1, simfs.Journal)
	let, still := make(chan struct{}), make(chan struct{})
	var r reserve
	if err := r.open(disk, "data", time.Time{}); err != nil {
		t.Fatal(err)
	}
	disk.SetHook(func(op simfs.Op) error {
		if strings.HasPrefix(op.Kind, "sync") {
			close(still)
			disk.SetHook(nil)
			<-let
		}
		return nil
	})
	grown := make(chan error, 1)
	go func() { grown <- r.grow(reserveLarge, time.Now()) }()
	<-still
	looked := make(chan int64, 1)
	go func() {
		freed, err := r.giveUp(reserveLarge, time.Now())
		if err != nil {
			t.Error(err)
		}
		looked <- r.bytes() + freed
	}()
	select {
	case n := <-looked:
		if n != 0 {
			t.Errorf("%d bytes held, of which none is on disk", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("the reserve cannot be looked at while a piece of it is made")
	}
	close(let)
	if err := <-grown; err != nil || r.bytes() != reservePiece {
		t.Errorf("held in the end: %d bytes, %v", r.bytes(), err)
	}
}
