package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/config"
)

const (
	// accountJWTMax bounds the answer of an account server.
	accountJWTMax = 1 << 20
	// accountFetchTimeout is how long an account server may take, accountKept how long its answer
	// is believed.
	accountFetchTimeout = 2 * time.Second
	accountKept         = time.Minute
)

// newOperator makes the part of operator mode that finds account JWTs; nil without operator mode.
func newOperator(o *config.Operator) (*auth.Operator, error) {
	if o == nil {
		return nil, nil
	}
	find := func(string) string { return "" }
	switch o.ResolverType {
	case config.ResolverFull, config.ResolverCache:
		find = func(account string) string { return readAccount(o.ResolverDir, account) }
	case config.ResolverURL:
		f, err := newAccountFetcher(o)
		if err != nil {
			return nil, err
		}
		find = f.find
	}
	return &auth.Operator{
		TrustedKeys: o.TrustedKeys,
		Pinned:      o.PinnedAccounts,
		Account: func(account string) string {
			if t := o.Preload[account]; t != "" {
				return t
			}
			if !nkeys.IsValidPublicAccountKey(account) {
				return "" // It would become part of a path or a URL.
			}
			return find(account)
		},
	}, nil
}

// claimedLimits is what an account's JWT says of JetStream. An account with limits by number of
// replicas has those of one replica, or else of three: the two are not told apart here.
func claimedLimits(token string) (limits api.AccountLimits, ok bool) {
	claims, err := jwt.DecodeAccountClaims(token)
	if err != nil || !claims.Limits.IsJSEnabled() {
		return limits, false
	}
	l := claims.Limits.JetStreamLimits
	for _, tier := range []string{"R3", "R1"} {
		if t, ok := claims.Limits.JetStreamTieredLimits[tier]; ok {
			l = t
		}
	}
	return api.AccountLimits{
		MaxMemory: l.MemoryStorage, MaxStorage: l.DiskStorage, MaxStreams: int(l.Streams), MaxConsumers: int(l.Consumer),
		MaxAckPending: int(l.MaxAckPending), MemoryMaxStreamBytes: orUnlimited(l.MemoryMaxStreamBytes),
		StoreMaxStreamBytes: orUnlimited(l.DiskMaxStreamBytes), MaxBytesRequired: l.MaxBytesRequired,
	}, true
}

// orUnlimited reads the fields of a JWT in which 0 stands for no limit.
func orUnlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// readAccount reads an account's JWT from a directory as nsc and nats-server lay it out: one file
// each, or in folders by the last two letters of the key.
func readAccount(dir, account string) string {
	for _, path := range []string{
		filepath.Join(dir, account+".jwt"),
		filepath.Join(dir, account[len(account)-2:], account+".jwt"),
	} {
		if b, err := os.ReadFile(path); err == nil {
			return string(b)
		}
	}
	return ""
}

// accountFetcher asks an account server and remembers its answers for a while.
type accountFetcher struct {
	url    string
	client *http.Client

	mu   sync.Mutex
	seen map[string]fetched
}

type fetched struct {
	token string
	at    time.Time
}

func newAccountFetcher(o *config.Operator) (*accountFetcher, error) {
	f := &accountFetcher{url: o.ResolverURL, seen: make(map[string]fetched)}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if o.ResolverTLS != nil {
		t, err := o.ResolverTLS.ClientConfig()
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = t
	}
	f.client = &http.Client{Timeout: accountFetchTimeout, Transport: transport}
	return f, nil
}

// find returns an account's JWT. When the account server does not answer, what it said before is
// still good: the token itself says until when it may be used.
func (f *accountFetcher) find(account string) string {
	f.mu.Lock()
	known, ok := f.seen[account]
	f.mu.Unlock()
	if ok && time.Since(known.at) < accountKept {
		return known.token
	}
	token, err := f.fetch(account)
	if err != nil {
		return known.token
	}
	f.mu.Lock()
	f.seen[account] = fetched{token, time.Now()}
	f.mu.Unlock()
	return token
}

func (f *accountFetcher) fetch(account string) (string, error) {
	r, err := f.client.Get(f.url + "/" + account)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("account server: %s", r.Status)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, accountJWTMax))
	return string(b), err
}
