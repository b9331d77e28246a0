package cluster

import (
	"sync/atomic"
	"time"
)

// instant is a moment that any goroutine may set and ask for. It keeps what a number of nanoseconds loses: how long ago it was
// does not change when the wall clock is set.
type instant struct{ at atomic.Pointer[time.Time] }

func (i *instant) set(t time.Time) { i.at.Store(&t) }

// get is the zero time if the instant was never set.
func (i *instant) get() time.Time {
	if t := i.at.Load(); t != nil {
		return *t
	}
	return time.Time{}
}
