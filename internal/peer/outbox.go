package peer

import (
	"net"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/rawio"
)

// outbox is what waits to be sent on one lane. While no connection is up nothing is taken.
//
// One at a time writes: the goroutine that drives the connection, which may wait for the socket, or
// whoever flushes, which writes what the socket takes at once and leaves the rest to the goroutine.
type outbox struct {
	bound int           // bytes that may wait
	wake  chan struct{} // for the connection's goroutine

	mu      sync.Mutex
	open    bool
	buf     []byte      // frames
	spare   []byte      // a buffer to use next
	rest    []byte      // taken, and not written yet
	writing bool        // somebody writes
	epoch   uint64      // raised with each connection: a writer of an older one has no say
	plain   *rawio.Conn // the connection, if it can be written without blocking
}

func newOutbox(bound int) *outbox { return &outbox{bound: bound, wake: make(chan struct{}, 1)} }

// begin makes the outbox take frames for a connection, unless another one has it.
func (o *outbox) begin(conn net.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open {
		return false
	}
	o.open = true
	o.plain, _ = conn.(*rawio.Conn)
	return true
}

// end drops what waits: it belonged to a connection that is gone. Order within a connection is a
// promise; across connections there is none.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch++
	o.open, o.writing, o.plain = false, false, nil
	o.buf, o.spare, o.rest = nil, nil, nil
}

// append queues one frame, if there is room.
func (o *outbox) append(kind Kind, build func([]byte) []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open {
		return ErrUnreachable
	}
	if len(o.buf) > o.bound {
		return ErrFull
	}
	o.buf = appendFrame(o.buf, kind, build)
	return nil
}

// signal wakes the connection's goroutine.
func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// flush writes what waits, in this goroutine, as far as the socket takes it at once.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open || o.writing || len(o.rest) > 0 || len(o.buf) == 0 {
		return // Who writes now, or is about to, writes this too.
	}
	epoch, plain := o.epoch, o.plain
	for round := 0; len(o.buf) > 0; round++ {
		if plain == nil || round == flushRounds {
			o.signal()
			return
		}
		o.writing = true
		out := o.swap()
		o.mu.Unlock()
		n, err := plain.TryWrite(out)
		o.mu.Lock()
		if o.epoch != epoch {
			return
		}
		o.writing = false
		if n < len(out) || err != nil {
			o.rest = out[n:]
			o.signal() // An error shows again.
			return
		}
		o.keep(out)
	}
}

// flushRounds is how often a flush goes on with what others queued meanwhile.
const flushRounds = 3

// write writes everything that waits, unless somebody else does, and waits for the socket. Only the
// connection's goroutine calls it.
func (o *outbox) write(conn net.Conn) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing {
		return nil
	}
	o.writing = true
	defer func() { o.writing = false }()
	for len(o.rest) > 0 || len(o.buf) > 0 {
		out := o.rest
		if o.rest = nil; len(out) == 0 {
			out = o.swap()
		}
		o.mu.Unlock()
		err := writeAll(conn, out)
		o.mu.Lock()
		if err != nil {
			return err
		}
		o.keep(out)
	}
	return nil
}

// swap takes what waits.
func (o *outbox) swap() []byte {
	out := o.buf
	o.buf, o.spare = o.spare[:0], nil
	return out
}

// keep holds on to a written buffer for the next frames, unless it was an exception.
func (o *outbox) keep(out []byte) {
	if cap(out) <= spareMax {
		o.spare = out
	}
}

const spareMax = 4 << 20

func writeAll(conn net.Conn, p []byte) error {
	conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := conn.Write(p)
	conn.SetWriteDeadline(time.Time{}) // One that has passed fails every later try.
	return err
}
