package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Defaults, those of nats-server unless said otherwise.
const (
	defaultHost    = "0.0.0.0"
	loopbackHost   = "127.0.0.1"
	defaultPort    = 4222
	defaultMonitor = 8222 // only without a configuration file; nats-server has none then

	// defaultStoreDir is where data goes when nobody says anything: visible, beside the user, and
	// not in a temporary directory as with nats-server.
	defaultStoreDir = "cleat-data"

	// defaultClusterName is for servers without streams, which alone may leave it out. nats-server
	// lets them agree on a random one.
	defaultClusterName = "default"

	defaultMaxConnections  = 64 << 10
	defaultMaxControlLine  = 4 << 10
	defaultMaxPayload      = 1 << 20
	defaultMaxPending      = 64 << 20
	defaultWriteDeadline   = 10 * time.Second
	defaultPingInterval    = 2 * time.Minute
	defaultPingMax         = 2
	defaultTLSTimeout      = 2 * time.Second
	defaultAuthTimeout     = 2 * time.Second
	defaultLameDuck        = 2 * time.Minute
	defaultReplaceAfter    = 10 * time.Minute
	defaultTransferRate    = 50 << 20
	defaultLameDuckGrace   = 10 * time.Second
	defaultHandshakeWSWait = 2 * time.Second
)

// Load reads the configuration file, if flags name one, lets flags override it, fills in defaults
// and checks the whole. The error lists everything wrong, one complaint a line.
func Load(f *Flags) (*Config, error) {
	l := &loader{cfg: unset(), strict: f.Strict}
	if f.ConfigFile != "" {
		root, digest, err := readFile(f.ConfigFile)
		if err != nil {
			return nil, err
		}
		l.cfg.File, l.cfg.Digest = f.ConfigFile, digest
		l.root(root)
	} else {
		l.cfg.JetStream.Enabled = !f.AsNATS
	}
	if err := f.apply(l); err != nil {
		return nil, err
	}
	return l.finish(f)
}

// unset returns a Config in which the zero value of a field, or -1 where zero has a meaning, says
// that nobody set it.
func unset() *Config {
	c := new(Config)
	c.JetStream.MaxMemory, c.JetStream.MaxFile = -1, -1
	c.Log.Time = true
	c.Log.Format = LogFormatNATS
	c.KV.Storage = StorageFile
	return c
}

func (l *loader) finish(f *Flags) (*Config, error) {
	c := l.cfg
	l.finishJetStream()
	l.finishAuth()
	if err := l.finishOperator(); err != nil {
		l.errs = append(l.errs, problem{text: err.Error()})
	}
	l.finishAccounts()
	if err := l.err(); err != nil {
		return nil, err
	}
	c.setDefaults(f)
	if err := c.check(); err != nil {
		return nil, err
	}
	for _, p := range l.warnings {
		c.Warnings = append(c.Warnings, p.Error())
	}
	for _, p := range l.misuses {
		c.Misuses = append(c.Misuses, p.Error())
	}
	return c, nil
}

// setDefaults fills in what nobody said.
func (c *Config) setDefaults(f *Flags) {
	alone := c.File == "" && !f.AsNATS // Somebody tries it out.
	if c.Host == "" {
		c.Host = defaultHost
		if alone && !c.AuthRequired() {
			c.Host, c.LoopbackOnly = loopbackHost, true
		}
	}
	orDefault(&c.Port, defaultPort)
	c.setLimitDefaults()
	orDefault(&c.LameDuck.Duration, defaultLameDuck)
	orDefault(&c.LameDuck.Grace, defaultLameDuckGrace)

	if alone && !f.monitorSet && !c.Monitor.Enabled() {
		c.Monitor.Port, c.Monitor.Optional = defaultMonitor, true
	}
	orDefault(&c.Monitor.Host, c.Host)
	orDefault(&c.Monitor.BasePath, "/")

	if c.JetStream.Enabled {
		orDefault(&c.JetStream.StoreDir, defaultStoreDir)
	}
	if c.Cluster.Enabled() {
		orDefault(&c.Cluster.Host, c.clusterHost())
		if !c.JetStream.Enabled {
			orDefault(&c.Cluster.Name, defaultClusterName)
		}
		orDefault(&c.Cluster.ReplaceAfter, defaultReplaceAfter)
		orDefault(&c.Cluster.TransferRate, defaultTransferRate)
		orDefault(&c.Cluster.AuthTimeout, authTimeout(c.Cluster.TLS))
	}
	if c.WebSocket.Port != 0 {
		orDefault(&c.WebSocket.Host, defaultHost)
		orDefault(&c.WebSocket.HandshakeTimeout, defaultHandshakeWSWait)
	}
	orDefault(&c.Auth.Timeout, authTimeout(c.TLS))
	for _, t := range []*TLS{c.TLS, c.Cluster.TLS, c.WebSocket.TLS} {
		if t != nil {
			orDefault(&t.Timeout, defaultTLSTimeout)
		}
	}
}

// clusterHost keeps the peer listener as closed as the client listener when nobody opened either.
func (c *Config) clusterHost() string {
	if c.LoopbackOnly {
		return loopbackHost
	}
	return defaultHost
}

func (c *Config) setLimitDefaults() {
	lim := &c.Limits
	orDefault(&lim.MaxConnections, defaultMaxConnections)
	lim.MaxSubscriptions = max(lim.MaxSubscriptions, 0)
	orDefault(&lim.MaxControlLine, defaultMaxControlLine)
	orDefault(&lim.MaxPayload, defaultMaxPayload)
	orDefault(&lim.MaxPending, defaultMaxPending)
	orDefault(&lim.WriteDeadline, defaultWriteDeadline)
	orDefault(&lim.PingInterval, defaultPingInterval)
	orDefault(&lim.PingMax, defaultPingMax)
}

// orDefault sets what is still unset.
func orDefault[T comparable](dst *T, d T) {
	var zero T
	if *dst == zero {
		*dst = d
	}
}

// authTimeout leaves room for the TLS handshake that comes first.
func authTimeout(t *TLS) time.Duration {
	switch {
	case t == nil:
		return defaultAuthTimeout
	case t.Timeout > 0:
		return t.Timeout + time.Second
	}
	return defaultTLSTimeout + time.Second
}

// check judges the configuration as a whole.
func (c *Config) check() error {
	for _, check := range []func() error{
		c.checkLimits, c.checkNames, c.checkSystemAccount,
		func() error { return c.checkNoAuthUser(c.NoAuthUser) },
		c.checkMonitor, c.checkJetStream, c.checkWebSocket,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkLimits() error {
	if c.LameDuck.Grace >= c.LameDuck.Duration {
		return fmt.Errorf("lame duck grace period (%v) should be strictly lower than lame duck duration (%v)",
			c.LameDuck.Grace, c.LameDuck.Duration)
	}
	if int64(c.Limits.MaxPayload) > c.Limits.MaxPending {
		return fmt.Errorf("max_payload (%v) cannot be higher than max_pending (%v)", c.Limits.MaxPayload, c.Limits.MaxPending)
	}
	return nil
}

func (c *Config) checkNames() error {
	if strings.Contains(c.ServerName, " ") { // It may have come from a flag.
		return errors.New("server name cannot contain spaces")
	}
	if strings.Contains(c.Cluster.Name, " ") {
		return errors.New("cluster name cannot contain spaces")
	}
	return nil
}

func (c *Config) checkSystemAccount() error {
	if c.Operator == nil && c.SystemAccount != "" && c.Account(c.SystemAccount) == nil {
		return errors.New("error resolving system account: account missing")
	}
	return nil
}

func (c *Config) checkMonitor() error {
	m := &c.Monitor
	if m.Port != 0 && m.HTTPSPort != 0 {
		return fmt.Errorf("can't specify both HTTP (%v) and HTTPs (%v) ports", m.Port, m.HTTPSPort)
	}
	if m.HTTPSPort != 0 && c.TLS == nil {
		return errors.New("TLS cert and key required for HTTPS")
	}
	return nil
}

func (c *Config) checkJetStream() error {
	js := &c.JetStream
	if js.Domain != "" {
		if strings.ContainsAny(js.Domain, ".*>") {
			return errors.New("invalid domain name: may not contain ., * or >")
		}
		if strings.ContainsAny(js.Domain, " \t\r\n") {
			return fmt.Errorf("invalid domain name: derived %q is not a valid subject", "$JS."+js.Domain+".API.>")
		}
	}
	if !js.Enabled || !c.Cluster.Enabled() {
		return nil
	}
	if c.ServerName == "" {
		return errors.New("jetstream cluster requires `server_name` to be set")
	}
	if c.Cluster.Name == "" {
		return errors.New("jetstream cluster requires `cluster.name` to be set")
	}
	return nil
}
