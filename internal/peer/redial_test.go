package peer

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// The trap: a server that was started again reaches the others at once, and they reach it seconds later, since
// they have not met anybody there for so long. Until then they can not answer what it asks.
func TestGreetedServerIsDialledAtOnce(t *testing.T) {
	a, b := newRecorder(), newRecorder()
	var refusing atomic.Bool
	refusing.Store(true)
	var tries atomic.Int32
	ta := listen(t, 1, a, func(o *Options) {
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			tries.Add(1)
			if refusing.Load() {
				return nil, net.ErrClosed
			}
			return net.Dial("tcp", address)
		}
	})
	tb := listen(t, 2, b, nil)
	ta.Accept()
	tb.Accept()
	ta.Dial(tb.Addr().String())
	// From the sixth try on the next comes after two seconds.
	for end := time.Now().Add(20 * time.Second); tries.Load() < 7*int32(laneCount); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not dialled")
		}
	}
	refusing.Store(false)
	began := time.Now()
	tb.Dial(ta.Addr().String())
	eventually(t, "connected back", a.get(func() bool { return a.up[2] }))
	if d := time.Since(began); d > redialMax/2 {
		t.Errorf("connected back after %s", d)
	}
}
