// Package rawio reads and writes non-blocking sockets without telling the Go scheduler.
//
// A system call of package syscall announces itself to the scheduler, which watches it in case that
// it blocks. That costs more than a small read or write of a socket itself: each announcement after a
// moment of rest wakes the thread that watches, and that thread then looks around every 20 us. Calls
// on non-blocking descriptors never block, so nobody has to watch. Read and Write are for such
// descriptors only; waiting for a socket stays with package net.
package rawio

import (
	"net"
	"syscall"
)

// Conn is a connection whose reads, and tries to write, go past the scheduler. Reading and writing
// may each be done by one goroutine at a time.
type Conn struct {
	net.Conn
	raw syscall.RawConn

	// Arguments and results of the raw calls, whose closures are made once.
	read, write struct {
		p   []byte
		n   int
		err error
		fn  func(fd uintptr) bool
	}
}

// Wrap returns nil if the connection is not a plain socket, or the system does not allow it.
func Wrap(nc net.Conn) *Conn {
	sc, ok := nc.(syscall.Conn)
	if !ok || !Supported {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	c := &Conn{Conn: nc, raw: raw}
	c.read.fn = func(fd uintptr) bool {
		c.read.n, c.read.err = Read(fd, c.read.p)
		return c.read.n > 0 || c.read.err != nil
	}
	c.write.fn = func(fd uintptr) bool {
		c.write.n, c.write.err = Write(fd, c.write.p)
		return true
	}
	return c
}

// Read waits for data, up to the deadline, and reads some.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.read.p = p
	err := c.raw.Read(c.read.fn)
	c.read.p = nil
	if err != nil {
		return 0, err
	}
	return c.read.n, c.read.err
}

// TryWrite writes what the socket takes at once, which may be nothing. A write deadline that has
// passed makes it fail.
func (c *Conn) TryWrite(p []byte) (int, error) {
	c.write.p = p
	err := c.raw.Write(c.write.fn)
	c.write.p = nil
	if err != nil {
		return 0, err
	}
	return c.write.n, c.write.err
}
