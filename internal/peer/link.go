package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cleatkv/cleat/internal/rawio"
)

// target is an address that we dial for as long as it is wanted. Which server answers there is
// learned from its greeting.
type target struct {
	address string
	cancel  context.CancelFunc
	server  atomic.Uint64            // who answered last, 0 if nobody did
	hurry   [laneCount]chan struct{} // ends the wait before the next try
}

// link is the set of outgoing connections to one server.
type link struct {
	server uint64
	lanes  [laneCount]*outbox
	mu     sync.Mutex
	alive  int // lanes that are connected
}

func (l *link) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alive == int(laneCount)
}

// Dial keeps connections to the address from now on. Calling it again for the same address changes
// nothing.
func (t *Transport) Dial(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.targets[address] != nil || t.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(t.ctx)
	tg := &target{address: address, cancel: cancel}
	for lane := range tg.hurry {
		tg.hurry[lane] = make(chan struct{}, 1)
	}
	t.mu.targets[address] = tg
	for lane := range laneCount {
		t.wg.Go(func() { t.keep(ctx, tg, lane) })
	}
}

// Targets tells for each address that is dialled which server answered there last, 0 for none. This
// server's own id stands behind addresses that lead back to it.
func (t *Transport) Targets() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]uint64, len(t.mu.targets))
	for address, tg := range t.mu.targets { // order: a map again
		all[address] = tg.server.Load()
	}
	return all
}

// Forget ends the connections to the address.
func (t *Transport) Forget(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tg := t.mu.targets[address]; tg != nil {
		tg.cancel()
		delete(t.mu.targets, address)
	}
}

// keep connects one lane to one address again and again.
func (t *Transport) keep(ctx context.Context, tg *target, lane Lane) {
	wait := redialMin
	for ctx.Err() == nil {
		began := time.Now()
		err := t.connect(ctx, tg, lane)
		if errors.Is(err, errSelf) {
			tg.server.Store(t.opts.Server)
			return
		}
		if id := tg.server.Load(); id != 0 && lane == LaneRaft && errors.Is(err, syscall.ECONNREFUSED) {
			t.handler.Down(id, true)
		}
		if time.Since(began) > redialMax {
			wait = redialMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, redialMax)
		case <-tg.hurry[lane]:
			wait = redialMin
		}
	}
}

// greeted is told that a server has connected to this one: it is there, so whoever waits before he tries it
// again need not. Until this one is connected too it can not answer.
func (t *Transport) greeted(server uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tg := range t.mu.targets { // order: each is told alone
		if id := tg.server.Load(); id != 0 && id != server {
			continue
		}
		for _, hurry := range tg.hurry {
			select {
			case hurry <- struct{}{}:
			default:
			}
		}
	}
}

// connect makes one connection and drives it until it ends.
func (t *Transport) connect(ctx context.Context, tg *target, lane Lane) error {
	conn, err := t.opts.Dial(ctx, tg.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw := conn // What is around it below is made while somebody else may close it.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	if plain := rawio.Wrap(conn); plain != nil {
		conn = plain
	}
	if t.opts.TLS != nil {
		cfg := t.opts.TLS.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(tg.address)
		}
		conn = tls.Client(conn, cfg)
	}
	conn.SetDeadline(time.Now().Add(helloTimeout))
	if err := writeHello(conn, t.hello(lane)); err != nil {
		return err
	}
	r := newReader(conn)
	h, err := r.hello()
	if err != nil {
		return err
	}
	if h.Server == t.opts.Server {
		return errSelf
	}
	if h.Refused != "" {
		t.warn(fmt.Sprintf("server %q at %s refused this server: %s", h.Name, tg.address, h.Refused))
		t.handler.Refused(h)
		return errors.New(h.Refused)
	}
	if h.Lane != lane || h.Cluster != t.opts.Cluster {
		return fmt.Errorf("%s answered as cluster %q", tg.address, h.Cluster)
	}
	if lane == LaneRaft {
		if err := t.handler.Greet(h); err != nil {
			return err
		}
	}
	tg.server.Store(h.Server)
	l := t.linkTo(h.Server)
	return t.drive(ctx, conn, r, l, lane)
}

func (t *Transport) linkTo(server uint64) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.mu.links[server]
	if l == nil {
		l = &link{server: server}
		for i := range l.lanes {
			l.lanes[i] = newOutbox(laneBytesMax[i])
		}
		t.mu.links[server] = l
	}
	return l
}

// drive writes what waits in the lane's outbox, and pings, until the connection fails. The peer
// answers pings on the same connection: one that is silent for long is as good as gone.
func (t *Transport) drive(ctx context.Context, conn net.Conn, r *reader, l *link, lane Lane) error {
	o := l.lanes[lane]
	conn.SetDeadline(time.Time{}) // That of the greeting.
	if !t.claim(conn, l, o) {
		// Two addresses lead to the same server: one connection is enough while it lives.
		select {
		case <-ctx.Done():
		case <-time.After(redialMax):
		}
		return errors.New("connected already")
	}
	defer t.release(l, o)
	silent := make(chan error, 1)
	t.wg.Go(func() {
		for {
			conn.SetReadDeadline(time.Now().Add(silenceMax))
			if _, _, err := r.frame(); err != nil {
				silent <- err
				return
			}
		}
	})
	defer conn.Close()
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-silent:
			return err
		case <-ping.C:
			_ = o.append(kindPing, func(b []byte) []byte { return b })
		case <-o.wake:
			// Whoever is about to send more, does so first.
			runtime.Gosched()
		}
		if err := o.write(conn); err != nil {
			return err
		}
	}
}

// claim makes the outbox take frames for this connection, unless another one has it.
func (t *Transport) claim(conn net.Conn, l *link, o *outbox) bool {
	if !o.begin(conn) {
		return false
	}
	l.mu.Lock()
	l.alive++
	up := l.alive == int(laneCount)
	l.mu.Unlock()
	if up {
		t.handler.Up(l.server)
	}
	return true
}

func (t *Transport) release(l *link, o *outbox) {
	o.end()
	l.mu.Lock()
	was := l.alive == int(laneCount)
	l.alive--
	l.mu.Unlock()
	if was && t.ctx.Err() == nil {
		t.handler.Down(l.server, false)
	}
}

// reader reads frames from a connection.
type reader struct{ r *bufio.Reader }

func newReader(conn net.Conn) *reader { return &reader{bufio.NewReaderSize(conn, 64<<10)} }

func (r *reader) frame() (Kind, []byte, error) { return readFrame(r.r) }

// ready tells whether the next frame is here already, so that reading it does not wait.
func (r *reader) ready() bool {
	n := r.r.Buffered()
	if n < frameHeader {
		return false
	}
	h, err := r.r.Peek(frameHeader)
	return err == nil && uint64(n) >= frameHeader+uint64(binary.LittleEndian.Uint32(h))
}

func (r *reader) hello() (h Hello, err error) {
	kind, payload, err := r.frame()
	if err != nil {
		return h, err
	}
	if kind != kindHello || len(payload) > helloBytesMax {
		return h, errors.New("the first frame is no greeting")
	}
	return h, json.Unmarshal(payload, &h)
}

func writeHello(conn net.Conn, h Hello) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = conn.Write(appendFrame(nil, kindHello, func(dst []byte) []byte { return append(dst, b...) }))
	return err
}
