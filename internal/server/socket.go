package server

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cleatkv/cleat/internal/rawio"
)

const (
	readSmall = 16 << 10 // What a connection reads at once, usually.
	readLarge = 64 << 10 // And when it has just filled a small buffer.
)

var (
	smallReads = sync.Pool{New: func() any { b := make([]byte, readSmall); return &b }}
	largeReads = sync.Pool{New: func() any { b := make([]byte, readLarge); return &b }}
)

// input is the bytes read and not parsed yet. An idle connection holds no buffer: it goes back to
// the pool before the wait and another is taken when there is something to read.
type input struct {
	pooled *[]byte // The buffer in use if it came from a pool.
	buf    []byte
	n      int // Bytes of buf that are filled.
	large  bool
}

// space returns where to read to: at least one byte. Where want bytes in all are needed, the buffer
// grows to that, but only as it fills: the mere announcement of a large payload costs nothing.
func (in *input) space(want int) []byte {
	if in.buf == nil {
		pool := &smallReads
		if in.large {
			pool = &largeReads
		}
		in.pooled = pool.Get().(*[]byte)
		in.buf = *in.pooled
	}
	if want > len(in.buf) && in.n > len(in.buf)/2 || in.n == len(in.buf) {
		in.replace(min(max(want, in.n+1), 4*len(in.buf)))
	}
	return in.buf[in.n:]
}

// replace moves on to a bigger buffer, for an operation that does not fit.
func (in *input) replace(size int) {
	bigger := make([]byte, size)
	copy(bigger, in.buf[:in.n])
	n := in.n
	in.release()
	in.buf, in.n = bigger, n
}

// release gives the buffer back.
func (in *input) release() {
	if in.pooled != nil {
		if len(*in.pooled) == readLarge {
			largeReads.Put(in.pooled)
		} else {
			smallReads.Put(in.pooled)
		}
	}
	in.buf, in.pooled, in.n = nil, nil, 0
}

// consumed drops the first n bytes, keeping the rest for the next parse.
func (in *input) consumed(n int) {
	in.large = in.n == len(in.buf)
	if n == in.n {
		in.n = 0
		if in.pooled == nil || in.large && len(in.buf) == readSmall {
			in.release() // Made for one large operation, or too small for what comes.
		}
		return
	}
	if n > 0 {
		in.n = copy(in.buf, in.buf[n:in.n])
	}
}

// socket is the stream below a connection: the plain socket, and TLS above it if there is any.
type socket struct {
	nc  net.Conn
	raw syscall.RawConn // nil where sockets cannot be used directly.

	// TLS encrypts into sealed, from which it is written like plain output. So encrypted output
	// does not block either. It is set once, by the reader goroutine.
	tls    atomic.Pointer[tls.Conn]
	sealed sealed

	// The results of the raw calls; their closures are made once, not per call. Reading belongs to
	// the reader goroutine, writing to whoever the outbox of the client lets write.
	read struct {
		in   *input
		want int
		err  error
		fn   func(fd uintptr) bool
	}
	write struct {
		p   []byte
		n   int
		err error
		fn  func(fd uintptr) bool
	}
}

func newSocket(nc net.Conn) *socket {
	s := &socket{nc: nc}
	if sc, ok := nc.(syscall.Conn); ok && rawio.Supported {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.sealed.Conn = nc
	s.read.fn = s.tryRead
	s.write.fn = s.tryWrite
	return s
}

// fill reads something into the input, which shall have room for want bytes in all.
func (s *socket) fill(in *input, want int) error {
	secure := s.tls.Load()
	if secure != nil || s.raw == nil {
		from := s.nc
		if secure != nil {
			from = secure
		}
		n, err := from.Read(in.space(want))
		in.n += n
		if n > 0 {
			return nil
		}
		return err
	}
	s.read.in, s.read.want, s.read.err = in, want, nil
	if err := s.raw.Read(s.read.fn); err != nil {
		return err
	}
	return s.read.err
}

func (s *socket) tryRead(fd uintptr) (done bool) {
	in := s.read.in
	n, err := rawio.Read(fd, in.space(s.read.want))
	in.n += n
	s.read.err = err
	if n == 0 && err == nil {
		if in.n == 0 {
			in.release()
		}
		return false
	}
	return true
}

// offer writes what the socket takes at once, see broker.Conn.
func (s *socket) offer(p []byte) (n int, clear bool, err error) {
	if s.raw == nil {
		return 0, false, nil
	}
	secure := s.tls.Load()
	if secure == nil {
		n, err = s.writeRaw(p)
		return n, n == len(p), err
	}
	if n, err = secure.Write(p); err != nil {
		return n, false, err
	}
	clear, err = s.offerSealed()
	return n, clear, err
}

// offerSealed offers what TLS has encrypted.
func (s *socket) offerSealed() (clear bool, err error) {
	b := s.sealed.take()
	n, err := s.writeRaw(b)
	if err != nil {
		return false, err
	}
	return s.sealed.putBack(b, n), nil
}

func (s *socket) writeRaw(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.write.p, s.write.n, s.write.err = p, 0, nil
	err := s.raw.Write(s.write.fn)
	s.write.p = nil
	if err != nil {
		return 0, err
	}
	return s.write.n, s.write.err
}

func (s *socket) tryWrite(fd uintptr) (done bool) {
	s.write.n, s.write.err = rawio.Write(fd, s.write.p)
	return true
}

// writeAll writes everything, waiting for the socket up to the deadline.
func (s *socket) writeAll(p []byte, deadline time.Duration) error {
	if secure := s.tls.Load(); secure != nil {
		if len(p) > 0 {
			if _, err := secure.Write(p); err != nil {
				return err
			}
		}
		p = s.sealed.take()
		defer s.sealed.putBack(p, len(p))
	}
	if err := s.nc.SetWriteDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	if _, err := s.nc.Write(p); err != nil {
		return err
	}
	return s.nc.SetWriteDeadline(time.Time{}) // A passed deadline would fail every later offer.
}

// finish tells the peer that nothing follows, if it still can. Nothing else writes any more.
func (s *socket) finish() {
	if secure := s.tls.Load(); secure != nil {
		_ = secure.CloseWrite()
		_, _ = s.offerSealed()
	}
	if half, ok := s.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// sealed is the connection that TLS believes to write to. During the handshake it is the socket;
// afterwards it keeps what is written for the connection's own writing.
type sealed struct {
	net.Conn
	mu      sync.Mutex
	keeping bool
	buf     []byte // Encrypted and not taken yet.
	spare   []byte // A buffer to use next.
}

// sealedKept is the largest buffer that an idle TLS connection holds on to.
const sealedKept = 32 << 10

func (s *sealed) Write(p []byte) (int, error) {
	s.mu.Lock()
	if !s.keeping {
		s.mu.Unlock()
		return s.Conn.Write(p)
	}
	s.buf = append(s.buf, p...)
	s.mu.Unlock()
	return len(p), nil
}

func (s *sealed) keep() {
	s.mu.Lock()
	s.keeping = true
	s.mu.Unlock()
}

// take hands over what there is; putBack must follow.
func (s *sealed) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buf
	s.buf, s.spare = s.spare[:0], nil
	return b
}

// putBack returns what take gave, of which n bytes were written, and tells whether nothing waits.
func (s *sealed) putBack(b []byte, n int) (empty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == len(b) {
		if cap(b) <= sealedKept {
			s.spare = b[:0]
		}
		return len(s.buf) == 0
	}
	s.buf = append(b[n:], s.buf...) // What came meanwhile follows.
	return false
}
