package cluster

import (
	"sync"
	"sync/atomic"
	"time"
)

// drainFor is how long a group waits for the outcomes of what it sent to one server before it sends to another one.
// A server that refuses answers at once; from one that is stopped or cut off nothing comes.
const drainFor = 250 * time.Millisecond

// epochMin is how long an epoch has lasted if the next one may begin at once. Servers may send each other commands until
// they know who leads.
const epochMin = 25 * time.Millisecond

// away is what this server has sent to the leader of a group, which is on another one, and has not heard of.
//
// The commands of one client are to be stored in the order in which it sent them, also those that are sent without
// waiting for answers. Within an epoch that is so since all go to one server, which proposes a first part
// of them: once it has refused one it refuses the rest of the epoch, see gates. The next epoch begins
// with those that came back, in their order, when the outcome of all others is known. If that takes too long the epoch
// is abandoned: what comes back later is refused, since others that came behind it may be stored by then.
type away struct {
	count atomic.Int32 // commands of this epoch whose outcome is not known; changed under the lock

	sync.Mutex
	to     uint64    // where those of this epoch go
	epoch  uint64    // 0: there was none
	began  time.Time // the epoch
	turned bool      // it is over
	since  time.Time // others are waited for; zero: nobody waits
	last   int64     // the order of the last command that was sent
	floor  int64     // what has no higher order must not be sent any more
}

// home tells whether nothing is away, so that the local replica may be asked; wait tells that nobody may.
func (a *away) home() bool {
	if a.count.Load() == 0 {
		return true
	}
	a.Lock()
	defer a.Unlock()
	return a.free(time.Now())
}

// free tells whether the epoch is over or can be abandoned. The caller holds the lock.
func (a *away) free(now time.Time) bool {
	if a.count.Load() == 0 {
		return true
	}
	if a.since.IsZero() {
		a.since = now
	}
	if now.Sub(a.since) < drainFor {
		return false
	}
	a.floor, a.turned = a.last, true
	a.count.Store(0)
	return true
}

// stale tells whether a command of that order has waited for too long, so that later ones may be stored.
func (a *away) stale(order int64) bool {
	if order == 0 {
		return false
	}
	a.Lock()
	defer a.Unlock()
	return order <= a.floor
}

// send begins an epoch if that is due. The caller holds the lock, and then sends a command of the epoch, or takes that
// back.
func (a *away) send(to uint64) bool {
	if now := time.Now(); a.epoch == 0 || a.turned || a.to != to {
		if !a.free(now) {
			return false
		}
		a.to, a.epoch, a.began, a.turned = to, a.epoch+1, now, false
		a.count.Store(0)
	}
	a.since = time.Time{}
	a.count.Add(1)
	return true
}

// current tells whether what was sent in an epoch may still be sent again.
func (a *away) current(epoch uint64) bool {
	a.Lock()
	defer a.Unlock()
	return a.epoch == epoch && a.count.Load() > 0
}

// heard notes an outcome. over: the rest of the epoch will come back, or is lost. It tells whether it was the last.
func (a *away) heard(epoch uint64, over bool, now time.Time) (last bool) {
	a.Lock()
	defer a.Unlock()
	if a.epoch != epoch || a.count.Load() == 0 {
		return false
	}
	if over {
		a.turned = true
		if a.since.IsZero() {
			a.since = now
		}
	}
	return a.count.Add(-1) == 0
}

// lasted tells whether the epoch was not one of those that end at once.
func (a *away) lasted(now time.Time) bool {
	a.Lock()
	defer a.Unlock()
	return now.Sub(a.began) > epochMin
}

// gates are how far a group has taken what other servers send it to propose.
type gates struct {
	sync.Mutex
	of map[uint64]gate // by server
}

// gate is the last epoch that a server sent commands of.
type gate struct {
	life, epoch uint64 // life names the process
	shut        bool   // one was refused
}

// admit tells whether a command may be proposed.
func (g *gates) admit(from, life, epoch uint64) bool {
	g.Lock()
	defer g.Unlock()
	was, ok := g.of[from]
	if ok && was.life == life && epoch <= was.epoch {
		return epoch == was.epoch && !was.shut
	}
	if g.of == nil {
		g.of = make(map[uint64]gate)
	}
	g.of[from] = gate{life: life, epoch: epoch}
	return true
}

// shut has all further commands of the epoch refused.
func (g *gates) shut(from, life, epoch uint64) {
	g.Lock()
	defer g.Unlock()
	if was := g.of[from]; was.life == life && was.epoch == epoch {
		was.shut = true
		g.of[from] = was
	}
}
