package server

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/wire"
)

// conn is one client connection.
type conn struct {
	srv    *Server
	id     uint64
	kind   string // A connection type of auth.
	remote netip.AddrPort
	sock   *socket
	client *broker.Client
	start  time.Time
	nonce  string

	// Of the reader goroutine alone.
	in      input
	batch   broker.Batch
	connect wire.ConnectOptions
	opts    *Options // As of the present turn of the loop.
	authed  bool     // Bound to an account: operations are welcome.
	told    bool     // Who watches connections knows of this one.
	msgsIn  int64    // Of the present turn.
	bytesIn int64

	stats      stats
	ownPayload atomic.Int64 // The user's bound on the payload; 0: none.

	mu struct {
		sync.Mutex
		identity  auth.Identity
		connected bool // CONNECT was accepted.
		async     bool // The first PONG was sent and the client understands INFO at any time.
		pongs     int  // PINGs sent since the last PONG.
		pinged    time.Time
		rtt       time.Duration
		tls       *tlsFigures
		reason    Reason
		stop      time.Time // Set once closing.
		ping      *time.Timer
		limit     *time.Timer // Ends a connection that does not authenticate, or whose time is up.
	}

	// ending is set once nothing more is read.
	ending atomic.Bool

	// leaving is set while the client goes to another server.
	leaving atomic.Pointer[lateMessages]

	drained  chan struct{} // Closed by release.
	released sync.Once
}

// stats are figures that monitoring reads while the reader goroutine raises them.
type stats struct {
	msgs, bytes atomic.Int64
	last        atomic.Int64 // When something was read last, in nanoseconds from the start of the connection.
	stalls      atomic.Int64
}

// newConn registers a connection; serve runs it.
func (s *Server) newConn(nc net.Conn, kind string) *conn {
	opts := s.options()
	c := &conn{srv: s, id: s.lastID.Add(1), kind: kind, sock: newSocket(nc), start: time.Now(),
		drained: make(chan struct{})}
	if ap, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		c.remote = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	c.client = s.broker.NewClient(c.id, c, opts.PendingMax)
	c.opts = opts
	c.connect = wire.DefaultConnect()
	return c
}

// serve runs the connection until it ends. It is the reader goroutine.
func (c *conn) serve() {
	defer c.cleanup()
	if c.srv.full() {
		c.client.Send(nil, string(wire.AppendInfoLine(nil, c.info(false)))) // Clients expect INFO first.
		c.fail(errConnections, MaxConnectionsExceeded)
		return
	}
	if !c.greet() {
		return
	}
	want := 1
	for early := c.in.n > 0; !c.ending.Load(); early = false { // Greeting may have read something.
		if !early {
			if err := c.sock.fill(&c.in, want); err != nil {
				c.readFailed(err)
				return
			}
		}
		c.opts = c.srv.options()
		var ok bool
		want, ok = c.parse()
		c.batch.Flush()
		c.account()
		if !ok {
			return
		}
		c.stall()
	}
}

// parse runs the complete operations of the input and returns how many bytes the next one needs.
func (c *conn) parse() (want int, ok bool) {
	limits := wire.Limits{ControlLine: c.opts.ControlLineMax, Payload: c.payloadMax()}
	trace := c.tracing()
	done := 0
	var op wire.Op
	for done < c.in.n {
		if !c.authed && c.in.buf[done]|0x20 != 'c' {
			c.fail(errAuthorization, AuthenticationViolation)
			return 0, false
		}
		n, need, err := limits.Next(c.in.buf[done:c.in.n], &op)
		if err != nil {
			c.rejected(err)
			return 0, false
		}
		if n == 0 {
			c.in.consumed(done)
			return need, true
		}
		if trace {
			c.trace(&op)
		}
		if !c.run(&op) {
			return 0, false
		}
		done += n
	}
	c.in.consumed(done)
	return 1, true
}

// account publishes the figures of this turn of the loop.
func (c *conn) account() {
	c.stats.last.Store(int64(time.Since(c.start)))
	if c.msgsIn > 0 {
		c.stats.msgs.Add(c.msgsIn)
		c.stats.bytes.Add(c.bytesIn)
		c.msgsIn, c.bytesIn = 0, 0
	}
}

const stallPause = 2 * time.Millisecond

// stall holds up a client whose messages pile up at a receiver, which may just be slower for a
// while, before that receiver is cut off.
func (c *conn) stall() {
	if c.batch.Backlog() > c.opts.PendingMax/4*3 {
		c.stats.stalls.Add(1)
		time.Sleep(stallPause)
	}
}

// rejected answers what could not be parsed.
func (c *conn) rejected(err error) {
	switch {
	case errors.Is(err, wire.ErrArguments):
		c.fail(nil, ParseError)
	case errors.Is(err, wire.ErrControlLine):
		c.fail(err, MaxControlLineExceeded)
	case errors.Is(err, wire.ErrPayload):
		c.fail(err, MaxPayloadExceeded)
	default:
		c.fail(err, ParseError)
	}
}

// fail ends the connection, with an error line unless err is nil.
func (c *conn) fail(err error, reason Reason) {
	if err != nil && !c.ending.Load() {
		c.client.SendErr(nil, err.Error())
	}
	c.end(reason)
}

// end lets the output be written and closes then. It may be called from any goroutine.
func (c *conn) end(reason Reason) {
	c.note(reason)
	c.client.Finish()
}

// readFailed ends the connection after a read that failed.
func (c *conn) readFailed(err error) {
	if c.ending.Load() {
		return // Flushed or Abort woke the reader.
	}
	reason := ReadError
	switch {
	case c.leaving.Load() != nil:
		reason = ServerShutdown
	case errors.Is(err, io.EOF):
		reason = ClientClosed
	}
	c.note(reason)
	c.client.Kill()
	c.release()
}

// note records why the connection ends; the first reason stands.
func (c *conn) note(reason Reason) {
	c.ending.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.stop.IsZero() {
		c.mu.reason, c.mu.stop = reason, time.Now()
	}
}

// Offer, StartWriter, Abort and Flushed are what the broker's output asks of a connection.

// Offer implements broker.Conn.
func (c *conn) Offer(p []byte) (int, bool, error) { return c.sock.offer(p) }

// StartWriter implements broker.Conn. The goroutine ends when the output is empty or the socket
// fails, which the write deadline bounds. The broker starts none for a connection that is dead, so
// the reader goroutine is still counted by the server when this one is added.
func (c *conn) StartWriter() {
	c.srv.running.Go(func() {
		c.client.Drain(func(p []byte) error {
			return c.sock.writeAll(p, c.srv.options().WriteDeadline)
		})
	})
}

// Abort implements broker.Conn.
func (c *conn) Abort(slow bool, err error) {
	reason := WriteError
	if ne, ok := errors.AsType[net.Error](err); slow || ok && ne.Timeout() {
		reason = SlowConsumer
		c.srv.slow.Add(1)
	}
	c.note(reason)
	c.sock.nc.Close()
	c.release()
}

// Flushed implements broker.Conn: the last word was written. The peer sees the end of the stream,
// and the reader goroutine wakes up to close.
func (c *conn) Flushed() {
	c.sock.finish()
	end := time.Now()
	if c.leaving.Load() != nil {
		end = end.Add(leaveTimeout) // What the client has sent is still read.
	}
	c.sock.nc.SetReadDeadline(end)
	c.release()
}

// release lets cleanup go on. Finish leads to Flushed or Abort, so the wait always ends.
func (c *conn) release() { c.released.Do(func() { close(c.drained) }) }

// cleanup takes the connection out of the world, at the end of the reader goroutine.
func (c *conn) cleanup() {
	c.stopTimers()
	if late := c.leaving.Load(); late != nil {
		c.sock.nc.Close()
		c.moved(late)
	}
	c.client.Close()
	<-c.drained
	c.linger()
	c.sock.nc.Close()
	c.in.release()
	c.tell(false)
	c.srv.forget(c)
}

const (
	lingerTime  = 250 * time.Millisecond
	lingerBytes = 4 << 20
)

// linger reads on for a moment after an error was sent. The system would discard the last words to
// the peer if a socket with unread input were closed.
func (c *conn) linger() {
	c.mu.Lock()
	reason := c.mu.reason
	c.mu.Unlock()
	if !reason.told() || c.sock.nc.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.sock.nc, lingerBytes)
}
