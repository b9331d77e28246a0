package config

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

// Defaults of allow_responses.
const (
	responsesMaxDefault     = 1
	responsesExpiresDefault = 2 * time.Minute
)

// authorization is what an authorization block says, before it is known whether accounts say
// something that contradicts it.
type authorization struct {
	at                    value
	user, password, token string
	timeout               time.Duration
	users                 []*User // not nil once there is a list, even an empty one
	defaults              *Permissions
	noSystem              bool
}

// authorization reads the top level block.
func (l *loader) authorization(v value) {
	noSystem := l.auth.noSystem
	l.auth = l.readAuthorization(v)
	l.auth.noSystem = noSystem
}

func (l *loader) readAuthorization(v value) authorization {
	a := authorization{at: v}
	if !l.isBlock(v, v.key) {
		return a
	}
	l.block(v, fields{
		"user username": l.str(&a.user),
		"pass password": l.str(&a.password),
		"token":         l.str(&a.token),
		"timeout":       l.authTimeout(&a.timeout),
		"users":         func(v value) { a.users = l.users(v) },
		"default_permission default_permissions permissions": l.permissions(&a.defaults),
		"auth_callout auth_hook":                             l.refuse("connections would be let in without asking the callout"),
		"proxy_required":                                     l.proxyRequired,
	}, unknownField)
	setDefaultPermissions(a.users, a.defaults)
	return a
}

func (l *loader) proxyRequired(v value) {
	if v.raw != false {
		l.refuse("connections would not be bound to the trusted proxies")(v)
	}
}

func (l *loader) authTimeout(dst *time.Duration) func(value) {
	return func(v value) {
		l.timeout(dst, "authorization")(v)
		if *dst > time.Minute {
			l.misuse(v, "timeout of %v (%f seconds) is high, consider keeping it under 60 seconds. "+
				"possibly caused by unquoted duration; use '1m' instead of 1m, for example", v.raw, dst.Seconds())
		}
	}
}

func setDefaultPermissions(users []*User, p *Permissions) {
	for _, u := range users {
		if u.Permissions == nil {
			u.Permissions = p
		}
	}
}

// users reads a list of users. The result is never nil.
func (l *loader) users(v value) []*User {
	out := []*User{}
	if _, ok := v.raw.([]any); !ok {
		l.fail(v, "Expected users field to be an array, got %s", v)
		return out
	}
	for _, e := range v.elements() {
		if _, ok := e.raw.(map[string]any); !ok {
			l.fail(e, "Expected user entry to be a map/struct, got %s", e)
			continue
		}
		if u := l.user(e); u != nil {
			out = append(out, u)
		}
	}
	return out
}

// user reads one user, nil if it cannot be one.
func (l *loader) user(v value) *User {
	u := new(User)
	before := len(l.errs)
	l.block(v, fields{
		"nkey":                                 l.str(&u.NKey),
		"user username":                        l.str(&u.Name),
		"pass password":                        l.str(&u.Password),
		"permission permissions authorization": l.permissions(&u.Permissions),
		"allowed_connection_types connection_types clients": l.connectionTypes(&u.AllowedConnectionTypes),
		"proxy_required": l.proxyRequired,
	}, unknownField)
	switch {
	case len(l.errs) > before:
	case u.NKey == "" && u.Name == "":
		l.fail(v, "User entry requires a user")
	case u.NKey == "":
		return u
	case !nkeys.IsValidPublicUserKey(u.NKey):
		l.fail(v, "Not a valid public nkey for a user")
	case u.Name != "" || u.Password != "":
		l.fail(v, "Nkey users do not take usernames or passwords")
	default:
		return u
	}
	return nil
}

func (l *loader) connectionTypes(dst *[]string) func(value) {
	return func(v value) {
		var types []string
		l.strs(&types)(v)
		for i, t := range types {
			types[i] = strings.ToUpper(t)
			switch types[i] {
			case "STANDARD", "WEBSOCKET", "LEAFNODE", "LEAFNODE_WS", "MQTT", "MQTT_WS", "IN_PROCESS":
			default:
				l.fail(v, "unknown connection type %q", t)
			}
		}
		*dst = types
	}
}

// permissions reads what a user may publish to and subscribe to.
func (l *loader) permissions(dst **Permissions) func(value) {
	return func(v value) {
		if _, ok := v.raw.(map[string]any); !ok {
			l.fail(v, "Expected permissions to be a map/struct, got %s", v)
			return
		}
		p := new(Permissions)
		l.block(v, fields{
			"pub publish import":                      func(v value) { p.Publish = l.subjectPermission(v, false) },
			"sub subscribe export":                    func(v value) { p.Subscribe = l.subjectPermission(v, true) },
			"publish_allow_responses allow_responses": func(v value) { p.Responses = l.responses(v) },
		}, "Unknown field %q parsing permissions")
		if p.Responses != nil {
			p.Publish = onlyResponses(p.Publish)
		}
		*dst = p
	}
}

// onlyResponses takes away the right to publish anywhere which comes with having no allow list:
// who may answer may not do more unless told so.
func onlyResponses(p *SubjectPermission) *SubjectPermission {
	if p == nil {
		p = new(SubjectPermission)
	}
	if p.Allow == nil {
		p.Allow = []string{}
	}
	return p
}

// subjectPermission reads either a list of what is allowed or a block with allow and deny.
func (l *loader) subjectPermission(v value, queues bool) *SubjectPermission {
	m, ok := v.raw.(map[string]any)
	if !ok {
		return &SubjectPermission{Allow: l.subjects(v, queues)}
	}
	if len(m) == 0 {
		return nil
	}
	p := new(SubjectPermission)
	l.block(v, fields{
		"allow": func(v value) { p.Allow = l.subjects(v, queues) },
		"deny":  func(v value) { p.Deny = l.subjects(v, queues) },
	}, "Unknown field name %q parsing subject permissions, only 'allow' or 'deny' are permitted")
	return p
}

// subjects reads subjects of a permission; with queues an entry may be "subject queue".
func (l *loader) subjects(v value, queues bool) []string {
	out := []string{}
	for _, e := range v.elements() {
		s, ok := e.raw.(string)
		if !ok {
			l.fail(e, "Expected subject permissions to be a subject, or array of subjects, got %s", e)
			continue
		}
		if err := checkPermissionSubject(s, queues); err != nil {
			l.fail(e, "%v", err)
			continue
		}
		out = append(out, s)
	}
	return out
}

func checkPermissionSubject(s string, queues bool) error {
	if validSubject(s) {
		return nil
	}
	parts := strings.Fields(s)
	switch {
	case !queues || len(parts) != 2:
		return fmt.Errorf("subject %q is not a valid subject", s)
	case !validSubject(parts[0]):
		return fmt.Errorf("subject %q is not a valid subject", parts[0])
	case !validSubject(parts[1]):
		return fmt.Errorf("queue %q is not a valid queue", parts[1])
	}
	return nil
}

// responses reads allow_responses: a boolean, or limits. Zero stands for the default.
func (l *loader) responses(v value) *ResponsePermission {
	p := &ResponsePermission{MaxMsgs: responsesMaxDefault, Expires: responsesExpiresDefault}
	switch r := v.raw.(type) {
	case bool:
		if !r {
			return nil
		}
	case map[string]any:
		var most int
		var expires time.Duration
		l.block(v, fields{
			"max max_msgs max_messages max_responses": integer(l, &most, math.MinInt32, math.MaxInt32),
			"expires expiration ttl":                  l.textDuration(&expires),
		}, "Unknown field %q parsing permissions")
		if most != 0 {
			p.MaxMsgs = most
		}
		if expires != 0 {
			p.Expires = expires
		}
	default:
		l.fail(v, "error parsing response permissions, expected a boolean or a map")
		return nil
	}
	return p
}

// finishAuth takes the authorization block over, once the users of the accounts are known.
func (l *loader) finishAuth() {
	a, c := &l.auth, l.cfg
	if a.user != "" && a.token != "" {
		l.fail(a.at, "Cannot have a user/pass and token")
	}
	if a.users != nil && a.user != "" {
		l.fail(a.at, "Can not have a single user/pass and a users array")
	}
	if a.users != nil && a.token != "" {
		l.fail(a.at, "Can not have a token and a users array")
	}
	c.Auth = Auth{User: a.user, Password: a.password, Token: a.token, Users: a.users, Timeout: a.timeout}
	l.noDuplicates(a.at, a.users, l.userNames())
}

// userNames returns the names and keys of the users of all accounts.
func (l *loader) userNames() map[string]bool {
	names := make(map[string]bool)
	for _, b := range l.accountBlocks {
		l.noDuplicates(b.usersAt, b.account.Users, names)
	}
	return names
}

// noDuplicates complains about users already in seen, and adds the rest.
func (l *loader) noDuplicates(at value, users []*User, seen map[string]bool) {
	for _, u := range users {
		switch {
		case u.NKey != "" && seen[u.NKey]:
			l.fail(at, "Duplicate nkey %q detected", u.NKey)
		case u.NKey == "" && seen[u.Name]:
			l.fail(at, "Duplicate user %q detected", u.Name)
		}
		seen[u.NKey+u.Name] = true
	}
}

// checkNoAuthUser is for the users of c; who is empty when there is none to check.
func (c *Config) checkNoAuthUser(who string) error {
	if who == "" {
		return nil
	}
	if c.Operator != nil {
		return errors.New("no_auth_user not compatible with Trusted Operator")
	}
	users := c.AllUsers()
	if len(users) == 0 {
		return fmt.Errorf("no_auth_user: %q present, but users/nkeys are not defined", who)
	}
	for _, u := range users {
		if u.Name == who || u.NKey == who {
			return nil
		}
	}
	return fmt.Errorf("no_auth_user: %q not present as user or nkey in authorization block or account configuration", who)
}

// AllUsers returns the users of the authorization block and of all accounts.
func (c *Config) AllUsers() []*User {
	users := append([]*User(nil), c.Auth.Users...)
	for _, a := range c.Accounts {
		users = append(users, a.Users...)
	}
	return users
}

// AuthRequired says whether connections must say who they are (or be taken for NoAuthUser). Users
// of the system account alone do not count: they close that account and leave the rest open.
func (c *Config) AuthRequired() bool {
	if c.Operator != nil || c.Auth.User != "" || c.Auth.Token != "" || len(c.Auth.Users) > 0 {
		return true
	}
	for _, a := range c.Accounts {
		if a.Name != c.SystemAccount && len(a.Users) > 0 {
			return true
		}
	}
	return false
}
