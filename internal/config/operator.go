package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// Kinds of account resolvers.
const (
	ResolverMemory = "MEMORY" // the accounts are those of Preload
	ResolverURL    = "URL"    // asked over HTTP
	ResolverFull   = "FULL"   // a directory with all accounts
	ResolverCache  = "CACHE"  // a directory with some of them
)

// jwtPrefix begins every token written into a configuration instead of the name of its file.
const jwtPrefix = "eyJ"

// operatorFields read operator mode. Any of them turns it on, in the sense that finishOperator
// then looks whether they make sense together.
func (l *loader) operatorFields() fields {
	op := func(read func(*Operator, value)) func(value) {
		return func(v value) {
			if l.cfg.Operator == nil {
				l.cfg.Operator = new(Operator)
			}
			read(l.cfg.Operator, v)
		}
	}
	return fields{
		"operator operators roots root root_operators root_operator": op(l.operators),
		"resolver account_resolver accounts_resolver":                op(l.resolver),
		"resolver_preload":         op(l.preload),
		"resolver_pinned_accounts": op(func(o *Operator, v value) { l.strs(&o.PinnedAccounts)(v) }),
		"resolver_tls":             op(func(o *Operator, v value) { l.tlsInto(&o.ResolverTLS)(v) }),
		"trusted trusted_keys":     op(l.trustedKeys),
	}
}

// operators reads operator JWTs, each either the token itself or the name of its file.
func (l *loader) operators(o *Operator, v value) {
	var sources []string
	l.strs(&sources)(v)
	for _, s := range sources {
		claims, err := readOperator(s)
		if err != nil {
			l.fail(v, "error parsing operator JWT: %v", err)
			continue
		}
		o.Claims = append(o.Claims, claims)
	}
}

func readOperator(s string) (*jwt.OperatorClaims, error) {
	text := []byte(s)
	if !strings.HasPrefix(s, jwtPrefix) {
		var err error
		if text, err = os.ReadFile(s); err != nil {
			return nil, err
		}
	}
	token, err := jwt.ParseDecoratedJWT(text)
	if err != nil {
		return nil, err
	}
	return jwt.DecodeOperatorClaims(token)
}

// resolverURL is how a resolver's address is written: URL(http://host/path).
var resolverURL = regexp.MustCompile(`(?i)^\s*URL\s*\(\s*"?([^\s")]*)"?\s*\)\s*$`)

const resolverHint = "error parsing account resolver, should be MEM or URL(\"url\") or a map containing dir and type state=[FULL|CACHE])"

// resolver reads where account JWTs come from.
func (l *loader) resolver(o *Operator, v value) {
	switch r := v.raw.(type) {
	case string:
		word := strings.ToUpper(strings.TrimSpace(r))
		if word == "MEM" || word == ResolverMemory {
			o.ResolverType = ResolverMemory
			return
		}
		m := resolverURL.FindStringSubmatch(r)
		if m == nil {
			l.fail(v, resolverHint)
			return
		}
		if _, err := url.Parse(m[1]); err != nil {
			l.fail(v, "error parsing account resolver url [%q]", m[1])
			return
		}
		o.ResolverType, o.ResolverURL = ResolverURL, m[1]
	case map[string]any:
		l.directoryResolver(o, v)
	default:
		l.fail(v, "error parsing operator resolver, wrong type %s", v)
	}
}

func (l *loader) directoryResolver(o *Operator, v value) {
	var kind string
	var mayDelete, hardDelete bool
	var limit int
	var interval, timeout, ttl time.Duration
	l.block(v, fields{
		"type":         l.str(&kind),
		"dir":          l.str(&o.ResolverDir),
		"allow_delete": l.boolean(&mayDelete),
		"hard_delete":  l.boolean(&hardDelete),
		"limit":        integer(l, &limit, 0, 1<<31),
		"ttl":          l.textDuration(&ttl),
		"interval":     l.textDuration(&interval),
		"timeout":      l.textDuration(&timeout),
	}, unknownField)
	switch strings.ToUpper(kind) {
	case "MEM", ResolverMemory:
		o.ResolverType = ResolverMemory
		return
	case ResolverFull:
		o.ResolverType = ResolverFull
		if ttl != 0 {
			l.fail(v, "FULL does not accept ttl")
		}
		if hardDelete && !mayDelete {
			l.fail(v, "hard_delete has no effect without delete")
		}
	case ResolverCache:
		o.ResolverType = ResolverCache
		if interval != 0 {
			l.fail(v, "CACHE does not accept sync")
		}
		if mayDelete {
			l.fail(v, "CACHE does not accept allow_delete")
		}
	default:
		l.fail(v, resolverHint)
		return
	}
	if o.ResolverDir == "" {
		l.fail(v, "dir has no value and needs to point to a directory")
	}
	l.warn(v, "field %q is only read in this server: accounts are taken from the directory, not from the system account", v.key)
}

func (l *loader) preload(o *Operator, v value) {
	if _, ok := v.raw.(map[string]any); !ok {
		l.fail(v, "preload should be a map of account_public_key:account_jwt")
		return
	}
	l.strMap(&o.Preload)(v)
	for _, m := range v.members() {
		token, _ := m.raw.(string)
		if _, err := jwt.DecodeAccountClaims(token); err != nil {
			l.fail(m, "invalid account JWT")
		}
	}
}

func (l *loader) trustedKeys(o *Operator, v value) {
	l.strs(&o.TrustedKeys)(v)
	for _, k := range o.TrustedKeys {
		if !nkeys.IsValidPublicOperatorKey(k) {
			l.fail(v, "trust key %q required to be a valid public operator nkey", k)
		}
	}
}

// finishOperator fills in what operator JWTs imply. Settings of a resolver without any trusted key
// do not make operator mode.
func (l *loader) finishOperator() error {
	c := l.cfg
	o := c.Operator
	if o == nil {
		return nil
	}
	if len(o.Claims) > 0 && len(o.TrustedKeys) > 0 {
		return errors.New("conflicting options for 'TrustedKeys' and 'TrustedOperators'")
	}
	for _, claims := range o.Claims {
		if !claims.StrictSigningKeyUsage {
			o.TrustedKeys = append(o.TrustedKeys, claims.Subject)
		}
		o.TrustedKeys = append(o.TrustedKeys, claims.SigningKeys...)
	}
	if len(o.TrustedKeys) == 0 {
		c.Operator = nil
		return nil
	}
	if len(o.Claims) == 1 {
		first := o.Claims[0]
		if o.ResolverType == "" && first.AccountServerURL != "" {
			o.ResolverType, o.ResolverURL = ResolverURL, first.AccountServerURL+"/accounts"
		}
		if c.SystemAccount == "" {
			c.SystemAccount = first.SystemAccount
		}
	}
	for _, k := range o.PinnedAccounts {
		if !nkeys.IsValidPublicAccountKey(k) {
			return fmt.Errorf("pinned account key %q is not a valid public account nkey", k)
		}
	}
	switch {
	case o.ResolverType == "" && len(o.Claims) > 0:
		return errors.New("operators require an account resolver to be configured")
	case len(l.accountBlocks) > 0 && len(o.Claims) > 0:
		return errors.New("operators do not allow Accounts to be configured directly")
	case len(l.auth.users) > 0 && len(o.Claims) > 0:
		return errors.New("operators do not allow users to be configured directly")
	}
	return nil
}
