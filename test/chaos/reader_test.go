package chaos

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// readers read at each server without pause what the probes write: no read may miss what was acknowledged
// before it began.
type readers struct {
	f      *fleet
	served [3]atomic.Int64 // by server, when the newest read was begun that was answered there
	count  [3]atomic.Int64
}

// readTimeout is how long a reader waits for an answer.
const readTimeout = 5 * time.Second

// read begins to read at all servers, until the load ends.
func (f *fleet) read(ctx context.Context) *readers {
	f.t.Helper()
	r := &readers{f: f}
	for i := range f.servers {
		for j := range f.servers {
			f.load.Go(func() { r.run(ctx, i, j) })
		}
	}
	return r
}

// run reads at one server what the probe at another one writes.
func (r *readers) run(ctx context.Context, server, probe int) {
	f, key := r.f, fmt.Sprintf("probe.%d", probe)
	for ctx.Err() == nil {
		floor, began := uint64(f.newest[probe].Load()), time.Since(f.begun)
		get, cancel := context.WithTimeout(context.Background(), readTimeout)
		entry, err := f.kvs[server].Get(get, key)
		cancel()
		if err != nil {
			time.Sleep(50 * time.Millisecond) // Refused, or nothing there yet.
			continue
		}
		if entry.Revision() < floor {
			f.t.Errorf("STALE: n%d answered %s with revision %d, when %d had been acknowledged", server, key, entry.Revision(), floor)
			return
		}
		r.count[server].Add(1)
		raise(&r.served[server], int64(began))
		time.Sleep(10 * time.Millisecond)
	}
}

// resumed waits until a read that was begun after the moment was answered at each of the servers.
func (r *readers) resumed(after time.Time, limit time.Duration, servers ...int) time.Duration {
	r.f.t.Helper()
	return r.f.await("reads", &r.served, after, limit, servers)
}

// raise makes v at least n.
func raise(v *atomic.Int64, n int64) {
	for old := v.Load(); n > old && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}
