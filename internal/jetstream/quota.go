package jetstream

import (
	"bytes"
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
)

// How often it is counted what the streams of an account with limits hold: where something was sent, and
// anywhere.
const (
	countEvery    = 250 * time.Millisecond
	countAllEvery = 64 // times as long
)

// quota keeps what the streams of an account hold within its limits, wherever in the cluster they are. Each server
// refuses what its own clients send. It goes by a count that is a moment old, and what was sent since then to this
// server: several servers may let a little too much through.
type quota struct {
	memory, file atomic.Int64 // bytes that messages may still take; below 0: refused
	taken        atomic.Bool  // something was, since the last count
}

// takes tells whether a message may be stored, and takes its room. Deletes and purges of keys always may.
func (q *quota) takes(storage api.StorageKind, m *broker.Msg) bool {
	if !q.taken.Load() { // So that processors need not pass it on with each message.
		q.taken.Store(true)
	}
	room := &q.file
	if storage == api.MemoryStorage {
		room = &q.memory
	}
	if room.Load() == math.MaxInt64 {
		return true
	}
	if room.Add(-int64(len(m.Subject)+len(m.Header)+len(m.Data))) >= 0 {
		return true
	}
	return len(m.Data) == 0 && bytes.Contains(m.Header, []byte("\r\nKV-Operation: "))
}

// left sets what may still be stored.
func (q *quota) left(memory, file int64) {
	q.memory.Store(memory)
	q.file.Store(file)
}

// quotas are those of all accounts.
type quotas struct {
	svc    *Service
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu  sync.Mutex
	all map[string]*quota
}

func newQuotas(s *Service) *quotas {
	q := &quotas{svc: s, all: make(map[string]*quota)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

// of gives the quota of an account.
func (q *quotas) of(account string) *quota {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.all[account]
	if one == nil {
		one = &quota{}
		one.left(math.MaxInt64, math.MaxInt64) // Until the first count.
		q.all[account] = one
	}
	return one
}

func (q *quotas) start() {
	if q.svc.opts.Quota != nil {
		q.group.Go(q.run)
	}
}

func (q *quotas) close() {
	q.cancel()
	q.group.Wait()
}

func (q *quotas) run() {
	ticker := time.NewTicker(countEvery)
	defer ticker.Stop()
	for round := 0; ; round++ {
		q.mu.Lock()
		all := make(map[string]*quota, len(q.all))
		for name, one := range q.all {
			all[name] = one
		}
		q.mu.Unlock()
		for name, one := range all { // order: each is independent
			q.count(name, one, round%countAllEvery == 0)
		}
		select {
		case <-q.ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// count finds out how much more the streams of an account may hold.
func (q *quotas) count(name string, one *quota, anyway bool) {
	if !one.taken.Swap(false) && !anyway {
		return
	}
	memory, file := q.svc.opts.Quota(name)
	if memory < 0 && file < 0 {
		one.left(math.MaxInt64, math.MaxInt64)
		return
	}
	m := q.svc.cluster.Meta()
	q.svc.mu.RLock()
	a := q.svc.accounts[name]
	q.svc.mu.RUnlock()
	if m == nil || a == nil {
		return
	}
	begun := [2]int64{one.memory.Load(), one.file.Load()}
	a.gatherFrom(q.svc.cluster.PeerIDs(), apiPrefix+"INFO", nil, func(parts []outcome) {
		t := a.usage(m, api.AccountLimits{})
		addUsage(&t, parts)
		// What was taken while the others were asked may be in their count or not.
		since := func(was int64, now *atomic.Int64) int64 {
			if was == math.MaxInt64 {
				return 0
			}
			return max(0, was-now.Load())
		}
		left := func(allowed int64, used uint64, taken int64) int64 {
			if allowed < 0 {
				return math.MaxInt64
			}
			return allowed - int64(used) - taken
		}
		one.left(left(memory, t.Memory, since(begun[0], &one.memory)), left(file, t.Storage, since(begun[1], &one.file)))
	})
}
