package peer

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/rawio"
)

// Lane keeps traffic of different kinds on connections of their own, so that a snapshot does not
// stand in the way of a heartbeat.
type Lane uint8

// The lanes between two servers.
const (
	LaneRaft     Lane = iota // Raft messages; dropped when the queue is full
	LaneRequests             // forwarded requests, their answers, routed messages
	LaneBulk                 // snapshots
	laneCount
)

// How much may wait on one lane to one peer before more is refused, in bytes.
var laneBytesMax = [laneCount]int{32 << 20, 64 << 20, 8 << 20}

// ErrFull is returned by Send when too much waits already, and ErrUnreachable when there is no
// connection. Both are definite: nothing was sent.
var (
	ErrFull        = errors.New("peer: too much is waiting to be sent")
	ErrUnreachable = errors.New("peer: server cannot be reached")
)

// Timers of connections.
const (
	dialTimeout    = 2 * time.Second
	redialMin      = 50 * time.Millisecond
	redialMax      = 2 * time.Second
	helloTimeout   = 5 * time.Second
	pingEvery      = time.Second
	silenceMax     = 5 * time.Second
	writeTimeout   = 10 * time.Second
	kindHello      = Kind(1)
	kindPing       = Kind(2)
	kindPong       = Kind(3)
	KindFirst      = Kind(16) // the first kind that is the handler's
	helloBytesMax  = 64 << 10
	protocolNumber = 1
)

// Hello is what two servers tell each other first. A server that does not fit is refused with a
// reason that both sides log.
type Hello struct {
	Protocol int             `json:"protocol"`
	Cluster  string          `json:"cluster"` // name in the configuration
	Server   uint64          `json:"server"`  // id
	Name     string          `json:"name"`
	Lane     Lane            `json:"lane"`
	User     string          `json:"user,omitempty"`
	Password string          `json:"password,omitempty"`
	Refused  string          `json:"refused,omitempty"` // in the answer: why not
	Extra    json.RawMessage `json:"extra,omitempty"`   // the handler's
}

// Handler is told what arrives. Its methods are called by the goroutine that reads the connection,
// so a slow one holds up its lane.
type Handler interface {
	// Hello gives the handler's own part of a greeting to a server.
	Hello() json.RawMessage
	// Greet judges a server that greets; an error refuses it.
	Greet(from Hello) error
	// Refused is told of a server that refused this one, and says who it is.
	Refused(by Hello)
	// Frame handles one frame; the payload is its to keep. An error ends the connection.
	Frame(from uint64, kind Kind, payload []byte) error
	// TurnEnd comes once all frames that have come in were handled: what was gathered over
	// several of them can be sent.
	TurnEnd()
	// Up and Down tell that a server became reachable, and that it is certainly or probably
	// not any more: refused says that its host answered that nobody listens there.
	Up(server uint64)
	Down(server uint64, refused bool)
}

// Options say who this server is to its peers.
type Options struct {
	Cluster        string
	Server         uint64
	Name           string
	Listen         string // host:port
	User, Password string
	TLS            *tls.Config // nil: plain; else both sides present certificates
	Logger         *slog.Logger
	Dial           func(ctx context.Context, address string) (net.Conn, error) // nil: TCP
}

// Transport owns the connections of this server to its peers: one outgoing connection for each lane
// to each peer, and whatever peers open to us.
type Transport struct {
	opts    Options
	handler Handler
	ln      net.Listener

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		links   map[uint64]*link    // by server id
		targets map[string]*target  // by address, the addresses we dial
		inbound map[net.Conn]uint64 // of accepted connections
		warned  map[string]time.Time
	}
}

// Listen opens the transport's listener. Nobody is accepted before Accept.
func Listen(o Options, h Handler) (*Transport, error) {
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
		}
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for other servers on %s: %w", o.Listen, err)
	}
	t := &Transport{opts: o, handler: h, ln: ln}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.mu.links = make(map[uint64]*link)
	t.mu.targets = make(map[string]*target)
	t.mu.inbound = make(map[net.Conn]uint64)
	t.mu.warned = make(map[string]time.Time)
	return t, nil
}

// Accept begins to take connections. From then on the handler is called.
func (t *Transport) Accept() { t.wg.Go(t.accept) }

// Addr is where the transport listens.
func (t *Transport) Addr() net.Addr { return t.ln.Addr() }

// Close ends all connections and waits for their goroutines.
func (t *Transport) Close() error {
	t.cancel()
	err := t.ln.Close()
	t.mu.Lock()
	for c := range t.mu.inbound { // order: all are closed
		c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
	return err
}

// Send queues one frame to a server and has it written soon. build appends the payload; it is called
// before Send returns.
func (t *Transport) Send(server uint64, lane Lane, kind Kind, build func([]byte) []byte) error {
	o := t.outbox(server, lane)
	if o == nil {
		return ErrUnreachable
	}
	err := o.append(kind, build)
	o.signal()
	return err
}

// Queue is Send, but the frame waits for Flush, which must follow: for those who send several frames
// at once, and would otherwise wake a goroutine for what they can write themselves.
func (t *Transport) Queue(server uint64, lane Lane, kind Kind, build func([]byte) []byte) error {
	o := t.outbox(server, lane)
	if o == nil {
		return ErrUnreachable
	}
	return o.append(kind, build)
}

// Flush writes what is queued, without blocking.
func (t *Transport) Flush(server uint64, lane Lane) {
	if o := t.outbox(server, lane); o != nil {
		o.flush()
	}
}

func (t *Transport) outbox(server uint64, lane Lane) *outbox {
	t.mu.Lock()
	l := t.mu.links[server]
	t.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.lanes[lane]
}

// Reachable tells whether there is a connection to the server on every lane.
func (t *Transport) Reachable(server uint64) bool {
	t.mu.Lock()
	l := t.mu.links[server]
	t.mu.Unlock()
	return l != nil && l.up()
}

// accept takes connections from peers.
func (t *Transport) accept() {
	for {
		conn, err := t.ln.Accept()
		if err != nil {
			if t.ctx.Err() != nil {
				return
			}
			t.opts.Logger.Error("accept a connection from another server: " + err.Error())
			select {
			case <-t.ctx.Done():
				return
			case <-time.After(redialMin):
			}
			continue
		}
		t.mu.Lock()
		t.mu.inbound[conn] = 0
		t.mu.Unlock()
		t.wg.Go(func() {
			t.serve(conn)
			conn.Close()
			t.mu.Lock()
			delete(t.mu.inbound, conn)
			t.mu.Unlock()
		})
	}
}

// serve reads what a peer sends on a connection that it opened. We answer only greetings and pings.
func (t *Transport) serve(raw net.Conn) {
	conn := raw
	if plain := rawio.Wrap(raw); plain != nil {
		conn = plain
	}
	if t.opts.TLS != nil {
		conn = tls.Server(conn, t.opts.TLS)
	}
	c := newReader(conn)
	conn.SetDeadline(time.Now().Add(helloTimeout))
	from, err := c.hello()
	if err != nil {
		if t.ctx.Err() == nil {
			t.opts.Logger.Debug(fmt.Sprintf("no greeting from %s: %v", raw.RemoteAddr(), err))
		}
		return
	}
	reason := t.judge(from)
	answer := t.hello(from.Lane)
	answer.Password = ""
	if reason != nil {
		answer.Refused = reason.Error()
		if !errors.Is(reason, errSelf) {
			t.warn(fmt.Sprintf("refused server %q: %v", from.Name, reason))
		}
	}
	if err := writeHello(conn, answer); err != nil || reason != nil {
		return
	}
	t.mu.Lock()
	t.mu.inbound[raw] = from.Server
	t.mu.Unlock()
	t.greeted(from.Server)
	defer t.handler.TurnEnd()
	for t.ctx.Err() == nil {
		conn.SetDeadline(time.Now().Add(silenceMax))
		kind, payload, err := c.frame()
		if err != nil {
			return
		}
		switch {
		case kind == kindPing:
			if _, err := conn.Write(appendFrame(nil, kindPong, func(b []byte) []byte { return b })); err != nil {
				return
			}
		case kind >= KindFirst:
			if err := t.handler.Frame(from.Server, kind, payload); err != nil {
				t.opts.Logger.Error(fmt.Sprintf("connection from server %q ended: %v", from.Name, err))
				return
			}
		}
		if !c.ready() {
			t.handler.TurnEnd()
		}
	}
}

// warn logs a line, the same one at most once a minute: who is refused comes again soon.
func (t *Transport) warn(line string) {
	now := time.Now()
	t.mu.Lock()
	due := now.Sub(t.mu.warned[line]) > time.Minute
	if due {
		for old, at := range t.mu.warned { // order: each is judged alone
			if now.Sub(at) > time.Minute {
				delete(t.mu.warned, old)
			}
		}
		t.mu.warned[line] = now
	}
	t.mu.Unlock()
	if due {
		t.opts.Logger.Warn(line)
	}
}

// judge refuses servers that have no business here.
func (t *Transport) judge(h Hello) error {
	switch {
	case h.Protocol != protocolNumber:
		return fmt.Errorf("it speaks version %d between servers, this server %d", h.Protocol, protocolNumber)
	case h.Cluster != t.opts.Cluster:
		return fmt.Errorf("it belongs to cluster %q, this server to %q", h.Cluster, t.opts.Cluster)
	case subtle.ConstantTimeCompare([]byte(h.User), []byte(t.opts.User)) != 1,
		subtle.ConstantTimeCompare([]byte(h.Password), []byte(t.opts.Password)) != 1:
		return errors.New("its route credentials are wrong")
	case h.Lane >= laneCount:
		return errors.New("unknown lane")
	case h.Server == t.opts.Server:
		return errSelf
	}
	return t.handler.Greet(h)
}

// errSelf refuses a connection to oneself; the route list of a server usually names it too.
var errSelf = errors.New("it is this server itself")

func (t *Transport) hello(lane Lane) Hello {
	return Hello{
		Protocol: protocolNumber, Cluster: t.opts.Cluster, Server: t.opts.Server, Name: t.opts.Name, Lane: lane,
		User: t.opts.User, Password: t.opts.Password, Extra: t.handler.Hello(),
	}
}
