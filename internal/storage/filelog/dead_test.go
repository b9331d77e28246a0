package filelog_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/sim/simfs"
)

// deadBytes is how much of a record of put there is: every record here is as long.
const deadBytes = 4 + 1 + 1 + 8 + 8 + 1 + len("$KV.b.000000") + 1 + 100 + 4

// Compaction that can not read a removed message goes on: nothing is lost with it. Where it is a message that
// is there, it stops, and so does the stream. The damage is at each place of a record, and on a sector.
func TestCompactOverDamage(t *testing.T) {
	const keys = 300
	for _, live := range []bool{false, true} {
		for _, at := range []int64{0, 3, 4, 5, 40, int64(deadBytes) - 1, -1} {
			t.Run(fmt.Sprintf("live=%v/at=%d", live, at), func(t *testing.T) {
				disk := simfs.New(1, simfs.Strict)
				var told []string
				e := open(t, disk, filelog.WithBlockBytes(1<<20, 1<<20), filelog.WithReport(func(s string) { told = append(told, s) }))
				defer e.Close()
				fillBlock(t, e, keys)
				place := int64(24) + 102*int64(deadBytes) // Of key 102, which is removed.
				if live {
					place -= 2 * int64(deadBytes)
				}
				damageAt(t, disk, place, at)
				err := compactAll(e)
				var corrupt *storage.CorruptError
				if live {
					if err == nil || at >= 0 && (!errors.As(e.Err(), &corrupt) || corrupt.Offset != place) {
						t.Fatalf("compaction met a live record that is damaged: %v, %v", err, e.Err())
					}
					return
				}
				if err != nil || e.Err() != nil {
					t.Fatalf("compaction stopped at a record that is dead: %v, %v", err, e.Err())
				}
				if at >= 0 && (len(told) != 1 || !strings.Contains(told[0], fmt.Sprintf("block-00000001 at offset %d", place))) {
					t.Errorf("the operator was told %q", told)
				}
				if err := e.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				if _, err := disk.Stat("store/e/block-00000001"); err == nil {
					t.Error("the damaged block is still there")
				}
				for key := 4; key < keys; key += 8 {
					loadKey(t, e, key)
				}
			})
		}
	}
}

// fillBlock fills the first block and removes seven of eight messages in it: those of keys 4, 12, ... stay.
func fillBlock(t *testing.T, e storage.Engine, keys int) {
	t.Helper()
	for key := range keys {
		put(t, e, key)
	}
	for key := range 1 << 20 / deadBytes {
		put(t, e, keys+key) // Until the block is full.
	}
	tx := e.Begin()
	for key := range keys + 1<<20/deadBytes {
		if st, ok := tx.Subject(fmt.Sprintf("$KV.b.%06d", key)); ok && key%8 != 4 {
			if _, err := tx.Remove(st.Last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tx.Commit(storage.Applied{Index: e.Applied().Index + 1}); err != nil {
		t.Fatal(err)
	}
	if err := e.Checkpoint(); err != nil {
		t.Fatal(err)
	}
}

// damageAt flips a bit of the record at a place of the first block, or has the sector that it ends in not be
// readable any more: with the one that is dead there are only dead ones in it.
func damageAt(t *testing.T, disk *simfs.FS, place, at int64) {
	t.Helper()
	const name = "store/e/block-00000001"
	var err error
	if at >= 0 {
		err = disk.FlipBit(name, place+at, 2)
	} else {
		err = disk.BreakSector(name, (place+int64(deadBytes)-1)/512)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func compactAll(e storage.Engine) error {
	for {
		more, err := e.Compact()
		if err != nil || !more {
			return err
		}
	}
}

func loadKey(t *testing.T, e storage.Engine, key int) {
	t.Helper()
	subject := fmt.Sprintf("$KV.b.%06d", key)
	st, ok := e.Subject(subject)
	if !ok {
		t.Fatalf("%s is not there", subject)
	}
	if m, err := e.Load(st.Last); err != nil || m.Subject != subject {
		t.Fatalf("%s: %v", subject, err)
	}
}
