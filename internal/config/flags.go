package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Flags is a command line. It has nats-server's names, with one dash or two, and a few of our own
// for what a configuration file says in the kv block.
type Flags struct {
	ConfigFile string
	Check      bool   // check the configuration and exit
	Signal     string // send this signal to a running server and exit
	Version    bool
	Help       bool
	HelpTLS    bool
	Strict     bool // what would be ignored with a warning is an error
	// AsNATS leaves off what nobody asked for, as nats-server does, when there is no file: JetStream,
	// monitoring, and staying on this machine.
	AsNATS bool
	Args   []string // what is left

	// overrides change what the file said, in the order of the command line. They cannot be applied
	// before the file is read.
	overrides  []func(*Config)
	monitorSet bool
	routesSet  bool
	tls        tlsFlags
	auth       authFlags
}

// tlsFlags together make one TLS block.
type tlsFlags struct {
	on, off bool // -tls, -tls=false
	given   bool // any of the others
	TLS
}

// authFlags take the place of what the authorization block says.
type authFlags struct{ user, password, token string }

// ParseFlags reads a command line, without the program's name.
func ParseFlags(name string, args []string) (*Flags, error) {
	f := new(Flags)
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // The caller prints the error, and the usage if asked for.
	f.declare(fs)
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		f.Help = true
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	f.Args = fs.Args()
	return f, nil
}

// direct declares names of a flag that is not part of the configuration.
func direct[T any](declare func(*T, string, T, string), dst *T, names ...string) {
	for _, n := range names {
		declare(dst, n, *dst, "")
	}
}

// override declares names of a flag whose value, once read, changes the configuration.
func override[T any](f *Flags, fs *flag.FlagSet, read func(string) (T, error), set func(*Config, T), names ...string) {
	for _, n := range names {
		take := func(s string) error {
			t, err := read(s)
			if err == nil {
				f.overrides = append(f.overrides, func(c *Config) { set(c, t) })
			}
			return err
		}
		if _, ok := any(*new(T)).(bool); ok {
			fs.BoolFunc(n, "", take)
		} else {
			fs.Func(n, "", take)
		}
	}
}

func (f *Flags) declare(fs *flag.FlagSet) {
	direct(fs.StringVar, &f.ConfigFile, "c", "config")
	direct(fs.StringVar, &f.Signal, "sl", "signal")
	direct(fs.BoolVar, &f.Check, "t")
	direct(fs.BoolVar, &f.Version, "v", "version")
	direct(fs.BoolVar, &f.HelpTLS, "help_tls")
	direct(fs.BoolVar, &f.Strict, "strict-config", "strict_config")
	direct(fs.StringVar, &f.auth.user, "user")
	direct(fs.StringVar, &f.auth.password, "pass")
	direct(fs.StringVar, &f.auth.token, "auth")

	override(f, fs, text, func(c *Config, s string) { c.Host = s }, "a", "addr", "net")
	override(f, fs, strconv.Atoi, func(c *Config, n int) { c.Port = n }, "p", "port")
	override(f, fs, text, func(c *Config, s string) { c.ServerName = s }, "n", "name", "server_name")
	override(f, fs, text, func(c *Config, s string) { c.ClientAdvertise = s }, "client_advertise")
	override(f, fs, text, func(c *Config, s string) { c.PidFile = s }, "P", "pid")
	override(f, fs, text, func(c *Config, s string) { c.PortsFileDir = s }, "ports_file_dir")
	override(f, fs, strconv.Atoi, func(c *Config, n int) { c.Monitor.Port, f.monitorSet = n, true }, "m", "http_port")
	override(f, fs, strconv.Atoi, func(c *Config, n int) { c.Monitor.HTTPSPort, f.monitorSet = n, true }, "ms", "https_port")
	override(f, fs, strconv.Atoi, func(c *Config, n int) { c.ProfPort = n }, "profile")

	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.JetStream.Enabled = on }, "js", "jetstream")
	override(f, fs, text, func(c *Config, s string) { c.JetStream.StoreDir = s }, "sd", "store_dir")
	override(f, fs, word(StorageFile, StorageRocksDB), func(c *Config, s string) { c.KV.Storage = s }, "kv_storage")
	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.KV.StaleReads = on }, "stale_reads")
	// Accepted since scripts have them; there is nothing to set.
	override(f, fs, strconv.Atoi, func(*Config, int) {}, "max_traced_msg_len", "connect_retries")
	f.declareLog(fs)
	f.declareCluster(fs)
	f.declareTLS(fs)
}

func (f *Flags) declareLog(fs *flag.FlagSet) {
	bytes := func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }
	override(f, fs, text, func(c *Config, s string) { c.Log.File = s }, "l", "log")
	override(f, fs, bytes, func(c *Config, n int64) { c.Log.FileSizeLimit = n }, "log_size_limit")
	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.Log.Time = on }, "T", "logtime")
	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.Log.TimeUTC = on }, "logtime_utc")
	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.Log.Syslog = on }, "s", "syslog")
	override(f, fs, text, func(c *Config, s string) { c.Log.RemoteSyslog = s }, "r", "remote_syslog")
	override(f, fs, word(LogFormatNATS, LogFormatJSON), func(c *Config, s string) { c.Log.Format = s }, "log_format")

	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.Log.Debug = on }, "D", "debug")
	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.Log.Trace = on }, "V", "VV", "trace")
	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.Log.Debug, c.Log.Trace = on, on }, "DV", "DVV")
}

func (f *Flags) declareCluster(fs *flag.FlagSet) {
	override(f, fs, routeList, func(c *Config, r []*url.URL) { c.Cluster.Routes, f.routesSet = r, len(r) > 0 }, "routes")
	override(f, fs, clusterListen, func(c *Config, l clusterAddress) {
		c.Cluster.Host, c.Cluster.Port = l.host, l.port
		c.Cluster.User, c.Cluster.Password = l.user, l.password
	}, "cluster", "cluster_listen")
	override(f, fs, text, func(c *Config, s string) { c.Cluster.Name = s }, "cluster_name")
	override(f, fs, text, func(c *Config, s string) { c.Cluster.Advertise = s }, "cluster_advertise")
	override(f, fs, time.ParseDuration, func(c *Config, d time.Duration) { c.Cluster.ReplaceAfter = never(d) }, "replace_after")
	override(f, fs, func(s string) (int64, error) { return asTransferRate(s) }, func(c *Config, n int64) { c.Cluster.TransferRate = n }, "transfer_rate")
	override(f, fs, strconv.ParseBool, func(c *Config, on bool) { c.Cluster.NoAdvertise = on }, "no_advertise")
}

func (f *Flags) declareTLS(fs *flag.FlagSet) {
	file := func(name string, dst *string) {
		fs.Func(name, "", func(s string) error { *dst, f.tls.given = s, true; return nil })
	}
	file("tlscert", &f.tls.CertFile)
	file("tlskey", &f.tls.KeyFile)
	file("tlscacert", &f.tls.CAFile)
	fs.BoolFunc("tlsverify", "", func(s string) (err error) {
		f.tls.Verify, err = strconv.ParseBool(s)
		f.tls.given = true
		return err
	})
	fs.BoolFunc("tls", "", func(s string) (err error) {
		f.tls.on, err = strconv.ParseBool(s)
		f.tls.off = !f.tls.on
		return err
	})
}

// text accepts any string.
func text(s string) (string, error) { return s, nil }

// word accepts one of a few strings.
func word(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("should be one of %q", words)
		}
		return s, nil
	}
}

// routeList reads URLs with commas between them. None clears what the file says.
func routeList(s string) ([]*url.URL, error) {
	var out []*url.URL
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		u, err := parseRoute(part)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// clusterAddress is what the URL of the peer listener says.
type clusterAddress struct {
	host, user, password string
	port                 int
}

// clusterListen reads nats://user:password@host:port. Nothing turns clustering off.
func clusterListen(s string) (a clusterAddress, err error) {
	if s == "" {
		return a, nil
	}
	// A URL cannot have a negative port.
	random := strings.HasSuffix(s, ":-1")
	u, err := url.Parse(strings.TrimSuffix(s, ":-1") + map[bool]string{true: ":0"}[random])
	if err != nil {
		return a, err
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return a, err
	}
	a.host = host
	if a.port, err = strconv.Atoi(port); err != nil {
		return a, err
	}
	if random {
		a.port = PortRandom
	}
	if u.User != nil {
		var ok bool
		a.user = u.User.Username()
		if a.password, ok = u.User.Password(); !ok {
			return a, errors.New("expected cluster password to be set")
		}
	}
	return a, nil
}

// Environment variables for our own settings. Flags come before them, they before the file.
const (
	envStorage    = "CLEAT_STORAGE"
	envStaleReads = "CLEAT_STALE_READS"
	envReplace    = "CLEAT_REPLACE_AFTER"
	envTransfers  = "CLEAT_TRANSFER_RATE"
	envLogFormat  = "CLEAT_LOG_FORMAT"
)

// apply changes what the file said to what the environment and the command line say.
func (f *Flags) apply(l *loader) error {
	c := l.cfg
	if err := c.applyEnv(); err != nil {
		return err
	}
	for _, o := range f.overrides {
		o(c)
	}
	if f.routesSet && !c.Cluster.Enabled() && c.Cluster.Host == "" {
		return errors.New("solicited routes require cluster capabilities, e.g. --cluster")
	}
	if a := f.auth; a.user != "" {
		l.auth.user, l.auth.password = a.user, a.password
	}
	if f.auth.token != "" {
		l.auth.token = f.auth.token
	}
	return f.tls.apply(c)
}

func (c *Config) applyEnv() (err error) {
	if s := os.Getenv(envStorage); s != "" {
		if c.KV.Storage, err = word(StorageFile, StorageRocksDB)(s); err != nil {
			return fmt.Errorf("environment %s %w", envStorage, err)
		}
	}
	if s := os.Getenv(envStaleReads); s != "" {
		if c.KV.StaleReads, err = strconv.ParseBool(s); err != nil {
			return fmt.Errorf("environment %s should be a boolean, got %q", envStaleReads, s)
		}
	}
	if s := os.Getenv(envReplace); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("environment %s should be a duration like \"10m\", got %q", envReplace, s)
		}
		c.Cluster.ReplaceAfter = never(d)
	}
	if s := os.Getenv(envTransfers); s != "" {
		if c.Cluster.TransferRate, err = asTransferRate(s); err != nil {
			return fmt.Errorf("environment %s %w", envTransfers, err)
		}
	}
	if s := os.Getenv(envLogFormat); s != "" {
		if c.Log.Format, err = word(LogFormatNATS, LogFormatJSON)(s); err != nil {
			return fmt.Errorf("environment %s %w", envLogFormat, err)
		}
	}
	return nil
}

func (t *tlsFlags) apply(c *Config) error {
	switch {
	case t.off:
		c.TLS = nil
		return nil
	case !t.on && !t.given:
		return nil
	case t.CertFile == "":
		return errors.New("TLS Server certificate must be present and valid")
	case t.KeyFile == "":
		return errors.New("TLS Server private key must be present and valid")
	}
	own := t.TLS
	if _, err := own.ServerConfig(); err != nil {
		return err
	}
	c.TLS = &own
	return nil
}
