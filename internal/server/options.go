package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
)

// Defaults of the Options that are zero.
const (
	DefaultPort          = 4222
	controlLineDefault   = 4096
	payloadDefault       = 1 << 20
	pendingDefault       = 64 << 20
	connectionsDefault   = 64 << 10
	writeDeadlineDefault = 10 * time.Second
	pingIntervalDefault  = 2 * time.Minute
	pingMaxDefault       = 2
	authTimeoutDefault   = 2 * time.Second
	tlsTimeoutDefault    = 2 * time.Second
	lameDuckDefault      = 2 * time.Minute
	lameDuckGraceDefault = 10 * time.Second
	closedMaxDefault     = 10_000
)

// Options are what the front end needs to know. Zero values mean the defaults above.
type Options struct {
	ID        string // Unique per start; made up if empty.
	Name      string // The ID if empty.
	Version   string
	GitCommit string
	Host      string // Empty: all interfaces.
	Port      int    // -1: any free one. 0: the default.
	Advertise string // host:port to tell clients in place of the listener's own.

	JetStream bool
	APILevel  int
	Domain    string
	Cluster   string // Name of the cluster; empty if there is none.
	Tags      []string
	Metadata  map[string]string

	// NoAdvertise keeps the addresses of the cluster's servers from clients.
	NoAdvertise bool

	Auth        *auth.Authenticator // nil: nobody needs to authenticate.
	AuthTimeout time.Duration
	TLS         *TLS // nil: plain connections only.

	ConnectionsMax   int // Negative: no bound.
	SubscriptionsMax int // Of one connection; 0: no bound.
	TokensMax        int // Of a subscription's subject; 0: no bound.
	ControlLineMax   int
	PayloadMax       int
	PendingMax       int // Bytes that may wait for one client.
	WriteDeadline    time.Duration
	PingInterval     time.Duration
	PingMax          int
	NoHeaders        bool
	ClosedMax        int // How many closed connections are remembered for monitoring.

	LameDuckDuration time.Duration
	LameDuckGrace    time.Duration

	Logger *slog.Logger // nil: slog.Default.

	// Ready is called once clients can connect, with the address of the listener.
	Ready func(addr net.Addr)
}

// TLS says how connections are encrypted.
type TLS struct {
	Config     *tls.Config
	Timeout    time.Duration // For the handshake.
	AllowPlain bool          // Plain connections are welcome too.

	// HandshakeFirst expects the handshake before INFO. With a Fallback above zero, INFO is sent in
	// plain text to a client that has sent nothing for that long.
	HandshakeFirst bool
	Fallback       time.Duration

	// Pinned, if not empty, are the only acceptable client certificates: hexadecimal SHA-256 sums
	// of their subject public key info.
	Pinned map[string]bool
}

// verify tells whether clients must show a certificate.
func (t *TLS) verify() bool {
	return t != nil && t.Config.ClientAuth >= tls.RequireAnyClientCert
}

var errNoTLSConfig = errors.New("server: TLS without a configuration")

// withDefaults checks the options and fills in what is zero.
func (o Options) withDefaults() (Options, error) {
	def(&o.Port, DefaultPort)
	def(&o.AuthTimeout, authTimeoutDefault)
	def(&o.ConnectionsMax, connectionsDefault)
	def(&o.ControlLineMax, controlLineDefault)
	def(&o.PayloadMax, payloadDefault)
	def(&o.PendingMax, pendingDefault)
	def(&o.WriteDeadline, writeDeadlineDefault)
	def(&o.PingInterval, pingIntervalDefault)
	def(&o.PingMax, pingMaxDefault)
	def(&o.ClosedMax, closedMaxDefault)
	def(&o.LameDuckDuration, lameDuckDefault)
	def(&o.LameDuckGrace, lameDuckGraceDefault)
	def(&o.Version, "0.0.0")
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Auth == nil {
		a, err := auth.New(auth.Options{})
		if err != nil {
			return o, err
		}
		o.Auth = a
	}
	if o.TLS != nil {
		t := *o.TLS
		if t.Config == nil {
			return o, errNoTLSConfig
		}
		def(&t.Timeout, tlsTimeoutDefault)
		o.TLS = &t
	}
	if o.PayloadMax > o.PendingMax {
		return o, fmt.Errorf("server: max_payload (%d) cannot be higher than max_pending (%d)", o.PayloadMax, o.PendingMax)
	}
	return o, nil
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}
