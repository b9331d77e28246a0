package auth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/bcrypt"
)

func mustNew(t *testing.T, o Options) *Authenticator {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func hash(t *testing.T, secret string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func keyPair(t *testing.T, make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
	t.Helper()
	kp, err := make()
	if err != nil {
		t.Fatal(err)
	}
	public, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return kp, public
}

func sign(t *testing.T, kp nkeys.KeyPair, nonce string) string {
	t.Helper()
	sig, err := kp.Sign([]byte(nonce))
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sig)
}

// check authenticates and compares the user found; "" means refused.
func check(t *testing.T, a *Authenticator, r Request, user string) Identity {
	t.Helper()
	if r.Type == "" {
		r.Type = Standard
	}
	id, err := a.Authenticate(&r)
	switch {
	case user == "" && !errors.Is(err, ErrViolation):
		t.Errorf("%+v: %v, want a violation", r, err)
	case user != "" && (err != nil || id.User != user):
		t.Errorf("%+v: %q, %v, want %q", r, id.User, err, user)
	}
	return id
}

func TestPasswordsAndTokens(t *testing.T) {
	a := mustNew(t, Options{
		Users: []User{{Name: "plain", Password: "p1"}, {Name: "hashed", Password: hash(t, "p2"), Account: "A"},
			{Name: "web", Password: "p", ConnectionTypes: []string{WebSocket}}},
		Accounts: map[string]Limits{"A": {Connections: 7}},
	})
	if id := check(t, a, Request{User: "plain", Pass: "p1"}, "plain"); id.Account != "$G" {
		t.Errorf("account %q", id.Account)
	}
	if id := check(t, a, Request{User: "hashed", Pass: "p2"}, "hashed"); id.Account != "A" || id.Limits.Connections != 7 {
		t.Errorf("%+v", id)
	}
	check(t, a, Request{User: "plain", Pass: "p2"}, "")
	check(t, a, Request{User: "hashed", Pass: "p1"}, "")
	check(t, a, Request{User: "nobody", Pass: ""}, "")
	check(t, a, Request{User: "web", Pass: "p"}, "")
	check(t, a, Request{User: "web", Pass: "p", Type: WebSocket}, "web")
	check(t, a, Request{}, "")

	for _, token := range []string{"s3cret", hash(t, "s3cret")} {
		a = mustNew(t, Options{Token: token})
		check(t, a, Request{Token: "s3cret"}, "[REDACTED]")
		check(t, a, Request{Token: "other"}, "")
		check(t, a, Request{}, "")
	}
	a = mustNew(t, Options{Username: "u", Password: "p", Defaults: &Rules{Publish: Subjects{Deny: []string{"x"}}}})
	if id := check(t, a, Request{User: "u", Pass: "p"}, "u"); id.Permissions.CanPublish("x") {
		t.Error("the default permissions do not hold")
	}
	check(t, a, Request{User: "u", Pass: "q"}, "")
	check(t, a, Request{Pass: "p"}, "")
}

func TestNoAuthUser(t *testing.T) {
	o := Options{Users: []User{{Name: "a", Password: "p"}, {Name: "guest", Password: "g", Account: "G"}}, NoAuthUser: "guest"}
	a := mustNew(t, o)
	if a.Demanded() || !a.Required() {
		t.Error("credentials are required, but none are demanded")
	}
	if id := check(t, a, Request{}, "guest"); id.Account != "G" {
		t.Errorf("%+v", id)
	}
	check(t, a, Request{User: "a", Pass: "wrong"}, "")
	o.NoAuthUser = "missing"
	if _, err := New(o); err == nil {
		t.Error("an unknown no_auth_user was taken")
	}
}

func TestNKeys(t *testing.T) {
	kp, public := keyPair(t, nkeys.CreateUser)
	other, _ := keyPair(t, nkeys.CreateUser)
	a := mustNew(t, Options{NKeys: []NKey{{Public: public, Account: "A"}}})
	if !a.NeedsNonce() {
		t.Error("no nonce would be sent")
	}
	check(t, a, Request{NKey: public, Sig: sign(t, kp, "nonce"), Nonce: "nonce"}, public)
	sig, _ := kp.Sign([]byte("nonce"))
	check(t, a, Request{NKey: public, Sig: base64.StdEncoding.EncodeToString(sig), Nonce: "nonce"}, public)
	check(t, a, Request{NKey: public, Sig: sign(t, kp, "nonce"), Nonce: "another"}, "")
	check(t, a, Request{NKey: public, Sig: sign(t, other, "nonce"), Nonce: "nonce"}, "")
	check(t, a, Request{NKey: public, Nonce: "nonce"}, "")
	if _, err := New(Options{NKeys: []NKey{{Public: "UABC"}}}); err == nil {
		t.Error("a broken key was taken")
	}
}

func TestCertificateNames(t *testing.T) {
	link, _ := url.Parse("spiffe://x/y")
	cert := &x509.Certificate{EmailAddresses: []string{"a@b"}, DNSNames: []string{"host"}, URIs: []*url.URL{link},
		Subject: pkix.Name{CommonName: "cn", Organization: []string{"org"}}}
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	for _, name := range []string{"CN=cn,O=org", "spiffe://x/y", "host", "a@b"} {
		a := mustNew(t, Options{TLSMap: true, Users: []User{{Name: name}, {Name: "other"}}})
		check(t, a, Request{TLS: state, User: "other"}, name)
		check(t, a, Request{}, "")
	}
	a := mustNew(t, Options{TLSMap: true, Users: []User{{Name: "host"}, {Name: "a@b"}}})
	check(t, a, Request{TLS: state}, "a@b")
}

func TestRenew(t *testing.T) {
	kp, public := keyPair(t, nkeys.CreateUser)
	old := mustNew(t, Options{Users: []User{{Name: "u", Password: "p"}, {Name: "v", Password: "p"}}, NKeys: []NKey{{Public: public}}})
	u := check(t, old, Request{User: "u", Pass: "p"}, "u")
	v := check(t, old, Request{User: "v", Pass: "p"}, "v")
	k := check(t, old, Request{NKey: public, Nonce: "n", Sig: sign(t, kp, "n")}, public)
	next := mustNew(t, Options{Users: []User{
		{Name: "u", Password: "p", Permissions: &Rules{Publish: Subjects{Allow: []string{"only"}}}},
		{Name: "v", Password: "changed"}}})
	if id, ok := next.Renew(u); !ok || id.Permissions.CanPublish("other") {
		t.Error("u should stand with new permissions")
	}
	if _, ok := next.Renew(v); ok {
		t.Error("v stands though its password changed")
	}
	if _, ok := next.Renew(k); ok {
		t.Error("a key stands that is not configured any more")
	}
}

func TestRenewWithoutUsers(t *testing.T) {
	open := mustNew(t, Options{})
	id, err := open.Authenticate(&Request{Type: Standard})
	if err != nil || id.Account != "$G" {
		t.Fatal(id, err)
	}
	if _, ok := mustNew(t, Options{}).Renew(id); !ok {
		t.Error("nothing changed, yet the connection does not stand")
	}
	if _, ok := mustNew(t, Options{Token: "x"}).Renew(id); ok {
		t.Error("a connection stands that never authenticated")
	}
}

func TestPermissions(t *testing.T) {
	p, err := Compile(&Rules{
		Publish:   Subjects{Allow: []string{"a.*", "$JS.API.>"}, Deny: []string{"a.secret"}},
		Subscribe: Subjects{Allow: []string{"in.>", "q v1", "q v2.*", "r", "r *.dev"}, Deny: []string{"in.no", "in.q *.prod"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for subj, want := range map[string]bool{"a.x": true, "a.x.y": false, "a.secret": false, "$JS.API.INFO": true, "b": false} {
		if p.CanPublish(subj) != want {
			t.Errorf("publish %s: %v", subj, !want)
		}
	}
	for _, tc := range []struct {
		subj, queue string
		want        bool
	}{
		{"in.a", "", true}, {"in.*", "", true}, {"in.>", "", true}, {">", "", false}, {"in.no", "", false},
		{"in.no", "x", false}, {"in.q", "a.prod", false}, {"in.q", "a.dev", true},
		{"q", "", false}, {"q", "v1", true}, {"q", "v2.x", true}, {"q", "v3", false},
		{"r", "", true}, {"r", "a.dev", true}, {"r", "a.prod", false},
	} {
		if p.CanSubscribe(tc.subj, tc.queue) != tc.want {
			t.Errorf("subscribe %q queue %q: %v", tc.subj, tc.queue, !tc.want)
		}
	}
	if !p.Filtered("in.*") || p.Filtered("in.yes") || !p.Denies("in.no") || p.Denies("in.yes") {
		t.Error("the filter on delivery is wrong")
	}
	answers, err := Compile(&Rules{Responses: &Responses{Max: 1}})
	if err != nil || answers.CanPublish("x") {
		t.Error("a right to answer is taken for a right to publish", err)
	}
	for _, bad := range []Rules{
		{Publish: Subjects{Allow: []string{"a b"}}}, {Publish: Subjects{Deny: []string{"a..b"}}},
		{Subscribe: Subjects{Allow: []string{"a b c"}}}, {Subscribe: Subjects{Deny: []string{""}}},
	} {
		if _, err := Compile(&bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// operatorWorld is an operator, an account with a plain and a scoped signing key, and a user.
type operatorWorld struct {
	operator, account, signing, scoped, user           nkeys.KeyPair
	operatorID, accountID, signingID, scopedID, userID string
	claims                                             *jwt.AccountClaims
	now                                                time.Time
}

func newWorld(t *testing.T) *operatorWorld {
	w := &operatorWorld{now: time.Now()}
	w.operator, w.operatorID = keyPair(t, nkeys.CreateOperator)
	w.account, w.accountID = keyPair(t, nkeys.CreateAccount)
	w.signing, w.signingID = keyPair(t, nkeys.CreateAccount)
	w.scoped, w.scopedID = keyPair(t, nkeys.CreateAccount)
	w.user, w.userID = keyPair(t, nkeys.CreateUser)
	w.claims = jwt.NewAccountClaims(w.accountID)
	w.claims.Name = "acc"
	w.claims.SigningKeys.Add(w.signingID)
	scope := jwt.NewUserScope()
	scope.Key = w.scopedID
	scope.Template.Pub.Allow.Add("app.{{name()}}.{{tag(team)}}", "{{account-name()}}.>")
	w.claims.SigningKeys.AddScopedSigner(scope)
	return w
}

func (w *operatorWorld) authenticator(t *testing.T) *Authenticator {
	t.Helper()
	token, err := w.claims.Encode(w.operator)
	if err != nil {
		t.Fatal(err)
	}
	return mustNew(t, Options{Now: func() time.Time { return w.now }, Operator: &Operator{
		TrustedKeys: []string{w.operatorID},
		Account: func(id string) string {
			if id == w.accountID {
				return token
			}
			return ""
		}}})
}

func (w *operatorWorld) token(t *testing.T, signer nkeys.KeyPair, change func(*jwt.UserClaims)) string {
	t.Helper()
	c := jwt.NewUserClaims(w.userID)
	c.Name = "ann"
	if signer != w.account {
		c.IssuerAccount = w.accountID
	}
	if change != nil {
		change(c)
	}
	token, err := c.Encode(signer)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestOperatorMode(t *testing.T) {
	w := newWorld(t)
	a := w.authenticator(t)
	request := func(token string) Request {
		return Request{JWT: token, Nonce: "n", Sig: sign(t, w.user, "n"), Remote: netip.MustParseAddr("10.1.2.3")}
	}
	good := w.token(t, w.account, nil)
	if id := check(t, a, request(good), w.userID); id.Account != w.accountID || id.Permissions != nil {
		t.Errorf("%+v", id)
	}
	check(t, a, request(w.token(t, w.signing, nil)), w.userID)
	check(t, a, Request{JWT: good, Nonce: "n"}, "")
	check(t, a, Request{JWT: good, Nonce: "n", Sig: sign(t, w.account, "n")}, "")
	check(t, a, request("x.y.z"), "")
	check(t, a, Request{}, "")
	stranger, _ := keyPair(t, nkeys.CreateAccount)
	check(t, a, request(w.token(t, stranger, nil)), "")
	check(t, a, request(w.token(t, stranger, func(c *jwt.UserClaims) { c.IssuerAccount = "" })), "")

	bearer := w.token(t, w.account, func(c *jwt.UserClaims) { c.BearerToken = true })
	check(t, a, Request{JWT: bearer}, w.userID)
	check(t, a, request(w.token(t, w.account, func(c *jwt.UserClaims) { c.AllowedConnectionTypes.Add(WebSocket) })), "")
	check(t, a, request(w.token(t, w.account, func(c *jwt.UserClaims) { c.Src.Add("10.1.0.0/16") })), w.userID)
	check(t, a, request(w.token(t, w.account, func(c *jwt.UserClaims) { c.Src.Add("10.2.0.0/16") })), "")
	check(t, a, request(w.token(t, w.account, func(c *jwt.UserClaims) { c.NotBefore = w.now.Unix() + 100 })), "")

	limited := check(t, a, request(w.token(t, w.account, func(c *jwt.UserClaims) {
		c.Expires = w.now.Unix() + 100
		c.Limits.Subs, c.Limits.Payload = 5, 1000
		c.Permissions.Sub.Deny.Add("no.>")
	})), w.userID)
	if limited.Expires.Unix() != w.now.Unix()+100 || limited.Limits.Subscriptions != 5 || limited.Limits.Payload != 1000 ||
		limited.Permissions.CanSubscribe("no.x", "") {
		t.Errorf("%+v", limited)
	}
	w.now = w.now.Add(200 * time.Second)
	if _, ok := a.Renew(limited); ok {
		t.Error("an expired token stands")
	}
}

func TestScopedSigner(t *testing.T) {
	w := newWorld(t)
	a := w.authenticator(t)
	request := func(change func(*jwt.UserClaims)) Request {
		token := w.token(t, w.scoped, func(c *jwt.UserClaims) { c.SetScoped(true); change(c) })
		return Request{JWT: token, Nonce: "n", Sig: sign(t, w.user, "n")}
	}
	id := check(t, a, request(func(c *jwt.UserClaims) { c.Tags.Add("team:red", "team:blue") }), w.userID)
	for subj, want := range map[string]bool{"app.ann.red": true, "app.ann.blue": true, "app.bob.red": false, "acc.x": true, "x": false} {
		if id.Permissions.CanPublish(subj) != want {
			t.Errorf("publish %s: %v", subj, !want)
		}
	}
	if id := check(t, a, request(func(*jwt.UserClaims) {}), w.userID); id.Permissions.CanPublish("app.ann.") {
		t.Error("a tag that is missing matches")
	}
	check(t, a, request(func(c *jwt.UserClaims) { c.Permissions.Pub.Allow.Add(">") }), "")
}

func TestRevocation(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, w.account, nil)
	r := Request{JWT: token, Nonce: "n", Sig: sign(t, w.user, "n")}
	id := check(t, w.authenticator(t), r, w.userID)
	w.claims.RevokeAt(w.userID, w.now.Add(time.Second))
	revoked := w.authenticator(t)
	check(t, revoked, r, "")
	if _, ok := revoked.Renew(id); ok {
		t.Error("a revoked user stands")
	}
	w.claims.ClearRevocation(w.userID)
	w.claims.RevokeAt(jwt.All, w.now.Add(time.Second))
	check(t, w.authenticator(t), r, "")
}

func TestAccountNotSignedByTheOperator(t *testing.T) {
	w := newWorld(t)
	r := Request{JWT: w.token(t, w.account, nil), Nonce: "n", Sig: sign(t, w.user, "n")}
	w.operator, _ = keyPair(t, nkeys.CreateOperator) // Signs, but is not trusted.
	check(t, w.authenticator(t), r, "")
}

func TestHours(t *testing.T) {
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	spans := []jwt.TimeRange{{Start: "08:00:00", End: "09:00:00"}, {Start: "22:00:00", End: "02:00:00"}}
	for _, tc := range []struct{ hour, until int }{{8, 9}, {10, -1}, {23, 26}, {1, 2}, {2, -1}} {
		until, ok := inHours(spans, "UTC", day.Add(time.Duration(tc.hour)*time.Hour))
		if ok != (tc.until >= 0) {
			t.Errorf("at %d: %v", tc.hour, ok)
		}
		if ok && !until.Equal(day.Add(time.Duration(tc.until)*time.Hour)) {
			t.Errorf("at %d: until %v", tc.hour, until)
		}
	}
}
