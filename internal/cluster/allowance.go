package cluster

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/api"
)

// allowance keeps what streams hold on this server within what it may hold: max_mem and max_file of the
// configuration. Messages are refused by the leader, where they would be too much; a replica takes whatever was
// decided.
type allowance struct {
	memory, file atomic.Int64 // bytes that messages may still take, as of the last count; below 0: refused
	taken        atomic.Bool  // something was, since then
	over         bool         // what was said last; the maintenance loop's
}

func (a *allowance) init() {
	a.memory.Store(math.MaxInt64) // Until the first count.
	a.file.Store(math.MaxInt64)
}

// takes tells whether a message may be proposed, and takes its room.
func (a *allowance) takes(storage api.StorageKind, command []byte) bool {
	room := &a.file
	if storage == api.MemoryStorage {
		room = &a.memory
	}
	if room.Load() == math.MaxInt64 {
		return true
	}
	if !a.taken.Load() { // So that processors need not pass it on with each message.
		a.taken.Store(true)
	}
	return room.Add(-int64(len(command))) >= 0
}

// countHeld finds out how much more the streams may hold. If nothing was stored it may go by an older count.
func (c *Cluster) countHeld(all bool) {
	memory, file := int64(-1), int64(-1)
	if c.opts.Allowance != nil {
		memory, file = c.opts.Allowance()
	}
	a := &c.allowance
	if memory < 0 && file < 0 {
		a.init()
		a.over = false
		return
	}
	if taken := a.taken.Swap(false); !taken && !all && !a.over {
		return
	}
	left := func(allowed int64, storage api.StorageKind) int64 {
		if allowed < 0 {
			return math.MaxInt64
		}
		for _, s := range c.local() {
			if m := s.Machine(); m != nil && (s.Config().Storage == api.MemoryStorage) == (storage == api.MemoryStorage) {
				allowed -= int64(m.State().Bytes)
			}
		}
		return allowed
	}
	inMemory, inFiles := left(memory, api.MemoryStorage), left(file, api.FileStorage)
	a.memory.Store(inMemory)
	a.file.Store(inFiles)
	if over := inMemory <= 0 || inFiles <= 0; over != a.over {
		a.over = over
		if over {
			c.warn(fmt.Sprintf("Streams hold all that this server may hold (max_mem %d, max_file %d; left %d and %d bytes): messages are refused until something is removed or the limit is raised",
				memory, file, max(0, inMemory), max(0, inFiles)))
		} else {
			c.opts.Logger.Info("Streams hold less again than this server may hold")
		}
	}
}
