package cluster

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/stream"
)

// What the streams of one storage hold together is kept within what they may hold; deletes go through, and with
// room again puts do. The other storage has its own limit.
func TestAllowance(t *testing.T) {
	var file atomic.Int64
	file.Store(1 << 20)
	c := start(t, Options{FS: vfs.NewMem(), Name: "S1", Allowance: func() (int64, int64) { return 256 << 10, file.Load() }})
	inFile := []*Stream{create(t, c, bucket("a", 1, api.FileStorage)), create(t, c, bucket("b", 1, api.FileStorage))}
	inMemory := create(t, c, bucket("m", 1, api.MemoryStorage))
	eventually(t, "a count", func() bool { return c.allowance.file.Load() <= 1<<20 })
	value := strings.Repeat("v", 10_000)
	fill := func(what string, allowed int, all ...*Stream) {
		t.Helper()
		held := func() (n int) {
			for _, s := range all {
				n += int(s.Machine().State().Bytes)
			}
			return n
		}
		for i := 0; ; i++ {
			s := all[i%len(all)]
			_, err := put(t, s, fmt.Sprintf("$%s.k%d", strings.Replace(s.Name(), "_", ".", 1), i), value)
			if errors.Is(err, ErrNoSpace) {
				break
			}
			if err != nil || held() > allowed {
				t.Fatalf("%s: put %d: %v; %d bytes are held of %d", what, i, err, held(), allowed)
			}
		}
		if held() < allowed/2 {
			t.Errorf("%s: refused with %d bytes held of %d", what, held(), allowed)
		}
	}
	fill("file", 1<<20, inFile...)
	fill("memory", 256<<10, inMemory)

	// A delete of a key is let through, and makes room: a bucket keeps one message of each.
	for i := range 40 {
		marker := []byte("NATS/1.0\r\nKV-Operation: DEL\r\n\r\n")
		r, err := call(t, func(done func(any, error)) {
			inFile[0].Propose(stream.AppendPublish(nil, fmt.Sprintf("$KV.a.k%d", 2*i), marker, nil), WaiterFunc(done))
		})
		if err != nil || r.(*stream.Result).Err != nil {
			t.Fatal(r, err)
		}
	}
	eventually(t, "room for puts", func() bool {
		_, err := put(t, inFile[1], "$KV.b.more", value)
		return err == nil
	})
	fill("file again", 1<<20, inFile...)
	file.Store(2 << 20)
	eventually(t, "room by a raised limit", func() bool {
		_, err := put(t, inFile[1], "$KV.b.raised", value)
		return err == nil
	})
}
