package filelog_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/sim/simfs"
)

func TestInspect(t *testing.T) {
	disk := simfs.New(1, simfs.Strict)
	e := open(t, disk, filelog.WithBlockBytes(2<<10, 2<<10))
	for i := range 60 {
		put(t, e, i%40)
	}
	tx := e.Begin()
	if _, err := tx.Erase(e.State().LastSeq); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(e.Applied()); err != nil {
		t.Fatal(err)
	}
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	for i := range 40 { // These are not in the checkpoint.
		put(t, e, i)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	inspect := func() *storage.Inspection {
		t.Helper()
		i, err := filelog.Inspect(disk, "store", "e", historyOne)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	writes := 0
	disk.SetHook(func(o simfs.Op) error {
		if o.Writes() {
			writes++
		}
		return nil
	})
	i := inspect()
	erased := 0
	for _, f := range i.Files {
		erased += f.Erased
	}
	if i.State.LastSeq != 60 || i.State.Msgs != 39 || erased != 1 || len(i.Damage) != 0 || len(i.Lost) != 0 || writes != 0 {
		t.Errorf("%d erased, %d writes: %+v", erased, writes, i)
	}
	// Damage in two files is found in both, with what is lost by it.
	for _, name := range []string{"store/e/block-00000002", "store/e/block-00000003"} {
		if err := disk.FlipBit(name, 700, 3); err != nil {
			t.Fatal(err)
		}
	}
	i = inspect()
	if len(i.Damage) != 2 || len(i.Lost) != 1 { // The other one is of a message that was replaced.
		t.Fatalf("damage %v, lost %v", i.Damage, i.Lost)
	}
	for n, d := range i.Damage {
		if want := fmt.Sprintf("store/e/block-%08d", n+2); d.Path != want || d.Offset == 0 {
			t.Errorf("damage %d is %v", n, d)
		}
	}
	if l := i.Lost[0]; l != (storage.LostMessage{Seq: 33, Subject: "$KV.b.000032"}) {
		t.Errorf("lost is %+v", l)
	}
	salvage(t, disk, i)
}

// salvage expects all but what is lost to be saved, and the damaged files to be left as they are.
func salvage(t *testing.T, disk *simfs.FS, i *storage.Inspection) {
	t.Helper()
	lost, err := filelog.Salvage(disk, "store", "e", "saved", historyOne)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(lost, i.Lost) {
		t.Errorf("lost %v, want %v", lost, i.Lost)
	}
	if again, err := filelog.Inspect(disk, "store", "e", historyOne); err != nil || len(again.Damage) != 2 {
		t.Errorf("the damaged engine was changed: %v, %v", again, err)
	}
	store, err := filelog.OpenStore(disk, "saved")
	if err != nil {
		t.Fatal(err)
	}
	e, err := store.Open("e", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Verify(); err != nil {
		t.Error(err)
	}
	st, at := e.State(), e.Applied()
	if st.Msgs != i.State.Msgs-uint64(len(lost)) || st.LastSeq != i.State.LastSeq || at.Index != i.Applied.Index {
		t.Errorf("saved %+v at %+v of %+v at %+v", st, at, i.State, i.Applied)
	}
	for _, l := range lost {
		if _, err := e.Load(l.Seq); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("load of %d: %v", l.Seq, err)
		}
	}
}
