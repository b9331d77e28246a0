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

// For the race detector: a transport is closed while it connects.
func TestCloseWhileConnecting(t *testing.T) {
	tb := listen(t, 2, newRecorder(), nil)
	tb.Accept()
	for i := range 40 {
		dialled := make(chan struct{}, 1)
		ta := listen(t, 1, newRecorder(), func(o *Options) {
			o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				c, err := net.Dial("tcp", address)
				select {
				case dialled <- struct{}{}:
				default:
				}
				return c, err
			}
		})
		ta.Dial(tb.Addr().String())
		<-dialled
		time.Sleep(time.Duration(i) * 5 * time.Microsecond)
		if err := ta.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
