package auth

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nats-io/nkeys"
)

// ErrViolation is the answer to every failed check, whatever the reason.
var ErrViolation = errors.New("Authorization Violation")

// Connection types, as allowed_connection_types names them.
const (
	Standard  = "STANDARD"
	WebSocket = "WEBSOCKET"
)

// GlobalAccount is where users belong that no account claims.
const GlobalAccount = "$G"

// Options are the users of a server.
type Options struct {
	Token    string // May be a bcrypt hash, as every password.
	Username string // The one user of a plain authorization block.
	Password string
	Users    []User
	NKeys    []NKey

	NoAuthUser string            // The user of connections without credentials.
	Defaults   *Rules            // Permissions of users in no account that have none of their own.
	Accounts   map[string]Limits // Limits of accounts; accounts without any may be missing.
	TLSMap     bool              // The user is found in the client's certificate.
	Operator   *Operator         // Users are those whose JWTs verify, and no others.
	Now        func() time.Time  // nil: time.Now.
}

// User is a user with a password.
type User struct {
	Name            string
	Password        string
	Account         string // Empty: GlobalAccount.
	Permissions     *Rules
	ConnectionTypes []string // Empty: all.
}

// NKey is a user known by a public key.
type NKey struct {
	Public          string
	Account         string
	Permissions     *Rules
	ConnectionTypes []string
}

// Limits bound what an account or a user may do. Zero means no bound.
type Limits struct {
	Connections   int // Of the whole account.
	Subscriptions int // Of each connection.
	Payload       int
}

// Request is what a connection presents.
type Request struct {
	User, Pass, Token string
	NKey, Sig, JWT    string
	Nonce             string               // What the signature must be over.
	TLS               *tls.ConnectionState // nil on a plain connection.
	Remote            netip.Addr
	Type              string // Standard or WebSocket.
}

// bare tells whether there are no credentials at all.
func (r *Request) bare() bool {
	return r.User == "" && r.Pass == "" && r.Token == "" && r.NKey == "" && r.Sig == "" && r.JWT == ""
}

// Identity is who a connection is found to be.
type Identity struct {
	Account     string
	User        string // As monitoring shows it.
	Permissions *Permissions
	Limits      Limits
	Expires     time.Time // Zero: never. Then the connection is closed.

	proof proof
}

// proof is what the identity rests on, so that Renew can judge it by a changed configuration
// without the secret that the client presented.
type proof struct {
	kind   kind
	name   string // User name, public key or token, by kind; the JWT itself.
	secret string // What the configuration compared the presented secret with.
	addr   netip.Addr
	ctype  string
}

type kind uint8

const (
	byNothing kind = iota
	byToken
	byPassword
	bySingle // The username and password of the authorization block.
	byKey
	byCert
	byDefault // NoAuthUser.
	byJWT
)

// Authenticator judges connections by one set of Options. It does not change.
type Authenticator struct {
	opts  Options
	users map[string]*entry
	keys  map[string]*entry
	rest  *Permissions // Compiled Defaults.
}

// entry is a user or nkey with what was prepared for it.
type entry struct {
	name, secret string
	account      string
	perms        *Permissions
	types        []string
}

// New checks and prepares the options.
func New(opts Options) (*Authenticator, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	a := &Authenticator{opts: opts, users: map[string]*entry{}, keys: map[string]*entry{}}
	var err error
	if a.rest, err = Compile(opts.Defaults); err != nil {
		return nil, err
	}
	for _, u := range opts.Users {
		if a.users[u.Name] != nil {
			return nil, fmt.Errorf("auth: user %q is defined twice", u.Name)
		}
		e, err := a.entry(u.Name, u.Password, u.Account, u.Permissions, u.ConnectionTypes)
		if err != nil {
			return nil, err
		}
		a.users[u.Name] = e
	}
	for _, k := range opts.NKeys {
		if !nkeys.IsValidPublicUserKey(k.Public) {
			return nil, fmt.Errorf("auth: nkey %q is not the public key of a user", k.Public)
		}
		e, err := a.entry(k.Public, "", k.Account, k.Permissions, k.ConnectionTypes)
		if err != nil {
			return nil, err
		}
		a.keys[k.Public] = e
	}
	if n := opts.NoAuthUser; n != "" && opts.Operator == nil && a.users[n] == nil && a.keys[n] == nil {
		return nil, fmt.Errorf("auth: no_auth_user %q is not a user", n)
	}
	return a, opts.Operator.validate()
}

func (a *Authenticator) entry(name, secret, account string, rules *Rules, types []string) (*entry, error) {
	perms, err := Compile(rules)
	if err != nil {
		return nil, fmt.Errorf("auth: user %q: %w", name, err)
	}
	if perms == nil && account == "" {
		perms = a.rest
	}
	if account == "" {
		account = GlobalAccount
	}
	return &entry{name: name, secret: secret, account: account, perms: perms, types: types}, nil
}

// Required tells whether connections must authenticate at all.
func (a *Authenticator) Required() bool {
	o := &a.opts
	return o.Token != "" || o.Username != "" || len(a.users) > 0 || len(a.keys) > 0 || o.Operator != nil
}

// Demanded tells whether a client without credentials will be refused, which INFO announces.
func (a *Authenticator) Demanded() bool { return a.Required() && a.opts.NoAuthUser == "" }

// NeedsNonce tells whether clients may have to sign a nonce.
func (a *Authenticator) NeedsNonce() bool { return len(a.keys) > 0 || a.opts.Operator != nil }

// Authenticate judges what a connection presents. The only error is ErrViolation.
func (a *Authenticator) Authenticate(r *Request) (Identity, error) {
	if !a.Required() {
		return a.identity(&entry{account: GlobalAccount, perms: a.rest}, proof{}), nil
	}
	id, ok := a.find(r)
	if !ok {
		return Identity{}, ErrViolation
	}
	id.proof.ctype, id.proof.addr = r.Type, r.Remote
	return id, nil
}

func (a *Authenticator) find(r *Request) (id Identity, ok bool) {
	o := &a.opts
	if r.bare() && o.NoAuthUser != "" {
		e := a.users[o.NoAuthUser]
		if e == nil {
			e = a.keys[o.NoAuthUser]
		}
		if e != nil {
			return a.admit(e, proof{kind: byDefault, name: e.name}, r.Type)
		}
	}
	switch {
	case o.Operator != nil:
		return a.byJWT(r)
	case o.TLSMap:
		if e := a.certUser(r.TLS); e != nil {
			return a.admit(e, proof{kind: byCert, name: e.name}, r.Type)
		}
		return id, false
	case r.NKey != "":
		e := a.keys[r.NKey]
		if e == nil || !verifySignature(r.NKey, r.Sig, r.Nonce) {
			return id, false
		}
		return a.admit(e, proof{kind: byKey, name: e.name}, r.Type)
	case o.Token != "" && r.Token != "":
		if !secretMatches(o.Token, r.Token) {
			return id, false
		}
		return a.single("[REDACTED]", proof{kind: byToken, secret: o.Token}), true
	case r.User == "":
		return id, false
	}
	if e := a.users[r.User]; e != nil {
		if !secretMatches(e.secret, r.Pass) {
			return id, false
		}
		return a.admit(e, proof{kind: byPassword, name: e.name, secret: e.secret}, r.Type)
	}
	if o.Username == "" || !sameText(o.Username, r.User) || !secretMatches(o.Password, r.Pass) {
		return id, false
	}
	return a.single(r.User, proof{kind: bySingle, name: r.User, secret: o.Password}), true
}

// single is the identity of those that authenticate without a user of their own.
func (a *Authenticator) single(name string, p proof) Identity {
	return a.identity(&entry{name: name, account: GlobalAccount, perms: a.rest}, p)
}

func (a *Authenticator) admit(e *entry, p proof, ctype string) (Identity, bool) {
	if len(e.types) > 0 && !slices.Contains(e.types, ctype) {
		return Identity{}, false
	}
	return a.identity(e, p), true
}

func (a *Authenticator) identity(e *entry, p proof) Identity {
	return Identity{Account: e.account, User: e.name, Permissions: e.perms,
		Limits: a.opts.Accounts[e.account], proof: p}
}

// Renew judges an identity that an earlier Authenticator gave by this one's options. It stands,
// perhaps with other permissions, if what it rests on is still configured with the same secret.
func (a *Authenticator) Renew(old Identity) (Identity, bool) {
	p := old.proof
	id, ok := a.renew(p)
	id.proof.ctype, id.proof.addr = p.ctype, p.addr
	return id, ok
}

func (a *Authenticator) renew(p proof) (id Identity, ok bool) {
	o := &a.opts
	var e *entry
	switch p.kind {
	case byNothing:
		return a.identity(&entry{account: GlobalAccount, perms: a.rest}, p), !a.Required()
	case byToken:
		return a.single("[REDACTED]", p), p.secret == o.Token && o.Operator == nil
	case bySingle:
		return a.single(p.name, p), p.name == o.Username && p.secret == o.Password && o.Operator == nil
	case byJWT:
		if o.Operator == nil {
			return id, false
		}
		return a.judgeJWT(p.name, nil, p.addr, p.ctype)
	case byPassword:
		e = a.users[p.name]
		ok = e != nil && e.secret == p.secret
	case byKey:
		e = a.keys[p.name]
		ok = e != nil
	case byCert:
		e = a.users[p.name]
		ok = e != nil && o.TLSMap
	case byDefault:
		if e = a.users[p.name]; e == nil {
			e = a.keys[p.name]
		}
		ok = e != nil && o.NoAuthUser == p.name
	}
	if !ok || o.Operator != nil {
		return id, false
	}
	return a.admit(e, p, p.ctype)
}
