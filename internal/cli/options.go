package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Options are the connection flags every client command has, with the names and environment variables
// of the nats tool. A flag goes before its variable, and both before the context.
type Options struct {
	Settings // what flags and variables say; resolve adds what the context says

	Context        string
	NoContext      bool
	Timeout        time.Duration
	ConnectionName string
	Trace          bool

	eventPrefix string // accepted for the nats tool's sake: no command here reads advisories
	flags       *pflag.FlagSet
}

// envOf names the environment variable behind a flag. They are read after parsing, not as defaults,
// for --help prints defaults and some of these are secrets.
var envOf = map[string]string{
	"server": "NATS_URL", "user": "NATS_USER", "password": "NATS_PASSWORD", "token": "NATS_TOKEN",
	"creds": "NATS_CREDS", "nkey": "NATS_NKEY", "jwt": "NATS_JWT", "seed": "NATS_SEED",
	"tlscert": "NATS_CERT", "tlskey": "NATS_KEY", "tlsca": "NATS_CA", "timeout": "NATS_TIMEOUT",
	"socks-proxy": "NATS_SOCKS_PROXY", "colors": "NATS_COLOR", "context": "NATS_CONTEXT",
}

// AddFlags declares the flags in fs, as persistent flags of the command that has them.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	str := func(dst *string, name, short, value, usage string) {
		if env := envOf[name]; env != "" {
			usage += " ($" + env + ")"
		}
		fs.StringVarP(dst, name, short, "", fmt.Sprintf(usage, "`"+value+"`"))
	}
	str(&o.URL, "server", "s", "URL", "NATS server %s, or several with commas")
	str(&o.User, "user", "", "USER", "%s name, or token when there is no password")
	str(&o.Password, "password", "", "PASSWORD", "%s")
	str(&o.Token, "token", "", "TOKEN", "%s")
	str(&o.Creds, "creds", "", "FILE", "user credentials %s")
	str(&o.NKey, "nkey", "", "FILE", "user nkey seed %s")
	str(&o.UserJWT, "jwt", "", "JWT", "user %s")
	str(&o.UserSeed, "seed", "", "SEED", "user %s")
	str(&o.Cert, "tlscert", "", "FILE", "TLS public certificate %s")
	str(&o.Key, "tlskey", "", "FILE", "TLS private key %s")
	str(&o.CA, "tlsca", "", "FILE", "TLS certificate authority %s")
	str(&o.SocksProxy, "socks-proxy", "", "URL", "SOCKS5 proxy %s")
	str(&o.JSDomain, "js-domain", "", "DOMAIN", "JetStream %s")
	str(&o.JSDomain, "domain", "", "DOMAIN", "JetStream %s")
	str(&o.JSAPIPrefix, "js-api-prefix", "", "PREFIX", "%s of the JetStream API's subjects")
	str(&o.eventPrefix, "js-event-prefix", "", "PREFIX", "%s of JetStream advisories; unused")
	str(&o.InboxPrefix, "inbox-prefix", "", "PREFIX", "%s of reply subjects")
	str(&o.Context, "context", "", "NAME", "connection context: a %s, or a .json file")
	str(&o.ColorScheme, "colors", "", "SCHEME", "color %s: "+strings.Join(ColorSchemes(), ", "))
	fs.StringVar(&o.ConnectionName, "connection-name", "cleat CLI", "`NAME` of the connection, shown by the server")
	fs.Var(NewDuration(&o.Timeout, 5*time.Second), "timeout", "how long to wait for an answer ($NATS_TIMEOUT)")
	fs.BoolVar(&o.TLSFirst, "tlsfirst", false, "do the TLS handshake before the server's greeting")
	fs.BoolVar(&o.TLSFirst, "tls-first", false, "same as --tlsfirst")
	fs.BoolVar(&o.NoContext, "no-context", false, "ignore the selected context")
	fs.BoolVar(&o.Trace, "trace", false, "show the requests made and their answers, on standard error")
	for _, alias := range []string{"domain", "tls-first", "js-event-prefix"} {
		fs.Lookup(alias).Hidden = true
	}
}

// applyEnvironment sets each flag that was not given from its variable, with the flag's own checks.
func (o *Options) applyEnvironment() error {
	for name, env := range envOf {
		value := os.Getenv(env)
		if f := o.flags.Lookup(name); value != "" && !f.Changed {
			if err := f.Value.Set(value); err != nil {
				return Usagef("invalid %s: %v", env, err)
			}
		}
	}
	if o.ColorScheme != "" && !slices.Contains(ColorSchemes(), o.ColorScheme) {
		return Usagef("unknown color scheme %q: use one of %s", o.ColorScheme, strings.Join(ColorSchemes(), ", "))
	}
	return nil
}

// resolve is the settings to connect with: the context's, overridden by flags and variables. It also
// returns the name of the context, "" if none is in use.
func (o *Options) resolve() (Settings, string, error) {
	if err := o.applyEnvironment(); err != nil {
		return Settings{}, "", err
	}
	var s Settings
	var name string
	if !o.NoContext {
		var err error
		if s, name, err = loadContext(o.Context); err != nil {
			return s, name, err
		}
	}
	given := o.Settings
	if given.User != "" && given.Password == "" {
		given.User, given.Token = "", firstOf(given.Token, given.User)
	}
	s.override(given)
	if s.NSC != "" && (s.Creds == "" || s.URL == "") {
		p, err := nscProfile(s.NSC)
		if err != nil {
			return s, name, err
		}
		s.Creds = firstOf(s.Creds, p.UserCreds)
		s.URL = firstOf(s.URL, strings.Join(p.Operator.Service, ","))
	}
	return s, name, nil
}

// override replaces what g sets. Who we are is replaced as a whole: with a user in the context and
// credentials on the command line, the latter must win, not be mixed with the former. Only the second
// half of a pair may be given alone.
func (s *Settings) override(g Settings) {
	if g.User+g.Token+g.Creds+g.NKey+g.UserJWT != "" {
		s.User, s.Token, s.Creds, s.NKey, s.UserJWT = g.User, g.Token, g.Creds, g.NKey, g.UserJWT
	}
	for _, f := range []struct{ dst, src *string }{
		{&s.URL, &g.URL}, {&s.SocksProxy, &g.SocksProxy},
		{&s.Password, &g.Password}, {&s.UserSeed, &g.UserSeed},
		{&s.Cert, &g.Cert}, {&s.Key, &g.Key}, {&s.CA, &g.CA},
		{&s.JSDomain, &g.JSDomain}, {&s.JSAPIPrefix, &g.JSAPIPrefix},
		{&s.InboxPrefix, &g.InboxPrefix}, {&s.ColorScheme, &g.ColorScheme},
	} {
		*f.dst = firstOf(*f.src, *f.dst)
	}
	if s.SocksProxy == "none" {
		s.SocksProxy = "" // How the nats tool switches a context's proxy off.
	}
	s.TLSFirst = s.TLSFirst || g.TLSFirst
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
