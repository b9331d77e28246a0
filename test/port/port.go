// Package port gives tests TCP ports on loopback for servers that are started later, or stopped and started again.
//
// What the kernel picks for port 0 is no such port: while nobody listens there it picks it for somebody else too, for a
// test of another package or for the near end of a connection, and the server does not start. So these ports are not
// among those that the kernel picks from, and each is held for as long as the process lives: by a socket of the same
// number for UDP, which no server here uses and all tests look at.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The range is below that of Linux, which begins at 32768, and clear of the ports that programs are known for.
const (
	first = 10240
	last  = 19999
	tries = 2000
)

// held are the sockets that keep ports for this process.
var held struct {
	sync.Mutex
	all []net.PacketConn
}

// Take gives a port that is this process's from now on.
func Take() (int, error) {
	for range tries {
		if p := first + rand.IntN(last-first+1); reserve(p) {
			return p, nil
		}
	}
	return 0, errors.New("port: none is free from " + strconv.Itoa(first) + " to " + strconv.Itoa(last))
}

// Address is Take as a host and port.
func Address() (string, error) {
	p, err := Take()
	return address(p), err
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// reserve takes one port, unless somebody has it.
func reserve(port int) bool {
	c, err := net.ListenPacket("udp", address(port))
	if err != nil {
		return false
	}
	l, err := net.Listen("tcp", address(port))
	if err != nil {
		_ = c.Close() // It was never used.
		return false
	}
	l.Close()
	held.Lock()
	defer held.Unlock()
	held.all = append(held.all, c)
	return true
}
