package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"regexp"

	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/bcrypt"
)

var bcryptPattern = regexp.MustCompile(`^\$2[abxy]\$\d{2}\$`)

// IsHash tells whether a configured secret is a bcrypt hash.
func IsHash(secret string) bool { return bcryptPattern.MatchString(secret) }

// secretMatches compares a configured secret, which may be a hash, with a presented one.
func secretMatches(configured, presented string) bool {
	if IsHash(configured) {
		return bcrypt.CompareHashAndPassword([]byte(configured), []byte(presented)) == nil
	}
	return sameText(configured, presented)
}

// sameText compares in a time that tells nothing of the texts, their lengths included.
func sameText(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// verifySignature tells whether sig is the key's signature over the nonce.
func verifySignature(public, sig, nonce string) bool {
	if nonce == "" || sig == "" {
		return false
	}
	raw, err := base64.RawURLEncoding.DecodeString(sig)
	if err != nil {
		if raw, err = base64.StdEncoding.DecodeString(sig); err != nil {
			return false
		}
	}
	key, err := nkeys.FromPublicKey(public)
	return err == nil && key.Verify([]byte(nonce), raw) == nil
}

// certUser finds the user that the client's certificate names: by e-mail address, then DNS name,
// then URI, then the distinguished name of the subject.
func (a *Authenticator) certUser(state *tls.ConnectionState) *entry {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	for _, name := range certNames(state.PeerCertificates[0]) {
		if e := a.users[name]; e != nil {
			return e
		}
	}
	return nil
}

func certNames(c *x509.Certificate) []string {
	names := append([]string(nil), c.EmailAddresses...)
	names = append(names, c.DNSNames...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return append(names, c.Subject.String())
}
