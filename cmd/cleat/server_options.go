package main

import (
	"crypto/rand"
	"log/slog"
	"math"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/server"
)

// frontOptions translates a configuration into what the client front end needs.
func frontOptions(c *config.Config, op *auth.Operator, log *slog.Logger) (server.Options, error) {
	o := server.Options{
		Name:      c.ServerName,
		Version:   config.ProtocolVersion,
		GitCommit: config.GitCommit(),
		Host:      c.Host,
		Port:      c.Port,
		Advertise: c.ClientAdvertise,

		Tags:     c.ServerTags,
		Metadata: monitor.Metadata(c),

		JetStream:   c.JetStream.Enabled,
		Domain:      c.JetStream.Domain,
		NoAdvertise: c.Cluster.NoAdvertise,
		AuthTimeout: c.Auth.Timeout,

		ConnectionsMax:   c.Limits.MaxConnections,
		SubscriptionsMax: c.Limits.MaxSubscriptions,
		TokensMax:        c.Limits.MaxSubTokens,
		ControlLineMax:   c.Limits.MaxControlLine,
		PayloadMax:       c.Limits.MaxPayload,
		PendingMax:       int(min(c.Limits.MaxPending, math.MaxInt)),
		WriteDeadline:    c.Limits.WriteDeadline,
		PingInterval:     c.Limits.PingInterval,
		PingMax:          c.Limits.PingMax,
		NoHeaders:        c.Limits.NoHeaderSupport,

		LameDuckDuration: c.LameDuck.Duration,
		LameDuckGrace:    c.LameDuck.Grace,

		Logger: log,
	}
	if c.JetStream.Enabled {
		o.APILevel = config.APILevel
	}
	if c.Cluster.Enabled() {
		o.Cluster = c.Cluster.Name
	}
	var err error
	if o.TLS, err = frontTLS(c); err != nil {
		return o, err
	}
	o.Auth, err = authenticator(c, op)
	return o, err
}

// frontTLS is nil when clients connect without.
func frontTLS(c *config.Config) (*server.TLS, error) {
	if c.TLS == nil {
		return nil, nil
	}
	t, err := c.TLS.ServerConfig()
	if err != nil {
		return nil, err
	}
	out := &server.TLS{
		Config: t, Timeout: c.TLS.Timeout, AllowPlain: c.AllowNonTLS,
		HandshakeFirst: c.TLS.HandshakeFirst, Fallback: c.TLS.HandshakeFirstFallback,
	}
	if len(c.TLS.PinnedCerts) > 0 {
		out.Pinned = make(map[string]bool)
		for _, p := range c.TLS.PinnedCerts {
			out.Pinned[p] = true
		}
	}
	return out, nil
}

// authenticator judges clients by the users of the configuration.
func authenticator(c *config.Config, op *auth.Operator) (*auth.Authenticator, error) {
	o := auth.Options{
		Token: c.Auth.Token, Username: c.Auth.User, Password: c.Auth.Password,
		NoAuthUser: c.NoAuthUser,
		TLSMap:     c.TLS != nil && c.TLS.VerifyAndMap,
		Accounts:   make(map[string]auth.Limits),
		Operator:   op,
	}
	for _, u := range c.AllUsers() {
		if u.NKey != "" {
			o.NKeys = append(o.NKeys, auth.NKey{Public: u.NKey, Account: u.Account, Permissions: rules(u.Permissions), ConnectionTypes: u.AllowedConnectionTypes})
			continue
		}
		o.Users = append(o.Users, auth.User{Name: u.Name, Password: u.Password, Account: u.Account, Permissions: rules(u.Permissions), ConnectionTypes: u.AllowedConnectionTypes})
	}
	if len(o.Users)+len(o.NKeys) > 0 && !c.AuthRequired() {
		// Only the system account is closed. Whoever brings no credentials is somebody in the global
		// account whom nobody can name.
		o.NoAuthUser = "anonymous-" + rand.Text()
		o.Users = append(o.Users, auth.User{Name: o.NoAuthUser, Password: rand.Text()})
	}
	for _, a := range c.Accounts {
		o.Accounts[a.Name] = auth.Limits{
			Connections:   bound(a.Limits.MaxConnections),
			Subscriptions: bound(a.Limits.MaxSubscriptions),
			Payload:       bound(a.Limits.MaxPayload),
		}
	}
	return auth.New(o)
}

// bound translates -1 for no limit into 0.
func bound(n int64) int { return int(max(n, 0)) }

func rules(p *config.Permissions) *auth.Rules {
	if p == nil {
		return nil
	}
	r := &auth.Rules{Publish: subjects(p.Publish), Subscribe: subjects(p.Subscribe)}
	if p.Responses != nil {
		// With answers allowed, no allow list means answers only; a deny list would forbid those too.
		r.Publish = auth.Subjects{Allow: p.Publish.Allow, Deny: p.Publish.Deny}
		r.Responses = &auth.Responses{Max: p.Responses.MaxMsgs, TTL: p.Responses.Expires}
	}
	return r
}

// subjects keeps an allow list that is there and empty from meaning that everything is allowed.
func subjects(p *config.SubjectPermission) auth.Subjects {
	if p == nil {
		return auth.Subjects{}
	}
	s := auth.Subjects{Allow: p.Allow, Deny: p.Deny}
	if p.Allow != nil && len(p.Allow) == 0 {
		s.Deny = append(s.Deny[:len(s.Deny):len(s.Deny)], ">")
	}
	return s
}

// sharing translates what accounts export and import.
func sharing(c *config.Config) map[string]broker.Sharing {
	all := make(map[string]broker.Sharing)
	for _, a := range c.Accounts {
		var s broker.Sharing
		for _, e := range a.Exports {
			s.Exports = append(s.Exports, broker.Export{
				Service: e.Service, Subject: e.Subject, Accounts: e.Accounts,
				Many: e.Service && e.ResponseType != "Singleton",
			})
		}
		for _, i := range a.Imports {
			s.Imports = append(s.Imports, broker.Import{Service: i.Service, Account: i.Account, Subject: i.Subject, To: i.To, Prefix: i.Prefix})
		}
		all[a.Name] = s
	}
	return all
}
