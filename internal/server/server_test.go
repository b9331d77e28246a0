package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/wire"
)

// start runs a server on a free port of the loopback interface for the length of the test.
func start(t testing.TB, o Options) *Server {
	t.Helper()
	o.Host, o.Port = "127.0.0.1", -1
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := New(o, broker.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return s
}

func users(t testing.TB, o auth.Options) *auth.Authenticator {
	t.Helper()
	a, err := auth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// peer is a client that speaks bytes.
type peer struct {
	t    testing.TB
	nc   net.Conn
	r    *bufio.Reader
	info wire.Info
}

// dial connects and reads INFO.
func dial(t testing.TB, s *Server) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	p := &peer{t: t, nc: nc, r: bufio.NewReader(nc)}
	p.info = p.readInfo()
	return p
}

func (p *peer) line() string {
	p.t.Helper()
	l, err := p.r.ReadString('\n')
	if err != nil {
		p.t.Fatalf("after %q: %v", l, err)
	}
	return strings.TrimRight(l, "\r\n")
}

func (p *peer) readInfo() (info wire.Info) {
	p.t.Helper()
	l := p.line()
	text, ok := strings.CutPrefix(l, "INFO ")
	if !ok {
		p.t.Fatalf("%q, want INFO", l)
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		p.t.Fatal(err)
	}
	return info
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.nc, text); err != nil {
		p.t.Fatal(err)
	}
}

// until reads up to the PONG that answers a PING sent now, and returns what came before it, with
// "|" for each line end.
func (p *peer) until() string {
	p.t.Helper()
	p.send("PING\r\n")
	var b strings.Builder
	for {
		l := p.line()
		if l == "PONG" {
			return b.String()
		}
		b.WriteString(l + "|")
	}
}

// rest reads until the server closes.
func (p *peer) rest() string {
	p.t.Helper()
	b, err := io.ReadAll(p.r)
	if err != nil {
		p.t.Fatalf("after %q: %v", b, err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "|")
}

const quiet = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n"

func TestInfo(t *testing.T) {
	s := start(t, Options{Name: "n1", Version: "2.12.0", JetStream: true, APILevel: 2})
	p := dial(t, s)
	i := p.info
	if i.ServerName != "n1" || i.Version != "2.12.0" || i.Proto != 1 || !i.Headers || !i.JetStream ||
		i.MaxPayload != 1<<20 || i.ClientID == 0 || i.ClientIP != "127.0.0.1" || i.APILevel != 2 ||
		i.AuthRequired || i.Nonce != "" || len(i.ServerID) != 56 || i.Port != s.Addr().(*net.TCPAddr).Port {
		t.Errorf("%+v", i)
	}
}

// Each input ends the connection, with the error line or without any.
func TestFatalInput(t *testing.T) {
	s := start(t, Options{})
	const (
		unknown = "-ERR 'Unknown Protocol Operation'|"
		line    = "-ERR 'maximum control line exceeded'|"
		payload = "-ERR 'Maximum Payload Violation'|"
	)
	long := strings.Repeat("a", 5000)
	for _, tc := range []struct{ input, want string }{
		{"FOO\r\n", unknown},
		{"F", unknown},
		{"\r\n", unknown},
		{"PUB a 1\r\nxyz", unknown},
		{"PUB\r\n", unknown},
		{"PUB \r\n", ""},
		{"PUB a\r\n", ""},
		{"PUB a b c 1\r\nx\r\n", ""},
		{"PUB a x\r\n", ""},
		{"PUB a -1\r\n", ""},
		{"PUB a 0000000001\r\n", ""},
		{"HPUB a 3 2\r\n", ""},
		{"CONNECT {\"headers\":false,\"no_responders\":false}\r\nHPUB a 0 0\r\n\r\n", ""},
		{"SUB a\r\n", ""},
		{"UNSUB \r\n", ""},
		{"SUB " + long + " 1\r\n", line},
		{"SUB " + long, line},
		{"PUB a 1048577\r\n", payload},
		{"PUB a 1048577\r\n" + long, payload},
		{"CONNECT {\r\n", ""},
		{"CONNECT\r\n", ""},
		{"CONNECT {\"verbose\":\"x\"}\r\n", ""},
		{"CONNECT {\"protocol\":2}\r\n", "-ERR 'invalid client protocol'|"},
		{"CONNECT {\"headers\":false,\"no_responders\":true}\r\n", "-ERR 'no responders requires headers support'|"},
		{"CONNECT {\"account\":\"x\"}\r\n", "-ERR 'Authorization Violation'|"},
	} {
		p := dial(t, s)
		p.send(quiet + tc.input)
		if got := p.rest(); got != tc.want {
			t.Errorf("%.40q: got %q, want %q", tc.input, got, tc.want)
		}
	}
}

// Each input leaves the connection open.
func TestInputAndAnswer(t *testing.T) {
	s := start(t, Options{})
	verbose := "CONNECT {\"verbose\":true,\"pedantic\":true,\"headers\":true}\r\n"
	for _, tc := range []struct{ name, connect, input, want string }{
		{"subjects that cannot be", quiet, "SUB a..b 1\r\nSUB .a 1\r\nSUB a.>.b 1\r\n",
			"-ERR 'Invalid Subject'|-ERR 'Invalid Subject'|-ERR 'Invalid Subject'|"},
		{"a sid twice", quiet, "SUB a 1\r\nSUB b 1\r\nPUB b 0\r\n\r\nPUB a 0\r\n\r\n", "MSG a 1 0||"},
		{"an unknown sid", quiet, "UNSUB 9\r\n", ""},
		{"wildcards published", quiet, "SUB a.* 1\r\nPUB a.* 1\r\nx\r\nPUB a..b 1\r\nx\r\n", "MSG a.* 1 1|x|"},
		{"words that are no wildcards", quiet, "SUB foo* 1\r\nSUB f> 2\r\nPUB foobar 0\r\n\r\nPUB foo* 0\r\n\r\nPUB f> 0\r\n\r\n",
			"MSG foo* 1 0||MSG f> 2 0||"},
		{"replies of the server's own", quiet, "SUB a 1\r\nPUB a _R_.x 1\r\nx\r\nPUB a $GR.x 1\r\nx\r\nPUB a _GR_.x 1\r\nx\r\n",
			`-ERR 'Permissions Violation for Publish with Reply of "_R_.x"'|` +
				`-ERR 'Permissions Violation for Publish with Reply of "$GR.x"'|` +
				`-ERR 'Permissions Violation for Publish with Reply of "_GR_.x"'|`},
		{"empty header", quiet, "SUB a 1\r\nHPUB a 0 1\r\nx\r\n", "MSG a 1 1|x|"},
		{"header", quiet, "SUB a 1\r\nHPUB a r 12 13\r\nNATS/1.0\r\n\r\nx\r\n", "HMSG a 1 r 12 13|NATS/1.0||x|"},
		{"words that have no effect", quiet, "INFO {}\r\n+OK\r\n-ERR 'x'\r\nPONG\r\n", ""},
		{"tabs and lower case", quiet, "sub\ta\t \t1\r\npub\ta  1\nx\r\n", "MSG a 1 1|x|"},
		{"end after two", quiet, "SUB a 1\r\nPUB a 0\r\n\r\nUNSUB 1 2\r\nPUB a 0\r\n\r\nPUB a 0\r\n\r\n", "MSG a 1 0||MSG a 1 0||"},
		{"end after too few", quiet, "SUB a 1\r\nPUB a 0\r\n\r\nUNSUB 1 1\r\nPUB a 0\r\n\r\n", "MSG a 1 0||"},
		{"queue", quiet, "SUB a q.* 1\r\nSUB a q.* 2\r\nUNSUB 2\r\nPUB a 1\r\nx\r\n", "MSG a 1 1|x|"},
		{"no echo", "CONNECT {\"verbose\":false,\"echo\":false}\r\n", "SUB a 1\r\nPUB a 1\r\nx\r\n", ""},
		{"no responders", quiet, "SUB r 1\r\nPUB b r 1\r\nx\r\n",
			"HMSG r 1 33 33|NATS/1.0 503|Nats-Subject: b|||"},
		{"no responders, nobody asks", quiet, "PUB b r 1\r\nx\r\n", ""},
		{"no responders, not wanted", "CONNECT {\"verbose\":false,\"headers\":true}\r\n", "SUB r 1\r\nPUB b r 1\r\nx\r\n", ""},
		{"without CONNECT", "", "SUB a 1\r\nPUB a 1\r\nx\r\nUNSUB 1\r\n", "+OK|+OK|MSG a 1 1|x|+OK|"},
		{"verbose", verbose, "SUB a 1\r\nPUB a 1\r\nx\r\nUNSUB 1\r\n", "+OK|+OK|+OK|MSG a 1 1|x|+OK|"},
		{"pedantic", verbose, "PUB a.* 1\r\nx\r\nPUB a..b 1\r\nx\r\n",
			"+OK|-ERR 'Invalid Publish Subject'|+OK|-ERR 'Invalid Publish Subject'|+OK|"},
		{"a second CONNECT", quiet, "CONNECT {\"verbose\":true}\r\n", "+OK|"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := dial(t, s)
			p.send(tc.connect + tc.input)
			got := p.until()
			got = strings.TrimSuffix(got, "+OK|PONG|") // Of the PONG sent in the input.
			if got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestHeadersAreStrippedForClientsWithoutThem(t *testing.T) {
	s := start(t, Options{})
	plain, rich := dial(t, s), dial(t, s)
	plain.send("CONNECT {\"verbose\":false}\r\nSUB a 1\r\n")
	plain.until()
	rich.send(quiet + "HPUB a 12 13\r\nNATS/1.0\r\n\r\nx\r\n")
	rich.until()
	if got := plain.until(); got != "MSG a 1 1|x|" {
		t.Errorf("got %q", got)
	}
}

// The Go client reads exactly one line after CONNECT and PING, and it must be PONG.
func TestSecondInfoFollowsPong(t *testing.T) {
	s := start(t, Options{})
	p := dial(t, s)
	p.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\n")
	s.SetPeerURLs([]string{"127.0.0.1:1"}) // Must not make an INFO overtake the PONG.
	if got := p.until(); got != "" {
		t.Errorf("before PONG: %q", got)
	}
	if i := p.readInfo(); !i.ConnectInfo || i.RemoteAccount != "$G" || i.SystemAccount {
		t.Errorf("%+v", i)
	}
	if got := p.until(); got != "" {
		t.Errorf("a third INFO, or something else: %q", got)
	}
	old := dial(t, s)
	old.send("CONNECT {\"verbose\":false,\"protocol\":0}\r\n")
	if got := old.until() + old.until(); got != "" {
		t.Errorf("a client of protocol 0 got %q", got)
	}
}

func TestConnectURLs(t *testing.T) {
	s := start(t, Options{Cluster: "c"})
	p := dial(t, s)
	own := s.Addr().String()
	if len(p.info.ConnectURLs) != 1 || p.info.ConnectURLs[0] != own {
		t.Errorf("%v, want %s alone", p.info.ConnectURLs, own)
	}
	p.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\n")
	p.until()
	p.readInfo()
	s.SetPeerURLs([]string{"127.0.0.1:2", "127.0.0.1:1"})
	if i := p.readInfo(); strings.Join(i.ConnectURLs, " ") != own+" 127.0.0.1:2 127.0.0.1:1" {
		t.Errorf("%v", i.ConnectURLs)
	}
	s.SetPeerURLs([]string{"127.0.0.1:2", "127.0.0.1:1"})
	if got := p.until(); got != "" {
		t.Errorf("no news were told: %q", got)
	}
}

func TestLimits(t *testing.T) {
	s := start(t, Options{ConnectionsMax: 1, SubscriptionsMax: 2, TokensMax: 3})
	p := dial(t, s)
	p.send(quiet + "SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nUNSUB 1\r\nSUB c 3\r\nSUB a.b.c.d 4\r\n")
	want := "-ERR 'maximum subscriptions exceeded'|" +
		`-ERR 'Permissions Violation for Subscription to "a.b.c.d", too many tokens'|`
	if got := p.until(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := dial(t, s).rest(); got != "-ERR 'maximum connections exceeded'|" {
		t.Errorf("one too many: %q", got)
	}
}

func TestStaleConnection(t *testing.T) {
	s := start(t, Options{PingInterval: 30 * time.Millisecond, PingMax: 2})
	p := dial(t, s)
	p.send(quiet)
	if got := p.rest(); got != "PING|PING|-ERR 'Stale Connection'|" {
		t.Errorf("got %q", got)
	}
	if n := s.Totals().StaleConnections; n != 1 {
		t.Errorf("%d stale connections counted", n)
	}
	alive := dial(t, s)
	alive.send(quiet)
	for range 8 {
		if l := alive.line(); l != "PING" {
			t.Fatalf("%q", l)
		}
		alive.send("PONG\r\n")
	}
	if i, _ := s.Connection(alive.info.ClientID, false); i.RTT <= 0 {
		t.Errorf("no round trip time was measured: %+v", i)
	}
}

func TestAuthenticationTimeout(t *testing.T) {
	s := start(t, Options{AuthTimeout: 30 * time.Millisecond, Auth: users(t, auth.Options{Token: "x"})})
	p := dial(t, s)
	if !p.info.AuthRequired {
		t.Error("INFO does not say that authentication is required")
	}
	if got := p.rest(); got != "-ERR 'Authentication Timeout'|" {
		t.Errorf("got %q", got)
	}
}

func TestOperationsBeforeAuthentication(t *testing.T) {
	s := start(t, Options{Auth: users(t, auth.Options{Users: []auth.User{{Name: "u", Password: "p"}}})})
	for _, input := range []string{"PING\r\n", "X", "SUB a 1\r\n", "CONNECT {}\r\n",
		"CONNECT {\"user\":\"u\",\"pass\":\"q\"}\r\n", "CONNECT {\"user\":\"v\",\"pass\":\"p\"}\r\n"} {
		p := dial(t, s)
		p.send(input)
		if got := p.rest(); got != "-ERR 'Authorization Violation'|" {
			t.Errorf("%q: got %q", input, got)
		}
	}
	p := dial(t, s)
	p.send("CONNECT {\"user\":\"u\",\"pass\":\"p\",\"verbose\":false}\r\n")
	if got := p.until(); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestSlowConsumerByPending(t *testing.T) {
	s := start(t, Options{PendingMax: 2 << 20, PayloadMax: 1 << 20})
	slow := dial(t, s)
	slow.send(quiet + "SUB a 1\r\n")
	slow.until()
	fast := dial(t, s)
	fast.send(quiet)
	msg := "PUB a 1000000\r\n" + strings.Repeat("x", 1000000) + "\r\n"
	for range 40 {
		fast.send(msg)
	}
	fast.until()
	if n := s.Totals().SlowConsumers; n != 1 {
		t.Errorf("%d slow consumers", n)
	}
	n, err := io.Copy(io.Discard, slow.r)
	if n > 39*1000000 {
		t.Errorf("a slow consumer got %d bytes (%v)", n, err)
	}
}

func TestSlowConsumerByWriteDeadline(t *testing.T) {
	s := start(t, Options{WriteDeadline: 50 * time.Millisecond})
	slow := dial(t, s)
	slow.send(quiet + "SUB a 1\r\n")
	slow.until()
	fast := dial(t, s)
	fast.send(quiet)
	msg := "PUB a 1000000\r\n" + strings.Repeat("x", 1000000) + "\r\n"
	for range 20 {
		fast.send(msg)
	}
	fast.until()
	for end := time.Now().Add(5 * time.Second); s.Totals().SlowConsumers == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the client was not cut off")
		}
	}
}

// A client that reads late gets all, in order, by way of the writer goroutine.
func TestLateReader(t *testing.T) {
	s := start(t, Options{})
	late := dial(t, s)
	late.send(quiet + "SUB a 1\r\n")
	late.until()
	fast := dial(t, s)
	fast.send(quiet)
	const msgs, size = 400, 50000
	for i := range msgs {
		fast.send("PUB a 50000\r\n" + strings.Repeat(string(rune('a'+i%26)), size) + "\r\n")
	}
	fast.until()
	for i := range msgs {
		if l := late.line(); l != "MSG a 1 50000" {
			t.Fatalf("message %d: %q", i, l)
		}
		if l := late.line(); len(l) != size || strings.Trim(l, string(rune('a'+i%26))) != "" {
			t.Fatalf("message %d: %d bytes, beginning %q", i, len(l), l[:10])
		}
	}
}

func TestShutdownClosesWithoutAnError(t *testing.T) {
	s, err := New(Options{Host: "127.0.0.1", Port: -1, Logger: slog.New(slog.DiscardHandler)}, broker.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	p := dial(t, s)
	p.send(quiet)
	p.until()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := p.rest(); got != "" {
		t.Errorf("got %q", got)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
	if c := s.Closed(); len(c) != 1 || c[0].Reason != "Server Shutdown" {
		t.Errorf("%+v", c)
	}
	if err := s.Start(); !errors.Is(err, ErrStopped) {
		t.Errorf("start after shutdown: %v", err)
	}
}

func TestLameDuck(t *testing.T) {
	s := start(t, Options{Cluster: "c", LameDuckGrace: 50 * time.Millisecond, LameDuckDuration: 100 * time.Millisecond})
	s.SetPeerURLs([]string{"127.0.0.1:1"})
	p := dial(t, s)
	p.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\n")
	p.until()
	p.readInfo()
	done := make(chan error)
	go func() { done <- s.LameDuck(context.Background()) }()
	if i := p.readInfo(); !i.LameDuck || len(i.ConnectURLs) != 1 || i.ConnectURLs[0] != "127.0.0.1:1" {
		t.Errorf("%+v", i)
	}
	if got := p.rest(); got != "" {
		t.Errorf("got %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFigures(t *testing.T) {
	s := start(t, Options{})
	p := dial(t, s)
	p.send("CONNECT {\"verbose\":false,\"name\":\"me\",\"lang\":\"go\",\"version\":\"1.2\"}\r\nSUB a q 7\r\nPUB a 3\r\nabc\r\n")
	p.until()
	c := s.Connections(true)
	for end := time.Now().Add(5 * time.Second); len(c) == 1 && c[0].InMsgs == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		c = s.Connections(true) // What came in is counted once all of it that was read has been dealt with.
	}
	if len(c) != 1 {
		t.Fatalf("%d connections", len(c))
	}
	i := c[0]
	if i.Name != "me" || i.Lang != "go" || i.Version != "1.2" || i.InMsgs != 1 || i.InBytes != 3 || i.OutMsgs != 1 ||
		i.OutBytes != 3 || i.Subscriptions != 1 || i.IP != "127.0.0.1" || i.Account != "$G" ||
		len(i.Subs) != 1 || i.Subs[0].Queue != "q" || i.Subs[0].Msgs != 1 {
		t.Errorf("%+v", i)
	}
	want := AccountTotals{Connections: 1, TotalConnections: 1, InMsgs: 1, InBytes: 3, OutMsgs: 1, OutBytes: 3}
	if got := s.AccountTotals("$G"); got != want {
		t.Errorf("account %+v, want %+v", got, want)
	}
	p.nc.Close()
	for end := time.Now().Add(5 * time.Second); len(s.Closed()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection is not forgotten")
		}
	}
	if x := s.Closed()[0]; x.Reason != "Client Closed" || x.InMsgs != 1 || x.Stop.IsZero() {
		t.Errorf("%+v", x)
	}
	want.Connections = 0
	if got := s.AccountTotals("$G"); got != want {
		t.Errorf("account of closed connections %+v, want %+v", got, want)
	}
	if total := s.Totals(); total.InMsgs != 1 || total.OutBytes != 3 || total.Connections != 0 || total.TotalConnections != 1 {
		t.Errorf("%+v", total)
	}
}
