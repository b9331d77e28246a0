package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// writeCert writes a certificate that signs itself, and its key.
func writeCert(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert},
		keyFile:  {Type: "EC PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestTLSBlock becomes what crypto/tls wants.
func TestTLSBlock(t *testing.T) {
	cert, key := writeCert(t)
	c, err := load(t, `tls {
		cert_file: '`+cert+`', key_file: '`+key+`', ca_file: '`+cert+`'
		verify_and_map: true, timeout: "1500ms", min_version: "1.3", insecure: true
		cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], curve_preferences: [X25519, CurveP256]
		pinned_certs: ["A8F407340DCC719864B85A3D0D7F4BE0DE5AFD5D2E5B3A5E5C5A5C5A5C5A5C5A"]
		handshake_first: auto, connection_rate_limit: 5
	}`)
	if err != nil {
		t.Fatal(err)
	}
	b := c.TLS
	if !b.Verify || !b.VerifyAndMap || b.Timeout != 1500*time.Millisecond || !b.HandshakeFirst ||
		b.HandshakeFirstFallback != 50*time.Millisecond || len(b.PinnedCerts) != 1 || b.PinnedCerts[0][:4] != "a8f4" {
		t.Errorf("%+v", b)
	}
	s, err := b.ServerConfig()
	if err != nil {
		t.Fatal(err)
	}
	if s.ClientAuth != tls.RequireAndVerifyClientCert || s.ClientCAs == nil || s.MinVersion != tls.VersionTLS13 || len(s.Certificates) != 1 ||
		!slices.Equal(s.CipherSuites, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}) || !slices.Equal(s.CurvePreferences, []tls.CurveID{tls.X25519, tls.CurveP256}) {
		t.Errorf("server side: %+v", s)
	}
	cl, err := b.ClientConfig()
	if err != nil || cl.RootCAs == nil || !cl.InsecureSkipVerify || cl.ClientAuth != tls.NoClientCert {
		t.Errorf("client side: %+v %v", cl, err)
	}
}
