package config

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// handshakeFirstFallbackDefault is how long "auto" waits for a handshake before the plain INFO.
const handshakeFirstFallbackDefault = 50 * time.Millisecond

// tlsInto reads a TLS block. The files it names are opened once here, so that a bad one is found
// before anything starts.
func (l *loader) tlsInto(dst **TLS) func(value) {
	return func(v value) {
		if !l.isBlock(v, "tls") {
			return
		}
		before := len(l.errs)
		t := l.readTLS(v)
		if len(l.errs) > before {
			return
		}
		if _, err := t.ServerConfig(); err != nil {
			l.fail(v, "%v", err)
			return
		}
		*dst = t
	}
}

func (l *loader) readTLS(v value) *TLS {
	t := new(TLS)
	var insecureNames []string
	var allowInsecure bool
	const windows = "certificate stores are a thing of Windows"
	l.block(v, fields{
		"cert_file":                        l.tlsFile(&t.CertFile),
		"key_file":                         l.tlsFile(&t.KeyFile),
		"ca_file":                          l.tlsFile(&t.CAFile),
		"certs certificates":               func(v value) { t.Certs = readList(l, v, "certs", l.certPair) },
		"insecure":                         l.tlsBool(&t.Insecure),
		"verify":                           l.tlsBool(&t.Verify),
		"verify_and_map":                   l.tlsBool(&t.VerifyAndMap),
		"verify_cert_and_check_known_urls": l.refuse("servers are not held against the URLs of routes"),
		"timeout":                          l.timeout(&t.Timeout, "tls"),
		"min_version":                      l.tlsVersion(&t.MinVersion),
		"cipher_suites":                    func(v value) { insecureNames = l.cipherSuites(t, v) },
		"allow_insecure_cipher_suites":     l.tlsBool(&allowInsecure),
		"curve_preferences":                func(v value) { l.curves(t, v) },
		"pinned_certs":                     func(v value) { l.pinnedCerts(t, v) },
		"connection_rate_limit":            l.ignore("handshakes are not limited"),
		"handshake_first first immediate":  func(v value) { l.handshakeFirst(t, v) },
		"ocsp_peer":                        l.refuse("revoked certificates would be accepted"),
		"cert_store":                       l.refuse(windows),
		"cert_match_by":                    l.refuse(windows),
		"cert_match":                       l.refuse(windows),
		"ca_certs_match":                   l.refuse(windows),
		"cert_match_skip_invalid":          l.refuse(windows),
	}, "error parsing tls config, unknown field %q")
	t.Verify = t.Verify || t.VerifyAndMap
	if len(t.Certs) > 0 && t.CertFile != "" {
		l.fail(v, "error parsing tls config, cannot combine 'cert_file' option with 'certs' option")
	}
	if len(insecureNames) > 0 && !allowInsecure {
		l.fail(v, "insecure cipher suites configured without 'allow_insecure_cipher_suites' option set: %s",
			strings.Join(insecureNames, ", "))
	}
	return t
}

func (l *loader) tlsFile(dst *string) func(value) {
	return func(v value) {
		s, ok := v.raw.(string)
		if !ok {
			l.fail(v, "error parsing tls config, expected '%s' to be filename", v.key)
		}
		*dst = s
	}
}

func (l *loader) tlsBool(dst *bool) func(value) {
	return func(v value) {
		b, ok := v.raw.(bool)
		if !ok {
			l.fail(v, "error parsing tls config, expected '%s' to be a boolean", v.key)
		}
		*dst = b
	}
}

func (l *loader) certPair(v value) (p CertPair, ok bool) {
	l.block(v, fields{
		"cert_file": l.tlsFile(&p.CertFile),
		"key_file":  l.tlsFile(&p.KeyFile),
	}, "error parsing tls certs config, unknown field %q")
	if p.CertFile == "" || p.KeyFile == "" {
		l.fail(v, "error parsing certificates config: both 'cert_file' and 'cert_key' options are required")
		return p, false
	}
	return p, true
}

func (l *loader) tlsVersion(dst *uint16) func(value) {
	return func(v value) {
		s, ok := v.raw.(string)
		if !ok {
			l.fail(v, "error parsing tls config: 'min_version' wrong type: %v", v.raw)
			return
		}
		switch s {
		case "1.0", "1.1":
			l.fail(v, "error parsing tls config: unsupported TLS version: TLS %s", s)
		case "1.2":
			*dst = tls.VersionTLS12
		case "1.3":
			*dst = tls.VersionTLS13
		default:
			l.fail(v, "error parsing tls config: unknown version: %s", s)
		}
	}
}

// cipherSuites returns the names of those suites that are known to be weak.
func (l *loader) cipherSuites(t *TLS, v value) (insecure []string) {
	var names []string
	l.strs(&names)(v)
	if len(names) == 0 {
		l.fail(v, "error parsing tls config, 'cipher_suites' cannot be empty")
	}
	ids := make(map[string]uint16)
	weak := make(map[string]bool)
	for _, s := range tls.CipherSuites() {
		ids[s.Name] = s.ID
	}
	for _, s := range tls.InsecureCipherSuites() {
		ids[s.Name], weak[s.Name] = s.ID, true
	}
	for _, name := range names {
		id, ok := ids[name]
		if !ok {
			l.fail(v, "unrecognized cipher %s", name)
			continue
		}
		if weak[name] {
			insecure = append(insecure, name)
		}
		t.CipherSuites = append(t.CipherSuites, id)
	}
	return insecure
}

// curveNames are the key agreements a configuration may choose from.
var curveNames = map[string]tls.CurveID{
	"SecP384r1MLKEM1024": tls.SecP384r1MLKEM1024,
	"SecP256r1MLKEM768":  tls.SecP256r1MLKEM768,
	"X25519MLKEM768":     tls.X25519MLKEM768,
	"X25519":             tls.X25519,
	"CurveP256":          tls.CurveP256,
	"CurveP384":          tls.CurveP384,
	"CurveP521":          tls.CurveP521,
}

func (l *loader) curves(t *TLS, v value) {
	var names []string
	l.strs(&names)(v)
	if len(names) == 0 {
		l.fail(v, "error parsing tls config, 'curve_preferences' cannot be empty")
	}
	for _, name := range names {
		id, ok := curveNames[name]
		if !ok {
			l.fail(v, "unrecognized curve preference %s", name)
			continue
		}
		t.CurvePreferences = append(t.CurvePreferences, uint16(id))
	}
}

var hexSHA256 = regexp.MustCompile("^[a-f0-9]{64}$")

func (l *loader) pinnedCerts(t *TLS, v value) {
	const want = "hex-encoded sha256 of DER encoded SubjectPublicKeyInfo"
	if _, ok := v.raw.([]any); !ok {
		l.fail(v, "error parsing tls config, expected 'pinned_certs' to be a list of "+want)
		return
	}
	for _, e := range v.elements() {
		s, _ := e.raw.(string)
		s = strings.ToLower(s)
		if !hexSHA256.MatchString(s) {
			l.fail(e, "error parsing tls config, 'pinned_certs' key %s does not look like "+want, s)
			continue
		}
		t.PinnedCerts = append(t.PinnedCerts, s)
	}
}

func (l *loader) handshakeFirst(t *TLS, v value) {
	switch r := v.raw.(type) {
	case bool:
		t.HandshakeFirst = r
	case string:
		switch strings.ToLower(r) {
		case "true", "on":
			t.HandshakeFirst = true
		case "false", "off":
		case "auto", "auto_fallback":
			t.HandshakeFirst, t.HandshakeFirstFallback = true, handshakeFirstFallbackDefault
		default:
			d, err := time.ParseDuration(r)
			if err != nil {
				l.fail(v, "field %q's value %q is invalid", v.key, r)
				return
			}
			t.HandshakeFirst, t.HandshakeFirstFallback = true, d
		}
	default:
		l.fail(v, "field %q should be a boolean or a string, got %s", v.key, v)
	}
}

// ServerConfig returns what a listener needs. The mapping of certificates to users is the listener's.
func (t *TLS) ServerConfig() (*tls.Config, error) {
	c, pool, err := t.common()
	if err != nil {
		return nil, err
	}
	c.ClientCAs = pool
	if t.Verify {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// ClientConfig returns what the connecting side of a cluster link needs. The caller sets
// ServerName.
func (t *TLS) ClientConfig() (*tls.Config, error) {
	c, pool, err := t.common()
	if err != nil {
		return nil, err
	}
	c.RootCAs = pool
	c.InsecureSkipVerify = t.Insecure
	return c, nil
}

// common returns what both sides share, and the certificates of CAFile, nil for the system's.
func (t *TLS) common() (*tls.Config, *x509.CertPool, error) {
	c := &tls.Config{MinVersion: max(t.MinVersion, tls.VersionTLS12), CipherSuites: t.CipherSuites}
	for _, id := range t.CurvePreferences {
		c.CurvePreferences = append(c.CurvePreferences, tls.CurveID(id))
	}
	if len(t.PinnedCerts) > 0 {
		c.VerifyConnection = t.verifyPinned
	}
	pairs := t.Certs
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		return nil, nil, errors.New("missing 'key_file' in TLS configuration")
	case t.CertFile == "" && t.KeyFile != "":
		return nil, nil, errors.New("missing 'cert_file' in TLS configuration")
	case t.CertFile != "":
		pairs = []CertPair{{t.CertFile, t.KeyFile}}
	}
	for _, p := range pairs {
		cert, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("error parsing X509 certificate/key pair: %v", err)
		}
		c.Certificates = append(c.Certificates, cert)
	}
	if t.CAFile == "" {
		return c, nil, nil
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, errors.New("failed to parse root ca certificate")
	}
	return c, pool, nil
}

// verifyPinned accepts the other side only if it has one of the pinned keys.
func (t *TLS) verifyPinned(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate, and only pinned ones are accepted")
	}
	sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if !slices.Contains(t.PinnedCerts, hex.EncodeToString(sum[:])) {
		return errors.New("the certificate is not a pinned one")
	}
	return nil
}
