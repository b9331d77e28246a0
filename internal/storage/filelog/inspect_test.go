package filelog_test

import (
	"bytes"
	"strings"
	"testing"

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
	inspect := func() (string, int) {
		var out bytes.Buffer
		damage, err := filelog.Inspect(disk, "store", "e", &out)
		if err != nil {
			t.Fatal(err)
		}
		return out.String(), len(damage)
	}
	writes := 0
	disk.SetHook(func(o simfs.Op) error {
		if o.Writes() {
			writes++
		}
		return nil
	})
	out, damage := inspect()
	for _, want := range []string{"last sequence 60; 39 messages", "1 erasures", "1 erased", "block-00000002"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if damage != 0 || writes != 0 {
		t.Errorf("%d damages, %d writes\n%s", damage, writes, out)
	}
	// Damage in two files is found in both.
	for _, name := range []string{"store/e/block-00000002", "store/e/block-00000003"} {
		if err := disk.FlipBit(name, 700, 3); err != nil {
			t.Fatal(err)
		}
	}
	if out, damage := inspect(); damage != 2 || strings.Count(out, "DAMAGED") != 2 {
		t.Errorf("%d damages\n%s", damage, out)
	}
}
