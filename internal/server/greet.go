package server

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/wire"
)

// tlsRecordHandshake is the first byte of a TLS connection.
const tlsRecordHandshake = 0x16

var errPinned = errors.New("server: the client's certificate is not a pinned one")

// greet brings a new connection to where operations are read: INFO sent, TLS established if it is
// to be, and the client bound to its account if nobody needs to authenticate.
func (c *conn) greet() bool {
	o := c.opts
	if o.Auth.NeedsNonce() {
		c.nonce = newNonce()
	}
	t := c.security(o)
	if t != nil && t.HandshakeFirst && c.tlsComes(t.Fallback) {
		if !c.handshake() {
			return false
		}
	}
	c.client.Send(&c.batch, string(wire.AppendInfoLine(nil, c.info(false))))
	c.batch.Flush()
	if t != nil && c.sock.tls.Load() == nil {
		switch {
		case c.tlsComes(0):
			if !c.handshake() {
				return false
			}
		case c.ending.Load():
			return false
		case !t.AllowPlain:
			c.fail(errTLSRequired, TLSHandshakeError)
			return false
		}
	}
	if !o.Auth.Required() {
		id, err := o.Auth.Authenticate(&auth.Request{Type: c.kind})
		if err != nil {
			c.fail(errAuthorization, AuthenticationViolation)
			return false
		}
		c.bind(c.srv.broker.Account(id.Account), id, broker.Traits{Echo: true})
		c.authed = true
	}
	c.startTimers()
	return true
}

// security is how this connection is to be encrypted: nil for one that is none of ours to encrypt,
// since it was encrypted, or not, below the WebSocket it comes through.
func (c *conn) security(o *Options) *TLS {
	if c.kind == auth.WebSocket {
		return nil
	}
	return o.TLS
}

// tlsComes waits for the first byte of the client and tells whether it begins a TLS handshake. It
// gives up after the time given or, if that is zero, when a handshake had to be over. The byte
// stays in the input.
func (c *conn) tlsComes(within time.Duration) bool {
	limit := within
	if limit == 0 {
		limit = c.opts.TLS.Timeout
	}
	c.sock.nc.SetReadDeadline(time.Now().Add(limit))
	defer c.sock.nc.SetReadDeadline(time.Time{})
	if c.in.n == 0 {
		if err := c.sock.fill(&c.in, 1); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				c.readFailed(err)
			} else if within == 0 {
				c.failTLS(err)
			}
			return false
		}
	}
	return c.in.buf[0] == tlsRecordHandshake
}

// handshake puts TLS between the socket and the connection.
func (c *conn) handshake() bool {
	t := c.opts.TLS
	read := append([]byte(nil), c.in.buf[:c.in.n]...)
	c.in.release()
	c.sock.sealed.Conn = &replay{Conn: c.sock.nc, first: read}
	secure := tls.Server(&c.sock.sealed, t.Config)
	c.sock.nc.SetDeadline(time.Now().Add(t.Timeout))
	err := secure.Handshake()
	if err == nil {
		err = checkPinned(t, secure)
	}
	if err != nil {
		c.failTLS(err)
		return false
	}
	c.sock.nc.SetDeadline(time.Time{})
	c.sock.sealed.keep()
	c.sock.tls.Store(secure)
	state := secure.ConnectionState()
	c.mu.Lock()
	c.mu.tls = &tlsFigures{version: tls.VersionName(state.Version), cipher: tls.CipherSuiteName(state.CipherSuite)}
	c.mu.Unlock()
	return true
}

func (c *conn) failTLS(err error) {
	c.srv.log().Error("TLS handshake error", "client", c.String(), "error", err)
	c.note(TLSHandshakeError)
	c.client.Kill()
	c.release()
}

// checkPinned holds the client's certificate against the pinned ones, if there are any.
func checkPinned(t *TLS, secure *tls.Conn) error {
	if len(t.Pinned) == 0 {
		return nil
	}
	// Only the client's own certificate counts, not its issuers.
	if certs := secure.ConnectionState().PeerCertificates; len(certs) > 0 {
		sum := sha256.Sum256(certs[0].RawSubjectPublicKeyInfo)
		if t.Pinned[hex.EncodeToString(sum[:])] {
			return nil
		}
	}
	return errPinned
}

// replay is a connection from which some bytes were read too early.
type replay struct {
	net.Conn
	first []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// newNonce is what a client must sign: unpredictable, printable, different for each connection.
func newNonce() string {
	var b [11]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
