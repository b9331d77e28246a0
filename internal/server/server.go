package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
)

// Server is the client front end of one broker.
type Server struct {
	broker *broker.Broker
	opts   atomic.Pointer[Options] // Replaced as a whole by Reload.
	start  time.Time
	lastID atomic.Uint64

	mu struct {
		sync.Mutex
		listener net.Listener
		conns    map[uint64]*conn
		closed   closedRing
		accounts map[string]*AccountTotals // of the connections that are gone
		ownURLs  []string
		peerURLs []string

		webSocketURLs []string
		lameDuck      bool
		stopped       bool
	}

	running sync.WaitGroup // All goroutines of the server.
	done    chan struct{}  // Closed when Shutdown begins.

	watch func(account string, open bool, describe func() ConnInfo) // Set before Start, or nil.

	total        atomic.Uint64 // Connections ever accepted.
	slow, stale  atomic.Int64
	gone         figures // What connections that are gone have moved.
	infoSequence atomic.Uint64
}

// ErrStopped tells that the server was shut down.
var ErrStopped = errors.New("server: shut down")

// New makes a server; Start opens it for clients.
func New(o Options, b *broker.Broker) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.ID == "" {
		o.ID = newID()
	}
	def(&o.Name, o.ID)
	s := &Server{broker: b, start: time.Now(), done: make(chan struct{})}
	s.opts.Store(&o)
	s.mu.conns = make(map[uint64]*conn)
	s.mu.accounts = make(map[string]*AccountTotals)
	s.mu.closed.limit = o.ClosedMax
	b.WatchAccounts(s.serveUserInfo)
	return s, nil
}

// newID makes up a server id of the form that clients and tools are used to.
func newID() string {
	var b [35]byte
	rand.Read(b[:])
	return "N" + base32.StdEncoding.EncodeToString(b[:])[:55]
}

// WatchConnections has fn called when a client has said who it is, and again when its connection has ended. It must be
// called before Start. fn runs on the connection's goroutine and must not block.
func (s *Server) WatchConnections(fn func(account string, open bool, describe func() ConnInfo)) {
	s.watch = fn
}

func (s *Server) options() *Options { return s.opts.Load() }

func (s *Server) log() *slog.Logger { return s.options().Logger }

// ID and Name identify the server to clients and to others of the cluster.
func (s *Server) ID() string   { return s.options().ID }
func (s *Server) Name() string { return s.options().Name }

// Broker is where the server's clients publish and subscribe.
func (s *Server) Broker() *broker.Broker { return s.broker }

// Start opens the listener, calls Ready and accepts connections until Shutdown.
func (s *Server) Start() error {
	o := s.options()
	port := max(o.Port, 0) // -1 asks for any port, which the system spells 0.
	l, err := net.Listen("tcp", net.JoinHostPort(o.Host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("server: listen for clients: %w", err)
	}
	s.mu.Lock()
	if s.mu.stopped {
		s.mu.Unlock()
		l.Close()
		return ErrStopped
	}
	s.mu.listener = l
	s.mu.ownURLs = reachable(o, l.Addr().(*net.TCPAddr))
	s.running.Add(1)
	s.mu.Unlock()
	o.Logger.Info("Listening for client connections on " + Shown(o.Host, l.Addr()))
	go s.accept(l)
	if o.Ready != nil {
		o.Ready(l.Addr())
	}
	return nil
}

// Shown is the address of a listener as whoever configured it wrote the host: all interfaces are
// 0.0.0.0, also where the system calls them [::].
func Shown(host string, a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	return net.JoinHostPort(cmp.Or(host, "0.0.0.0"), strconv.Itoa(t.Port))
}

// Addr is the address of the listener, nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.listener == nil {
		return nil
	}
	return s.mu.listener.Addr()
}

// address is what INFO says of the listener.
func (s *Server) address() (host string, port int) {
	o := s.options()
	host, port = o.Host, o.Port
	if host == "" {
		host = "0.0.0.0"
	}
	if a, ok := s.Addr().(*net.TCPAddr); ok {
		port = a.Port
	}
	if h, p, err := net.SplitHostPort(o.Advertise); err == nil {
		host = h
		port, _ = strconv.Atoi(p)
	} else if o.Advertise != "" {
		host = o.Advertise
	}
	return host, port
}

const (
	acceptPauseMin = 10 * time.Millisecond
	acceptPauseMax = time.Second
)

// accept takes connections until the listener is closed. Want of descriptors or memory is waited
// out.
func (s *Server) accept(l net.Listener) {
	defer s.running.Done()
	pause := acceptPauseMin
	for {
		nc, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.log().Error("Accept failed", "error", err)
			select {
			case <-s.done:
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		pause = acceptPauseMin
		s.Serve(nc, auth.Standard)
	}
}

// Serve runs a connection until it ends or the server is shut down; it does not block. kind is a
// connection type of auth: what speaks the protocol over something else than a socket may be
// accepted elsewhere and handed in here.
func (s *Server) Serve(nc net.Conn, kind string) {
	c := s.newConn(nc, kind)
	s.mu.Lock()
	if s.mu.stopped {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.mu.conns[c.id] = c
	s.running.Add(1)
	s.mu.Unlock()
	s.total.Add(1)
	s.log().Debug("Client connection created", "client", c.String())
	go func() {
		defer s.running.Done()
		c.serve()
	}()
}

// full tells whether the last connection is one too many.
func (s *Server) full() bool {
	limit := s.options().ConnectionsMax
	s.mu.Lock()
	defer s.mu.Unlock()
	return limit > 0 && len(s.mu.conns) > limit
}

// forget takes an ended connection off the register and remembers its figures.
func (s *Server) forget(c *conn) {
	final := c.figures()
	info := c.describe(false)
	s.mu.Lock()
	delete(s.mu.conns, c.id)
	s.mu.closed.add(info)
	s.settle(&info)
	s.mu.Unlock()
	s.gone.add(final)
	s.log().Debug("Client connection closed: "+info.Reason, "client", c.String())
}

// connections lists the open connections.
func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.mu.conns))
	for _, c := range s.mu.conns {
		list = append(list, c)
	}
	return list
}

// stop closes the listener and lets no connection in any more.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.listener != nil {
		s.mu.listener.Close()
	}
	if !s.mu.stopped {
		s.mu.stopped = true
		close(s.done)
	}
}

// Shutdown closes all connections, without an error line so that clients reconnect elsewhere, and
// waits until their goroutines have ended or ctx is done; then sockets are broken off. Where there is an elsewhere,
// what they had under way has a moment to be answered there.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	moving := false
	for _, c := range s.connections() {
		if c.leaving.Load() == nil {
			c.leave()
		}
		moving = moving || c.leaving.Load() != nil
	}
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		if moving {
			return sleep(ctx, leaveSettle)
		}
		return nil
	case <-ctx.Done():
	}
	for _, c := range s.connections() {
		c.sock.nc.Close()
	}
	<-ended
	return ctx.Err()
}

// lameDuckPause is enough between two clients: a few of them need not take as long as thousands may.
const lameDuckPause = time.Second

// LameDuck ends the service gently: no new connections, a notice to those who understand it, and
// after a grace period one connection after the other is closed. It returns when all are gone or
// ctx is done; Shutdown must follow.
func (s *Server) LameDuck(ctx context.Context) error {
	o := s.options()
	s.mu.Lock()
	already := s.mu.lameDuck
	s.mu.lameDuck = true
	if s.mu.listener != nil {
		s.mu.listener.Close()
	}
	s.mu.Unlock()
	if already {
		return nil
	}
	o.Logger.Info("Entering lame duck mode, stop accepting new clients")
	s.broadcastInfo()
	if err := sleep(ctx, o.LameDuckGrace); err != nil {
		return err
	}
	conns := s.connections()
	if len(conns) == 0 {
		return nil
	}
	// Spread the closings, so that the other servers are not overrun, and not evenly, so that
	// several servers in lame duck mode do not beat in time.
	each := min(max(o.LameDuckDuration-o.LameDuckGrace, 0)/time.Duration(len(conns)), lameDuckPause)
	mathrand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })
	for _, c := range conns {
		c.leave()
		if each > 0 {
			if err := sleep(ctx, each/2+mathrand.N(each)); err != nil {
				return err
			}
		}
	}
	for end := time.Now().Add(2 * leaveTimeout); len(s.connections()) > 0 && time.Now().Before(end); {
		if err := sleep(ctx, leaveLook); err != nil {
			return err
		}
	}
	if s.hasPeers() {
		return sleep(ctx, leaveSettle)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
