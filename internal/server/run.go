package server

import (
	"bytes"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/subject"
	"github.com/cleatkv/cleat/internal/wire"
)

// run does one operation and tells whether the connection goes on.
func (c *conn) run(op *wire.Op) bool {
	switch op.Kind {
	case wire.Pub, wire.HPub:
		return c.publish(op)
	case wire.Sub:
		return c.subscribe(op)
	case wire.Unsub:
		c.client.Unsubscribe(string(op.Sid), op.Max)
		c.ok()
	case wire.PingOp:
		c.pong()
	case wire.PongOp:
		c.ponged()
	case wire.Connect:
		return c.connected(op.Data)
	case wire.Ignored:
	}
	return true
}

// ok acknowledges an operation to a verbose client.
func (c *conn) ok() {
	if c.connect.Verbose {
		c.client.Send(&c.batch, wire.OK)
	}
}

// Reply subjects that only the server itself may use.
var reservedReplies = [][]byte{[]byte("_R_."), []byte("_GR_."), []byte("$GR.")}

func (c *conn) publish(op *wire.Op) bool {
	if op.Kind == wire.HPub && !c.headers() {
		c.fail(nil, ProtocolViolation)
		return false
	}
	c.msgsIn++
	c.bytesIn += int64(len(op.Header) + len(op.Data))
	if len(op.Reply) > 3 && (op.Reply[0] == '_' || op.Reply[0] == '$') {
		for _, prefix := range reservedReplies {
			if bytes.HasPrefix(op.Reply, prefix) {
				c.client.SendErr(&c.batch, `Permissions Violation for Publish with Reply of "`+string(op.Reply)+`"`)
				return true
			}
		}
	}
	if c.connect.Pedantic && !subject.ValidLiteral(string(op.Subject)) {
		c.client.SendErr(&c.batch, errPublishSubject.Error())
	}
	if c.connect.Verbose {
		c.client.Send(&c.batch, wire.OK)
	}
	c.client.Publish(&c.batch, op.Subject, op.Reply, op.Header, op.Data)
	return true
}

func (c *conn) subscribe(op *wire.Op) bool {
	subj := string(op.Subject)
	if limit := c.opts.TokensMax; limit > 0 && subject.CountTokens(subj) > limit {
		c.client.SendErr(&c.batch, `Permissions Violation for Subscription to "`+subj+`", too many tokens`)
		return true
	}
	if err := c.client.Subscribe(subj, string(op.Queue), string(op.Sid)); err != nil {
		c.client.SendErr(&c.batch, err.Error())
		return true
	}
	c.ok()
	return true
}

// headers tells whether headers are in force on this connection.
func (c *conn) headers() bool { return c.connect.Headers && !c.opts.NoHeaders }

// payloadMax is the tighter of the server's bound and the user's.
func (c *conn) payloadMax() int {
	limit := c.opts.PayloadMax
	if own := int(c.ownPayload.Load()); own > 0 && own < limit {
		return own
	}
	return limit
}

// connected handles CONNECT.
func (c *conn) connected(data []byte) bool {
	o, err := wire.ParseConnect(data, c.connect)
	if err != nil {
		c.fail(nil, ProtocolViolation)
		return false
	}
	c.connect = o
	if !c.authenticate() {
		return false
	}
	if o.Protocol < 0 || o.Protocol > 1 {
		c.fail(errProtocolVersion, BadClientProtocolVersion)
		return false
	}
	if o.NoResponders && !c.headers() {
		c.fail(errNeedsHeaders, NoRespondersRequiresHeaders)
		return false
	}
	c.mu.Lock()
	c.mu.connected = true
	c.mu.Unlock()
	c.ok()
	return true
}

// authenticate judges the credentials of CONNECT and binds the client to its account.
func (c *conn) authenticate() bool {
	o := &c.connect
	a := c.opts.Auth
	if !a.Required() && (o.Account != "" || o.NewAccount) {
		c.fail(errAuthorization, AuthenticationViolation)
		return false
	}
	r := &auth.Request{User: o.User, Pass: o.Pass, Token: o.Token, NKey: o.NKey, Sig: o.Sig, JWT: o.JWT,
		Nonce: c.nonce, Remote: c.remote.Addr(), Type: c.kind}
	if secure := c.sock.tls.Load(); secure != nil {
		state := secure.ConnectionState()
		r.TLS = &state
	}
	id, err := a.Authenticate(r)
	o.Pass, o.Token, o.JWT = "", "", "" // Not needed any more, so not kept.
	if err != nil {
		c.srv.log().Warn("Authentication failed", "client", c.String(), "user", o.User+o.NKey)
		c.fail(errAuthorization, AuthenticationViolation)
		return false
	}
	account := c.srv.broker.Account(id.Account)
	if limit := id.Limits.Connections; limit > 0 && c.client.Account() != account && account.Clients() >= limit {
		c.fail(errAccountConns, MaxAccountConnectionsExceeded)
		return false
	}
	c.bind(account, id, broker.Traits{Name: o.Name, Lang: o.Lang, Version: o.Version, Echo: o.Echo,
		Headers: c.headers(), NoResponders: o.NoResponders && c.headers()})
	c.authed = true
	c.tell(true)
	return true
}

// tell tells who watches that this connection has come or gone. Many an end was never a beginning.
func (c *conn) tell(open bool) {
	if c.srv.watch == nil || c.told == open {
		return
	}
	c.told = open
	c.srv.watch(c.client.Account().Name(), open, func() ConnInfo { return c.describe(false) })
}

// bind gives the client its account and rights, after CONNECT or when the configuration changed.
func (c *conn) bind(account *broker.Account, id auth.Identity, traits broker.Traits) {
	subs := id.Limits.Subscriptions
	if limit := c.srv.options().SubscriptionsMax; limit > 0 && (subs == 0 || limit < subs) {
		subs = limit
	}
	ended := c.client.Bind(account, broker.Identity{User: id.User, Permissions: id.Permissions, SubsMax: subs}, traits)
	for _, s := range ended {
		c.client.SendErr(nil, broker.DeniedSubscription(s.Subject(), s.Queue()).Error())
	}
	c.ownPayload.Store(int64(id.Limits.Payload))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.identity = id
	if c.mu.limit != nil {
		c.mu.limit.Stop()
		c.mu.limit = nil
	}
	if !id.Expires.IsZero() && c.mu.stop.IsZero() {
		c.mu.limit = time.AfterFunc(time.Until(id.Expires), func() { c.fail(errAuthExpired, AuthenticationExpired) })
	}
}

// pong answers a PING. After the first one that follows CONNECT, the client may be sent INFO at any
// time; before, any INFO would break its connection attempt.
func (c *conn) pong() {
	c.client.Send(&c.batch, wire.Pong)
	c.mu.Lock()
	first := c.mu.connected && !c.mu.async && c.connect.Protocol >= 1
	c.mu.Unlock()
	if !first {
		return
	}
	c.client.Send(&c.batch, string(wire.AppendInfoLine(nil, c.info(true))))
	c.mu.Lock()
	c.mu.async = true
	c.mu.Unlock()
}

// ponged notes the answer to our PING.
func (c *conn) ponged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.pongs > 0 {
		c.mu.rtt = max(time.Since(c.mu.pinged), 1)
	}
	c.mu.pongs = 0
}
