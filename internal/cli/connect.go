package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"golang.org/x/net/proxy"
)

// Session is a connection and what a command needs to know about it.
type Session struct {
	Conn    *nats.Conn
	JS      jetstream.JetStream
	Context string // name of the context in use, "" if none
	URL     string // where it was asked to connect
	Colors  string // color scheme, "" if none
	Timeout time.Duration

	// denied is the last permission violation. The server reports it out of band, and the request it
	// concerns simply times out; Explain puts the two together.
	denied atomic.Pointer[error]
}

// Connect opens a connection as the options, the environment and the context say. A connection that is
// lost and found again is reported on log, and so are requests and answers if Options.Trace is set.
func (o *Options) Connect(ctx context.Context, log io.Writer) (*Session, error) {
	settings, name, err := o.resolve()
	if err != nil {
		return nil, err
	}
	s := &Session{
		Context: name,
		URL:     firstOf(settings.URL, nats.DefaultURL),
		Colors:  settings.ColorScheme,
		Timeout: o.Timeout,
	}
	opts, err := settings.natsOptions()
	if err != nil {
		return nil, err
	}
	dialer, err := newDialer(ctx, settings.SocksProxy, o.Timeout)
	if err != nil {
		return nil, err
	}
	opts = append(opts, nats.SetCustomDialer(dialer), nats.Name(o.ConnectionName), nats.Timeout(o.Timeout), nats.MaxReconnects(-1),
		nats.ErrorHandler(s.asyncError),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				fmt.Fprintf(log, "cleat: disconnected: %s, will reconnect\n", message(err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			fmt.Fprintf(log, "cleat: reconnected to %s\n", nc.ConnectedUrlRedacted())
		}))
	s.Conn, err = nats.Connect(s.URL, opts...)
	dialer.connected()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, connectError(err, s.URL, settings.URL != "")
	}
	if s.JS, err = newJetStream(s.Conn, settings, o, log); err != nil {
		s.Conn.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the connection. Nothing is pending: every command waits for its answers.
func (s *Session) Close() { s.Conn.Close() }

func (s *Session) asyncError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, nats.ErrAuthorization) {
		s.denied.Store(&err)
	}
}

// Explain replaces a time-out by the permission violation behind it, if there was one.
func (s *Session) Explain(err error) error {
	if denied := s.denied.Load(); denied != nil && ExitCode(err) == ExitUnavailable {
		return &Error{Code: ExitAuth, Err: *denied, Hints: []string{
			"connect as a user who may do this: --user, --creds, --nkey or --context"}}
	}
	return err
}

func connectError(err error, target string, asked bool) error {
	e := &Error{Code: ExitUnavailable, Err: fmt.Errorf("cannot connect to %s: %w", redactURL(target), err)}
	switch {
	case ExitCode(err) == ExitAuth:
		e.Code = ExitAuth
		e.Hints = []string{"say who you are: --user and --password, --token, --creds, --nkey or --context"}
	case errors.As(err, new(*tls.CertificateVerificationError)):
		e.Hints = []string{"name who vouches for the server: --tlsca FILE", "or reach it under a name that its certificate has"}
	case asked:
		e.Hints = []string{"is the server up, and is this its address?",
			"start one on this machine: cleat server"}
	default:
		e.Hints = []string{"start a server: cleat server", "name another: --server URL or --context NAME"}
	}
	return e
}

// redactURL hides passwords and tokens in a list of server URLs.
func redactURL(list string) string {
	parts := strings.Split(list, ",")
	for i, p := range parts {
		if u, err := url.Parse(strings.TrimSpace(p)); err == nil && u.User != nil {
			u.User = url.User("xxxxx")
			parts[i] = u.String()
		}
	}
	return strings.Join(parts, ",")
}

func newJetStream(nc *nats.Conn, s Settings, o *Options, log io.Writer) (jetstream.JetStream, error) {
	opts := []jetstream.JetStreamOpt{jetstream.WithDefaultTimeout(o.Timeout)}
	if o.Trace {
		opts = append(opts, jetstream.WithClientTrace(&jetstream.ClientTrace{
			RequestSent: func(subject string, payload []byte) {
				fmt.Fprintf(log, ">>> %s\n%s\n\n", subject, payload)
			},
			ResponseReceived: func(subject string, payload []byte, _ nats.Header) {
				fmt.Fprintf(log, "<<< %s: %s\n\n", subject, payload)
			},
		}))
	}
	switch {
	case s.JSDomain != "":
		return jetstream.NewWithDomain(nc, s.JSDomain, opts...)
	case s.JSAPIPrefix != "":
		return jetstream.NewWithAPIPrefix(nc, s.JSAPIPrefix, opts...)
	default:
		return jetstream.New(nc, opts...)
	}
}

func (s *Settings) natsOptions() ([]nats.Option, error) {
	if s.WindowsCertStore != "" {
		return nil, errors.New("the context uses the Windows certificate store, which is not supported: use cert, key and ca files")
	}
	opts, err := s.identity()
	if err != nil {
		return nil, err
	}
	files := []*string{&s.Cert, &s.Key, &s.CA}
	for _, p := range files {
		scheme, path := splitScheme(*p)
		if scheme != "" && scheme != "file" {
			return nil, fmt.Errorf("a TLS certificate or key must be a file, not %s", scheme)
		}
		*p = path
	}
	if s.Cert != "" && s.Key != "" {
		opts = append(opts, nats.ClientCert(s.Cert, s.Key))
	}
	if s.CA != "" {
		opts = append(opts, nats.RootCAs(s.CA))
	}
	if s.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if s.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(s.InboxPrefix))
	}
	return opts, nil
}

// identity is who we connect as: a user, credentials, an nkey or a JWT, in this order, and a token.
func (s *Settings) identity() ([]nats.Option, error) {
	var opts []nats.Option
	switch {
	case s.User != "":
		password, err := literal(s.Password)
		if err != nil {
			return nil, fmt.Errorf("password: %w", err)
		}
		opts = append(opts, nats.UserInfo(s.User, password))
	case s.Creds != "":
		data, err := secret(s.Creds)
		if err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
		opts = append(opts, nats.UserCredentialBytes(data))
	case s.NKey != "":
		opt, err := nkeyOption(s.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey: %w", err)
		}
		opts = append(opts, opt)
	case s.UserJWT != "":
		jwt, err := literal(s.UserJWT)
		if err != nil {
			return nil, fmt.Errorf("user JWT: %w", err)
		}
		seed, err := literal(s.UserSeed)
		if err != nil {
			return nil, fmt.Errorf("user seed: %w", err)
		}
		opts = append(opts, jwtOption(jwt, seed))
	}
	if s.Token != "" {
		token, err := literal(s.Token)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		opts = append(opts, nats.Token(token))
	}
	return opts, nil
}

func nkeyOption(ref string) (nats.Option, error) {
	data, err := secret(ref)
	if err != nil {
		return nil, err
	}
	pair, err := nkeys.ParseDecoratedNKey(data)
	if err != nil {
		return nil, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	return nats.Nkey(public, pair.Sign), nil
}

func jwtOption(jwt, seed string) nats.Option {
	if seed != "" {
		return nats.UserJWTAndSeed(jwt, seed)
	}
	// A bearer JWT needs no signature.
	return nats.UserJWT(func() (string, error) { return jwt, nil },
		func([]byte) ([]byte, error) { return nil, nil })
}

// dialer connects, through a proxy if there is one. Until it is told that the client is connected, the
// end of ctx closes what it dialled, so that an interrupt is not held up by a server that says nothing.
type dialer struct {
	ctx  context.Context
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu struct {
		sync.Mutex
		connected bool
		release   []func() bool // each unties a connection from ctx
	}
}

func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	conn, err := d.dial(d.ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mu.connected {
		d.mu.release = append(d.mu.release, context.AfterFunc(d.ctx, func() { conn.Close() }))
	}
	return conn, nil
}

func (d *dialer) connected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.connected = true
	for _, release := range d.mu.release {
		release()
	}
	d.mu.release = nil
}

func newDialer(ctx context.Context, socks string, timeout time.Duration) (*dialer, error) {
	direct := &net.Dialer{Timeout: timeout}
	if socks == "" {
		return &dialer{ctx: ctx, dial: direct.DialContext}, nil
	}
	u, err := url.Parse(socks)
	if err != nil {
		return nil, Usagef("invalid --socks-proxy %q: %v", socks, err)
	}
	p, err := proxy.FromURL(u, direct)
	if err != nil {
		return nil, Usagef("invalid --socks-proxy %q: %v", socks, err)
	}
	through, ok := p.(proxy.ContextDialer)
	if !ok {
		return nil, Usagef("--socks-proxy %q cannot be used", socks)
	}
	return &dialer{ctx: ctx, dial: through.DialContext}, nil
}
