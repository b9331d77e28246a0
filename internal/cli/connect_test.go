package cli

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/spf13/pflag"
)

// An nkey, wherever its seed is kept, becomes its public key and signatures that verify.
func TestNKeyIdentity(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := pair.Seed()
	public, _ := pair.PublicKey()
	s := Settings{NKey: "data:;base64," + base64.StdEncoding.EncodeToString(seed)}
	opts, err := s.natsOptions()
	if err != nil {
		t.Fatal(err)
	}
	var got nats.Options
	for _, o := range opts {
		if err := o(&got); err != nil {
			t.Fatal(err)
		}
	}
	if got.Nkey != public {
		t.Errorf("public key %q, want %q", got.Nkey, public)
	}
	nonce := []byte("nonce")
	signature, err := got.SignatureCB(nonce)
	if err != nil || pair.Verify(nonce, signature) != nil {
		t.Errorf("signature does not verify: %v", err)
	}
}

// Settings that cannot be used are refused, not left out.
func TestUnusableSettings(t *testing.T) {
	for name, s := range map[string]Settings{
		"Windows certificate store": {WindowsCertStore: "user"},
		"certificate in a variable": {CA: "env://CA"},
		"missing credentials":       {Creds: "/no/such.creds"},
		"missing nkey":              {NKey: "/no/such.nk"},
	} {
		if _, err := s.natsOptions(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A certificate that cannot be verified is no reason to start another server.
func TestUnknownCertificateHint(t *testing.T) {
	err := fmt.Errorf("tls error: %w", &tls.CertificateVerificationError{Err: errors.New("unknown authority")})
	var e *Error
	if !errors.As(connectError(err, "tls://x:1", true), &e) || len(e.Hints) == 0 || !strings.Contains(e.Hints[0], "--tlsca") {
		t.Errorf("%+v", e)
	}
}

// Connecting ends with its context even if the server accepts and then says nothing.
func TestConnectEndsWithContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		cancel()
		conn.Read(make([]byte, 1)) // Until the client hangs up.
		conn.Close()
	}()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	o := new(Options)
	o.AddFlags(fs)
	if err := fs.Parse([]string{"--no-context", "--timeout", "1h", "-s", l.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	if s, err := o.Connect(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		if err == nil {
			s.Close()
		}
		t.Errorf("error %v, want that of the context", err)
	}
}

// Proxies other than SOCKS5 are refused.
func TestUnknownProxy(t *testing.T) {
	if _, err := newDialer(context.Background(), "ftp://x", time.Second); ExitCode(err) != ExitUsage {
		t.Errorf("error %v, want one of usage", err)
	}
}
