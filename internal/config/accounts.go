package config

import (
	"math"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"
)

// accountBlock is an account with what is needed to judge it when all accounts are known.
type accountBlock struct {
	account *Account
	at      value
	usersAt value
}

func newAccount(name string) *Account {
	return &Account{
		Name:   name,
		Limits: AccountLimits{MaxConnections: -1, MaxSubscriptions: -1, MaxPayload: -1},
	}
}

// accounts reads a block of accounts, or just a list of their names.
func (l *loader) accounts(v value) {
	switch v.raw.(type) {
	case []any:
		for _, e := range v.elements() {
			var name string
			l.str(&name)(e)
			if slices.ContainsFunc(l.accountBlocks, func(b accountBlock) bool { return b.account.Name == name }) {
				l.fail(e, "Duplicate Account Entry: %s", name)
				continue
			}
			l.addAccount(name, e, func(*accountBlock) {})
		}
	case map[string]any:
		for _, m := range v.members() {
			if m.variable {
				continue
			}
			l.addAccount(m.key, m, l.account)
		}
	default:
		l.fail(v, "expected accounts to be a map, got %s", v)
	}
}

func (l *loader) addAccount(name string, v value, read func(*accountBlock)) {
	if name == GlobalAccount {
		l.fail(v, "%q is a Reserved Account", name)
		return
	}
	b := accountBlock{account: newAccount(name), at: v, usersAt: v}
	read(&b)
	l.accountBlocks = append(l.accountBlocks, b)
}

func (l *loader) account(b *accountBlock) {
	if _, ok := b.at.raw.(map[string]any); !ok {
		l.fail(b.at, "Expected map entries for accounts")
		return
	}
	a := b.account
	var defaults *Permissions
	l.block(b.at, fields{
		"nkey":                 l.str(&a.NKey),
		"users":                func(v value) { b.usersAt = v; a.Users = l.users(v) },
		"default_permissions":  l.permissions(&defaults),
		"jetstream":            func(v value) { a.JetStream = l.accountJetStream(v) },
		"limits":               l.accountLimits(&a.Limits),
		"exports":              func(v value) { a.Exports = readList(l, v, "Exports", l.export) },
		"imports":              func(v value) { a.Imports = readList(l, v, "Imports", l.imports) },
		"mappings maps":        l.ignore("subjects are not mapped"),
		"msg_trace trace_dest": l.ignore("messages are not traced"),
	}, unknownField)
	if a.NKey != "" && !nkeys.IsValidPublicAccountKey(a.NKey) {
		l.fail(b.at, "Not a valid public nkey for an account: %q", a.NKey)
	}
	setDefaultPermissions(a.Users, defaults)
	for _, u := range a.Users {
		u.Account = a.Name
	}
}

func (l *loader) accountLimits(lim *AccountLimits) func(value) {
	return func(v value) {
		if !l.isBlock(v, "limits") {
			return
		}
		l.block(v, fields{
			"max_connections max_conn":   integer(l, &lim.MaxConnections, -1, math.MaxInt32),
			"max_subscriptions max_subs": integer(l, &lim.MaxSubscriptions, -1, math.MaxInt32),
			"max_payload max_pay":        integer(l, &lim.MaxPayload, -1, math.MaxInt32),
			"max_leafnodes max_leafs":    l.ignore("leaf nodes are not accepted"),
		}, unknownField)
	}
}

// readList reads a list of blocks by one reader; what is false is left out.
func readList[T any](l *loader, v value, name string, read func(value) (T, bool)) []T {
	if _, ok := v.raw.([]any); !ok {
		l.fail(v, "%s should be an array, got %s", name, v)
		return nil
	}
	var out []T
	for _, e := range v.elements() {
		if _, ok := e.raw.(map[string]any); !ok {
			l.fail(e, "%s should be maps with a stream or a service, got %s", name, e)
			continue
		}
		if t, ok := read(e); ok {
			out = append(out, t)
		}
	}
	return out
}

func (l *loader) export(v value) (e Export, ok bool) {
	var stream, service, response string
	before := len(l.errs)
	l.block(v, fields{
		"stream":                 l.str(&stream),
		"service":                l.str(&service),
		"response response_type": l.responseType(&response),
		"threshold response_threshold response_max_time response_time": l.ignore("answers are not timed"),
		"accounts":               l.strs(&e.Accounts),
		"account_token_position": l.refuse("any account could import what is meant for one"),
		"allow_trace":            l.ignore("messages are not traced"),
		"latency":                l.ignore("latency is not measured"),
	}, unknownField)
	e.Service, e.Subject = service != "", stream+service
	e.ResponseType = response
	switch {
	case len(l.errs) > before:
	case stream != "" && service != "":
		l.fail(v, "Detected stream %q but already saw a service", stream)
	case stream == "" && service == "":
		l.fail(v, "export needs a stream or a service")
	case stream != "" && response != "":
		l.fail(v, "Detected response directive on non-service")
	case !validSubject(e.Subject):
		l.fail(v, "subject %q is not a valid subject", e.Subject)
	default:
		if e.Service && response == "" {
			e.ResponseType = "Singleton"
		}
		return e, true
	}
	return e, false
}

func (l *loader) responseType(dst *string) func(value) {
	return func(v value) {
		var s string
		l.str(&s)(v)
		switch strings.ToLower(s) {
		case "single", "singleton":
			*dst = "Singleton"
		case "stream":
			*dst = "Stream"
		case "chunk", "chunked":
			*dst = "Chunked"
		default:
			l.fail(v, "Unknown response type: %q", s)
		}
	}
}

func (l *loader) imports(v value) (im Import, ok bool) {
	kinds := 0
	before := len(l.errs)
	source := func(service bool) func(value) {
		return func(v value) {
			kinds++
			im.Service = service
			if !l.isBlock(v, v.key) {
				return
			}
			l.block(v, fields{
				"account": l.str(&im.Account),
				"subject": l.str(&im.Subject),
			}, unknownField)
			if im.Account == "" || im.Subject == "" {
				l.fail(v, "Expect an account name and a subject")
			}
		}
	}
	l.block(v, fields{
		"stream":      source(false),
		"service":     source(true),
		"to":          l.str(&im.To),
		"prefix":      l.str(&im.Prefix),
		"share":       l.ignore("who asks is not told"),
		"allow_trace": l.ignore("messages are not traced"),
	}, unknownField)
	switch {
	case len(l.errs) > before:
	case kinds > 1:
		l.fail(v, "Detected service but already saw a stream")
	case kinds == 0:
		l.fail(v, "import needs a stream or a service")
	case im.Prefix != "" && im.To != "":
		l.fail(v, "Stream import can not have a 'prefix' and a 'to' property")
	case !validSubject(im.Subject):
		l.fail(v, "subject %q is not a valid subject", im.Subject)
	default:
		return im, true
	}
	return im, false
}

// finishAccounts completes the accounts once all are known: the two that always exist, and that
// every import meets an export.
func (l *loader) finishAccounts() {
	c := l.cfg
	if c.SystemAccount == "" && !l.auth.noSystem && c.Operator == nil {
		c.SystemAccount = DefaultSystemAccount
	}
	for _, b := range l.accountBlocks {
		c.Accounts = append(c.Accounts, b.account)
		if len(b.account.Users) == 0 {
			continue
		}
		if l.auth.user != "" {
			l.fail(b.usersAt, "Can not have a single user/pass and accounts")
		}
		if l.auth.token != "" {
			l.fail(b.usersAt, "Can not have a token and accounts")
		}
	}
	l.checkSharing()
	if c.SystemAccount != "" && c.Operator == nil && c.Account(c.SystemAccount) == nil {
		c.Accounts = append(c.Accounts, newAccount(c.SystemAccount))
	}
	c.addGlobalAccount()
	slices.SortFunc(c.Accounts, func(a, b *Account) int { return strings.Compare(a.Name, b.Name) })
	if s := c.Account(c.SystemAccount); s != nil && s.JetStream != nil {
		l.errs = append(l.errs, problem{text: "jetstream can not be enabled on the system account"})
	}
}

// addGlobalAccount adds $G. It has JetStream when it is the only account for users; once there are
// others, those which say so have it.
func (c *Config) addGlobalAccount() {
	g := newAccount(GlobalAccount)
	others := slices.ContainsFunc(c.Accounts, func(a *Account) bool { return a.Name != c.SystemAccount })
	if !others && c.Operator == nil {
		g.JetStream = &AccountJetStream{
			MaxMemory: -1, MaxFile: -1, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1,
			MemoryMaxStreamBytes: -1, MaxStreamBytes: -1,
		}
	}
	c.Accounts = append(c.Accounts, g)
}

// checkSharing holds imports against exports.
func (l *loader) checkSharing() {
	c := l.cfg
	for _, b := range l.accountBlocks {
		for _, e := range b.account.Exports {
			for _, name := range e.Accounts {
				if c.Account(name) == nil {
					l.fail(b.at, "%q account not defined for %s export", name, kind(e.Service))
				}
			}
		}
		for _, im := range b.account.Imports {
			from := c.Account(im.Account)
			switch {
			case from == nil:
				l.fail(b.at, "%q account not defined for %s import", im.Account, kind(im.Service))
			case !from.exports(im, b.account.Name):
				l.fail(b.at, "Error adding %s import %q: %s import not authorized", kind(im.Service), im.Subject, kind(im.Service))
			}
		}
	}
}

func kind(service bool) string {
	if service {
		return "service"
	}
	return "stream"
}

// exports says whether a offers im to the named account.
func (a *Account) exports(im Import, to string) bool {
	return slices.ContainsFunc(a.Exports, func(e Export) bool {
		return e.Service == im.Service && covers(e.Subject, im.Subject) &&
			(len(e.Accounts) == 0 || slices.Contains(e.Accounts, to))
	})
}

// covers says whether every subject that matches narrow matches wide as well.
func covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, t := range w {
		switch {
		case t == ">":
			return len(n) > i
		case i >= len(n) || n[i] == ">":
			return false
		case t != "*" && t != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}

// Account returns the account of that name, nil if there is none.
func (c *Config) Account(name string) *Account {
	for _, a := range c.Accounts {
		if a.Name == name {
			return a
		}
	}
	return nil
}
