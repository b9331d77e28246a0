package process

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Network is what lies between the servers of a cluster: each reaches another one through a proxy, which
// knows who dials from the greeting. It does to connections what networks do: it delays bytes for as
// long as a way is cut, in one direction or in both, and delivers them when it is whole again, as a
// kernel that sends again would; and it resets them.
type Network struct {
	mu    sync.Mutex
	whole *sync.Cond
	cut   map[way]bool
	links map[*link]bool
	fed   []net.Listener
	rate  int // bytes a second over each connection; 0: no bound
	bad   map[way]Quality
	tear  map[way]bool // the next thing sent ends in its midst
	done  bool

	fronts []string // where each server is to be reached
	wg     sync.WaitGroup
}

// way is one direction between two servers.
type way struct{ from, to int }

// link is one connection, dialled by one server to another.
type link struct {
	from, to int
	near     net.Conn // to the server that dialled
	far      net.Conn // to the one that was dialled, nil at first
}

// newNetwork makes a network for so many servers.
func newNetwork(t testing.TB, servers int) *Network {
	t.Helper()
	n := &Network{cut: make(map[way]bool), links: make(map[*link]bool), bad: make(map[way]Quality), tear: make(map[way]bool)}
	n.whole = sync.NewCond(&n.mu)
	for range servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.fed = append(n.fed, l)
		n.fronts = append(n.fronts, l.Addr().String())
	}
	t.Cleanup(n.close)
	return n
}

// lead begins to carry connections to the servers.
func (n *Network) lead(routes []string) {
	for to, route := range routes {
		n.wg.Go(func() { n.accept(n.fed[to], to, route) })
	}
}

func (n *Network) close() {
	n.mu.Lock()
	n.done = true
	for _, l := range n.fed {
		l.Close()
	}
	for l := range n.links {
		l.reset()
	}
	n.whole.Broadcast()
	n.mu.Unlock()
	n.wg.Wait()
}

// Cut holds up everything that one server sends to another.
func (n *Network) Cut(from, to int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[way{from, to}] = true
}

// Part cuts both ways between two servers.
func (n *Network) Part(a, b int) {
	n.Cut(a, b)
	n.Cut(b, a)
}

// Linked tells whether two servers can talk to each other.
func (n *Network) Linked(a, b int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[way{a, b}] && !n.cut[way{b, a}]
}

// Isolate cuts all ways from and to a server of a cluster of so many.
func (n *Network) Isolate(server, servers int) {
	for other := range servers {
		if other != server {
			n.Part(server, other)
		}
	}
}

// Quality is what a way does to what is sent on it.
type Quality struct {
	Delay   time.Duration
	Rate    int     // bytes a second over each connection; 0: no bound
	Loss    float64 // share of what is sent that has to be sent again, and arrives so much later
	Swallow bool    // nothing arrives, and the connection stays
}

// retransmit is after how long a kernel sends again what was lost, at the least.
const retransmit = 200 * time.Millisecond

// Worsen gives the way from one server to another a quality, until Heal.
func (n *Network) Worsen(from, to int, q Quality) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bad[way{from, to}] = q
}

// Tear resets the connection on which one server sends something to another next, when half of that has arrived.
func (n *Network) Tear(from, to int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tear[way{from, to}] = true
}

// Heal makes all ways whole and good again. What was held up is delivered.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	clear(n.bad)
	clear(n.tear)
	n.whole.Broadcast()
}

// Slow bounds what each connection carries, in bytes a second; 0: no bound.
func (n *Network) Slow(rate int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rate = rate
}

// Reset ends the connections between two servers, as a firewall does that lost its memory.
func (n *Network) Reset(a, b int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		if l.from == a && l.to == b || l.from == b && l.to == a {
			l.reset()
		}
	}
}

func (l *link) reset() {
	for _, c := range []net.Conn{l.near, l.far} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
		}
	}
}

func (n *Network) accept(front net.Listener, to int, route string) {
	for {
		c, err := front.Accept()
		if err != nil {
			return
		}
		n.wg.Go(func() {
			if err := n.serve(c, to, route); err != nil {
				c.Close()
			}
		})
	}
}

// serve carries one connection.
func (n *Network) serve(near net.Conn, to int, route string) error {
	greeting, from, err := readGreeting(near)
	if err != nil {
		return err
	}
	l := &link{from: from, to: to, near: near}
	n.mu.Lock()
	if n.done {
		n.mu.Unlock()
		return net.ErrClosed
	}
	n.links[l] = true
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.links, l)
		n.mu.Unlock()
		near.Close()
	}()
	if !n.passable(from, to) {
		return net.ErrClosed
	}
	far, err := net.DialTimeout("tcp", route, time.Second)
	if err != nil {
		l.reset()
		return err
	}
	defer far.Close()
	n.mu.Lock()
	l.far = far
	n.mu.Unlock()
	if _, err := far.Write(greeting); err != nil {
		return err
	}
	var both sync.WaitGroup
	both.Go(func() { n.carry(l, far, near, way{from, to}) })
	both.Go(func() { n.carry(l, near, far, way{to, from}) })
	both.Wait()
	return nil
}

// carry copies what one server sends to the other one, when it may pass and as late as the way is long.
func (n *Network) carry(l *link, dst, src net.Conn, w way) {
	late := make(chan parcel, 256)
	var deliver sync.WaitGroup
	deliver.Go(func() {
		ok := true
		for p := range late {
			time.Sleep(time.Until(p.due))
			ok = ok && n.deliver(l, dst, p.bytes, w)
		}
		src.Close()
		dst.Close()
	})
	for {
		buf := make([]byte, 64<<10)
		k, err := src.Read(buf)
		if !n.passable(w.from, w.to) {
			break
		}
		if p, swallowed := n.post(buf[:k], w); !swallowed {
			late <- p
		}
		if err != nil {
			break
		}
	}
	close(late)
	deliver.Wait()
}

// parcel is bytes on their way.
type parcel struct {
	bytes []byte
	due   time.Time
}

// post tells when bytes are to arrive, or that they never do.
func (n *Network) post(bytes []byte, w way) (p parcel, swallowed bool) {
	n.mu.Lock()
	rate, q := n.rate, n.bad[w]
	n.mu.Unlock()
	if q.Rate > 0 {
		rate = q.Rate
	}
	if rate > 0 {
		time.Sleep(time.Duration(len(bytes)) * time.Second / time.Duration(rate))
	}
	due := time.Now().Add(q.Delay)
	if q.Loss > 0 && rand.Float64() < q.Loss {
		due = due.Add(retransmit)
	}
	return parcel{bytes, due}, q.Swallow
}

// deliver hands bytes over, and tells whether more can be.
func (n *Network) deliver(l *link, dst net.Conn, bytes []byte, w way) bool {
	n.mu.Lock()
	torn := n.tear[w] && len(bytes) > 1
	if torn {
		delete(n.tear, w)
	}
	n.mu.Unlock()
	if torn {
		_, _ = dst.Write(bytes[:len(bytes)/2])
		time.Sleep(10 * time.Millisecond) // So that they arrive before the reset.
		n.mu.Lock()
		l.reset()
		n.mu.Unlock()
		return false
	}
	_, err := dst.Write(bytes)
	if err != nil {
		l.near.Close()
		dst.Close()
	}
	return err == nil
}

// passable waits until the way is whole. It is false when the network is no more.
func (n *Network) passable(from, to int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.cut[way{from, to}] && !n.done {
		n.whole.Wait()
	}
	return !n.done
}

// readGreeting reads the first frame of a connection between servers, and tells which one dialled.
//
//	| length 4 | crc32c 4 | kind 1 | JSON |
func readGreeting(c net.Conn) (frame []byte, from int, err error) {
	frame = make([]byte, 8)
	if _, err = io.ReadFull(c, frame); err != nil {
		return nil, 0, err
	}
	size := binary.LittleEndian.Uint32(frame)
	if size < 1 || size > 1<<20 {
		return nil, 0, fmt.Errorf("process: a greeting of %d bytes", size)
	}
	frame = append(frame, make([]byte, size)...)
	if _, err = io.ReadFull(c, frame[8:]); err != nil {
		return nil, 0, err
	}
	var hello struct {
		Name string `json:"name"`
	}
	if err = json.Unmarshal(frame[9:], &hello); err != nil {
		return nil, 0, err
	}
	if _, err = fmt.Sscanf(strings.TrimPrefix(hello.Name, "n"), "%d", &from); err != nil {
		return nil, 0, fmt.Errorf("process: a greeting of %q: %w", hello.Name, err)
	}
	return frame, from, nil
}
