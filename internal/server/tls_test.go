package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cleatkv/cleat/internal/auth"
)

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) server(t *testing.T) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.issue(t, "localhost")}, ClientCAs: a.pool}
}

func (a *authority) trust() nats.Option { return nats.Secure(&tls.Config{RootCAs: a.pool}) }

// exchange sends messages of many sizes around through the connection.
func exchange(t *testing.T, nc *nats.Conn) {
	t.Helper()
	sub, err := nc.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 1000, 16384, 100_000, 1 << 20} {
		nc.Publish("x", make([]byte, size))
	}
	for _, size := range []int{0, 1, 1000, 16384, 100_000, 1 << 20} {
		if m, err := sub.NextMsg(5 * time.Second); err != nil || len(m.Data) != size {
			t.Fatalf("message of %d bytes: %v", size, err)
		}
	}
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	s := start(t, Options{TLS: &TLS{Config: ca.server(t), Timeout: 200 * time.Millisecond}})
	nc := connectTo(t, s, ca.trust())
	exchange(t, nc)
	if i := s.Connections(false)[0]; !strings.HasPrefix(i.TLSVersion, "TLS 1.") || i.TLSCipher == "" {
		t.Errorf("%+v", i)
	}
	plain := dial(t, s)
	if !plain.info.TLSRequired || plain.info.TLSAvailable {
		t.Errorf("%+v", plain.info)
	}
	plain.send(quiet)
	if got := plain.rest(); got != "-ERR 'Secure Connection - TLS Required'|" {
		t.Errorf("plain: got %q", got)
	}
	silent := dial(t, s)
	if got := silent.rest(); got != "" {
		t.Errorf("silent: got %q", got)
	}
}

func TestTLSAvailable(t *testing.T) {
	ca := newAuthority(t)
	s := start(t, Options{TLS: &TLS{Config: ca.server(t), AllowPlain: true}})
	exchange(t, connectTo(t, s, ca.trust()))
	exchange(t, connectTo(t, s))
	p := dial(t, s)
	if !p.info.TLSAvailable || p.info.TLSRequired {
		t.Errorf("%+v", p.info)
	}
}

func TestTLSHandshakeFirst(t *testing.T) {
	ca := newAuthority(t)
	first := start(t, Options{TLS: &TLS{Config: ca.server(t), HandshakeFirst: true, Timeout: 200 * time.Millisecond}})
	exchange(t, connectTo(t, first, ca.trust(), nats.TLSHandshakeFirst()))
	nc, err := net.Dial("tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := nc.Read(make([]byte, 1)); n > 0 {
		t.Errorf("the server spoke first (%v)", err)
	}
	fallback := start(t, Options{TLS: &TLS{Config: ca.server(t), HandshakeFirst: true, Fallback: 20 * time.Millisecond}})
	exchange(t, connectTo(t, fallback, ca.trust(), nats.TLSHandshakeFirst()))
	exchange(t, connectTo(t, fallback, ca.trust()))
}

func TestTLSClientCertificates(t *testing.T) {
	ca := newAuthority(t)
	conf := ca.server(t)
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	ann, bob := ca.issue(t, "ann"), ca.issue(t, "bob")
	s := start(t, Options{TLS: &TLS{Config: conf}, Auth: users(t, auth.Options{TLSMap: true, Users: []auth.User{{Name: "ann"}}})})
	with := func(c tls.Certificate) nats.Option {
		return nats.Secure(&tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{c}})
	}
	exchange(t, connectTo(t, s, with(ann)))
	if i := s.Connections(false)[0]; i.User != "ann" {
		t.Errorf("%+v", i)
	}
	for name, opt := range map[string]nats.Option{"unknown user": with(bob), "no certificate": ca.trust(), "foreign": with(newAuthority(t).issue(t, "ann"))} {
		if _, err := nats.Connect(s.Addr().String(), opt); err == nil {
			t.Errorf("%s: connected", name)
		}
	}
	sum := sha256.Sum256(bob.Leaf.RawSubjectPublicKeyInfo)
	pinned := start(t, Options{TLS: &TLS{Config: conf, Pinned: map[string]bool{hex.EncodeToString(sum[:]): true}}})
	connectTo(t, pinned, with(bob))
	if _, err := nats.Connect(pinned.Addr().String(), with(ann)); err == nil {
		t.Error("a certificate that is not pinned was taken")
	}
}

// Output to a TLS client that reads late is encrypted at once and written later.
func TestTLSLateReader(t *testing.T) {
	ca := newAuthority(t)
	s := start(t, Options{TLS: &TLS{Config: ca.server(t)}})
	raw, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	late := &peer{t: t, nc: raw}
	buf := make([]byte, 4096)
	if _, err := raw.Read(buf); err != nil {
		t.Fatal(err)
	}
	secure := tls.Client(raw, &tls.Config{RootCAs: ca.pool, ServerName: "localhost"})
	late.nc = secure
	late.send(quiet + "SUB x 1\r\nPING\r\n")
	if n, err := secure.Read(buf); err != nil || string(buf[:n]) != "PONG\r\n" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	pub := connectTo(t, s, ca.trust())
	const msgs, size = 300, 50_000
	for range msgs {
		pub.Publish("x", make([]byte, size))
	}
	pub.Flush()
	secure.SetDeadline(time.Now().Add(10 * time.Second))
	want := msgs * (len("MSG x 1 50000\r\n\r\n") + size)
	for got := 0; got < want; {
		n, err := secure.Read(buf)
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", got, want, err)
		}
		got += n
	}
}
