package auth

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// Operator is the trust that operator mode rests on: operators sign accounts, accounts sign users.
type Operator struct {
	TrustedKeys []string // Public keys of operators and their signing keys.

	// Account returns the JWT of an account by its public key, empty if it is not known. It may be
	// called from many goroutines at a time.
	Account func(public string) string

	// Pinned, if not empty, are the only accounts that may connect.
	Pinned []string
}

func (o *Operator) validate() error {
	if o == nil {
		return nil
	}
	for _, k := range o.TrustedKeys {
		if !nkeys.IsValidPublicOperatorKey(k) {
			return fmt.Errorf("auth: trusted key %q is not the public key of an operator", k)
		}
	}
	return nil
}

// claims returns the account's JWT once it is found to be signed by the operator and in force.
func (o *Operator) claims(account string, now time.Time) *jwt.AccountClaims {
	if len(o.Pinned) > 0 && !slices.Contains(o.Pinned, account) {
		return nil
	}
	token := o.Account(account)
	if token == "" {
		return nil
	}
	c, err := jwt.DecodeAccountClaims(token) // Checks the signature against the issuer it names.
	if err != nil || c.Subject != account || !slices.Contains(o.TrustedKeys, c.Issuer) || !inForce(&c.ClaimsData, now) {
		return nil
	}
	return c
}

func inForce(c *jwt.ClaimsData, now time.Time) bool {
	at := now.Unix()
	return (c.Expires == 0 || at < c.Expires) && (c.NotBefore == 0 || at >= c.NotBefore)
}

func (a *Authenticator) byJWT(r *Request) (id Identity, ok bool) {
	if r.JWT == "" {
		return id, false
	}
	return a.judgeJWT(r.JWT, r, r.Remote, r.Type)
}

// judgeJWT walks from the user's token up to the operator. With a nil request the signature over
// the nonce was verified before and is not asked for again.
func (a *Authenticator) judgeJWT(token string, r *Request, addr netip.Addr, ctype string) (id Identity, ok bool) {
	now := a.opts.Now()
	user, err := jwt.DecodeUserClaims(token)
	if err != nil || !nkeys.IsValidPublicUserKey(user.Subject) || !inForce(&user.ClaimsData, now) {
		return id, false
	}
	issuer := user.Issuer
	if user.IssuerAccount != "" {
		issuer = user.IssuerAccount
	}
	account := a.opts.Operator.claims(issuer, now)
	if account == nil || account.IsClaimRevoked(user) {
		return id, false
	}
	if user.Issuer != account.Subject && !a.signedByKey(account, user) {
		return id, false
	}
	if r != nil {
		if user.BearerToken && account.Limits.DisallowBearer {
			return id, false
		}
		if !user.BearerToken && !verifySignature(user.Subject, r.Sig, r.Nonce) {
			return id, false
		}
	}
	if types := user.AllowedConnectionTypes; len(types) > 0 && !slices.Contains(types, ctype) {
		return id, false
	}
	if !inSources(user.Src, addr) {
		return id, false
	}
	until, ok := inHours(user.Times, user.Locale, now)
	if !ok {
		return id, false
	}
	return a.jwtIdentity(token, user, account, until)
}

// signedByKey tells whether the user was signed by a signing key of the account. If the key is
// scoped, the scope's template becomes the user's permissions.
func (a *Authenticator) signedByKey(account *jwt.AccountClaims, user *jwt.UserClaims) bool {
	scope, ok := account.SigningKeys.GetScope(user.Issuer)
	if !ok {
		return false
	}
	if scope == nil {
		return true
	}
	if scope.ValidateScopedSigner(user) != nil {
		return false
	}
	template, ok := scope.(*jwt.UserScope)
	if !ok {
		return false
	}
	filled, err := fillTemplate(template.Template, user, account)
	if err != nil {
		return false
	}
	user.UserPermissionLimits = filled
	return true
}

func (a *Authenticator) jwtIdentity(token string, user *jwt.UserClaims, account *jwt.AccountClaims, until time.Time) (Identity, bool) {
	rules := jwtRules(&user.Permissions)
	if rules == nil {
		rules = jwtRules(&account.DefaultPermissions)
	}
	perms, err := Compile(rules)
	if err != nil {
		return Identity{}, false
	}
	for _, at := range []int64{user.Expires, account.Expires} {
		if t := time.Unix(at, 0); at != 0 && (until.IsZero() || t.Before(until)) {
			until = t
		}
	}
	return Identity{
		Account:     account.Subject,
		User:        user.Subject,
		Permissions: perms,
		Expires:     until,
		Limits: Limits{
			Connections:   bound(account.Limits.Conn),
			Subscriptions: tighter(bound(user.Limits.Subs), bound(account.Limits.Subs)),
			Payload:       tighter(bound(user.Limits.Payload), bound(account.Limits.Payload)),
		},
		proof: proof{kind: byJWT, name: token},
	}, true
}

// bound turns a JWT's limit, where -1 is none, into ours.
func bound(n int64) int { return int(max(n, 0)) }

func tighter(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func jwtRules(p *jwt.Permissions) *Rules {
	if p.Pub.Empty() && p.Sub.Empty() && p.Resp == nil {
		return nil
	}
	r := &Rules{
		Publish:   Subjects{Allow: p.Pub.Allow, Deny: p.Pub.Deny},
		Subscribe: Subjects{Allow: p.Sub.Allow, Deny: p.Sub.Deny},
	}
	if p.Resp != nil {
		r.Responses = &Responses{Max: p.Resp.MaxMsgs, TTL: p.Resp.Expires}
		if r.Responses.Max == 0 {
			r.Responses.Max = ResponsesMaxDefault
		}
		if r.Responses.TTL == 0 {
			r.Responses.TTL = ResponsesTTLDefault
		}
	}
	return r
}

// inSources tells whether the address is in one of the networks, or there are none.
func inSources(networks []string, addr netip.Addr) bool {
	if len(networks) == 0 {
		return true
	}
	return slices.ContainsFunc(networks, func(s string) bool {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		return err == nil && p.Contains(addr.Unmap())
	})
}

// inHours tells whether now is within one of the daily spans, and until when. A span that ends
// before it begins reaches over midnight.
func inHours(spans []jwt.TimeRange, locale string, now time.Time) (until time.Time, ok bool) {
	if len(spans) == 0 {
		return until, true
	}
	zone := time.Local
	if locale != "" {
		var err error
		if zone, err = time.LoadLocation(locale); err != nil {
			return until, false
		}
	}
	now = now.In(zone)
	for _, span := range spans {
		from, err1 := time.ParseInLocation(time.TimeOnly, span.Start, zone)
		to, err2 := time.ParseInLocation(time.TimeOnly, span.End, zone)
		if err1 != nil || err2 != nil {
			return until, false
		}
		start := onDay(now, from)
		end := onDay(now, to)
		if end.Before(start) {
			if now.Before(end) {
				start = start.AddDate(0, 0, -1)
			} else {
				end = end.AddDate(0, 0, 1)
			}
		}
		if !now.Before(start) && now.Before(end) {
			return end, true
		}
	}
	return until, false
}

func onDay(day, clock time.Time) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, day.Location())
}
