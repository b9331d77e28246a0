package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// load reads a command line, with the text of a configuration file if there is one.
func load(t *testing.T, file string, args ...string) (*Config, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "f.conf")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-c", path)
	}
	f, err := ParseFlags("test", args)
	if err != nil {
		return nil, err
	}
	return Load(f)
}

// TestFlags sets each field from the command line, whatever the file says.
func TestFlags(t *testing.T) {
	const file = `host: 10.0.0.1, port: 1, server_name: f, http_port: 2, debug: false
		jetstream { store_dir: f, max_mem: 1M }
		cluster { name: f, listen: "10.0.0.1:3", routes: ["nats://f:1"], authorization { user: f, password: f } }`
	for _, c := range []struct {
		args string
		ok   func(*Config) bool
	}{
		{"", func(c *Config) bool { return c.Host == "10.0.0.1" && c.Port == 1 && c.ServerName == "f" }},
		{"-a 1.2.3.4", func(c *Config) bool { return c.Host == "1.2.3.4" }},
		{"--addr 1.2.3.4", func(c *Config) bool { return c.Host == "1.2.3.4" }},
		{"-net=1.2.3.4", func(c *Config) bool { return c.Host == "1.2.3.4" }},
		{"-p 5", func(c *Config) bool { return c.Port == 5 }},
		{"--port -1", func(c *Config) bool { return c.Port == PortRandom }},
		{"-n x", func(c *Config) bool { return c.ServerName == "x" }},
		{"--server_name x", func(c *Config) bool { return c.ServerName == "x" }},
		{"-m 6", func(c *Config) bool { return c.Monitor.Port == 6 && c.Monitor.Host == "10.0.0.1" }},
		{"-m 0", func(c *Config) bool { return !c.Monitor.Enabled() }},
		{"-P p -ports_file_dir d", func(c *Config) bool { return c.PidFile == "p" && c.PortsFileDir == "d" }},
		{"-client_advertise x:1", func(c *Config) bool { return c.ClientAdvertise == "x:1" }},
		{"-l x -log_size_limit 9", func(c *Config) bool { return c.Log.File == "x" && c.Log.FileSizeLimit == 9 }},
		{"-T=false -logtime_utc", func(c *Config) bool { return !c.Log.Time && c.Log.TimeUTC }},
		{"-D", func(c *Config) bool { return c.Log.Debug && !c.Log.Trace }},
		{"-V", func(c *Config) bool { return !c.Log.Debug && c.Log.Trace }},
		{"-VV", func(c *Config) bool { return !c.Log.Debug && c.Log.Trace }},
		{"-DV", func(c *Config) bool { return c.Log.Debug && c.Log.Trace }},
		{"-DVV", func(c *Config) bool { return c.Log.Debug && c.Log.Trace }},
		{"-DVV -DV=false", func(c *Config) bool { return !c.Log.Debug && !c.Log.Trace }},
		{"-s", func(c *Config) bool { return c.Log.Syslog }},
		{"-r udp://x:1", func(c *Config) bool { return c.Log.RemoteSyslog == "udp://x:1" }},
		{"-max_traced_msg_len 7 -log_format json", func(c *Config) bool { return c.Log.Format == "json" }},
		{"-js=false", func(c *Config) bool { return !c.JetStream.Enabled }},
		{"-sd x", func(c *Config) bool { return c.JetStream.StoreDir == "x" && c.JetStream.MaxMemory == 1e6 }},
		{"-kv_storage rocksdb -stale_reads", func(c *Config) bool { return c.KV == KV{Storage: "rocksdb", StaleReads: true} }},
		{"-replace_after 90s -cluster nats://1.2.3.4:5", func(c *Config) bool { return c.Cluster.ReplaceAfter == 90*time.Second }},
		{"-replace_after 0 -cluster nats://1.2.3.4:5", func(c *Config) bool { return c.Cluster.ReplaceAfter < 0 }},
		{"-transfer_rate 7M -cluster nats://1.2.3.4:5", func(c *Config) bool { return c.Cluster.TransferRate == 7<<20 }},
		{"-transfer_rate 0 -cluster nats://1.2.3.4:5", func(c *Config) bool { return c.Cluster.TransferRate < 0 }},
		{"-user u -pass p", func(c *Config) bool { return c.Auth.User == "u" && c.Auth.Password == "p" && c.AuthRequired() }},
		{"-auth t", func(c *Config) bool { return c.Auth.Token == "t" && c.AuthRequired() }},
		{"-profile 8", func(c *Config) bool { return c.ProfPort == 8 }},
		{"-cluster nats://1.2.3.4:5", func(c *Config) bool {
			return c.Cluster.Host == "1.2.3.4" && c.Cluster.Port == 5 && c.Cluster.User == "" && c.Cluster.Name == "f"
		}},
		{"-cluster_listen nats://u:p@1.2.3.4:-1", func(c *Config) bool {
			return c.Cluster.Port == PortRandom && c.Cluster.User == "u" && c.Cluster.Password == "p"
		}},
		{"-cluster=", func(c *Config) bool { return !c.Cluster.Enabled() }},
		{"-routes nats://a:1,nats://b:2", func(c *Config) bool { return len(c.Cluster.Routes) == 2 && c.Cluster.Routes[1].Host == "b:2" }},
		{"-routes=", func(c *Config) bool { return len(c.Cluster.Routes) == 0 }},
		{"-cluster_name x -cluster_advertise y:1 -no_advertise -connect_retries 3", func(c *Config) bool {
			return c.Cluster.Name == "x" && c.Cluster.Advertise == "y:1" && c.Cluster.NoAdvertise
		}},
	} {
		got, err := load(t, file, strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
		} else if !c.ok(got) {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
}

// TestBadFlags are refused.
func TestBadFlags(t *testing.T) {
	for args, want := range map[string]string{
		"-zz":                          "flag provided but not defined: -zz",
		"-p x":                         `invalid value "x" for flag -p: strconv.Atoi: parsing "x": invalid syntax`,
		"-routes nats://a:1":           "solicited routes require cluster capabilities, e.g. --cluster",
		"-cluster nats://u@a:1":        `invalid value "nats://u@a:1" for flag -cluster: expected cluster password to be set`,
		"-tls":                         "TLS Server certificate must be present and valid",
		"-tlscert x":                   "TLS Server private key must be present and valid",
		"-tls -tlscert no -tlskey no":  "error parsing X509 certificate/key pair: open no: no such file or directory",
		"-kv_storage memory":           `invalid value "memory" for flag -kv_storage: should be one of ["file" "rocksdb"]`,
		"-n a\u00a0b -m 1 -ms 2":       "can't specify both HTTP (1) and HTTPs (2) ports",
		"-user u -auth t":              "Cannot have a user/pass and token",
		"-js -cluster nats://a:1":      "jetstream cluster requires `server_name` to be set",
		"-js -cluster nats://a:1 -n x": "jetstream cluster requires `cluster.name` to be set",
		"-c /no/such/file":             "open /no/such/file: no such file or directory",
	} {
		_, err := load(t, "", strings.Split(args, " ")...)
		if err == nil || err.Error() != want && !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

// TestDefaults are those of a server nobody configured: it serves this machine alone, until somebody
// says who may come in, or from where.
func TestDefaults(t *testing.T) {
	c, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "127.0.0.1" || !c.LoopbackOnly || c.Port != 4222 || !c.JetStream.Enabled || c.JetStream.StoreDir != "cleat-data" ||
		c.Monitor != (Monitor{Host: "127.0.0.1", Port: 8222, BasePath: "/", Optional: true}) || c.KV.Storage != "file" {
		t.Errorf("defaults: %+v", c)
	}
	if a := c.Account(GlobalAccount); a == nil || a.JetStream == nil {
		t.Errorf("the global account has no JetStream: %+v", a)
	}
	for args, open := range map[string]bool{
		"-js": false, "-m 1": false, "-sd x": false,
		"-a 0.0.0.0": true, "-user u -pass p": true, "-auth t": true,
	} {
		c, err := load(t, "", strings.Fields(args)...)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Host == "0.0.0.0" && !c.LoopbackOnly; got != open {
			t.Errorf("%s: listens on %s", args, c.Host)
		}
	}
	if c, _ := load(t, "", "-m", "1", "-cluster_name", "x"); c.Monitor.Optional || c.Monitor.Port != 1 {
		t.Errorf("monitoring that was asked for is optional: %+v", c.Monitor)
	}
}

// TestDefaultsAsNATS are nats-server's: what nobody asked for is off, and any number of servers may be
// started in one directory.
func TestDefaultsAsNATS(t *testing.T) {
	for args, want := range map[string]Config{
		"-p 1": {Host: "0.0.0.0"}, "-a 127.0.0.1 -cluster_listen nats://127.0.0.1:2 -routes nats://127.0.0.1:3": {Host: "127.0.0.1"},
		"-js": {Host: "0.0.0.0", JetStream: JetStream{Enabled: true, StoreDir: "cleat-data"}}, "-m 5": {Host: "0.0.0.0", Monitor: Monitor{Port: 5}},
	} {
		f, err := ParseFlags("nats-server", strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		f.AsNATS = true
		c, err := Load(f)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if c.Host != want.Host || c.LoopbackOnly || c.JetStream.Enabled != want.JetStream.Enabled || c.JetStream.StoreDir != want.JetStream.StoreDir || c.Monitor.Port != want.Monitor.Port {
			t.Errorf("%s: host %s, JetStream %+v, monitor %+v", args, c.Host, c.JetStream, c.Monitor)
		}
	}
}

// TestEnvironment lets own settings stand outside of a file that is shared with nats-server.
func TestEnvironment(t *testing.T) {
	t.Setenv("CLEAT_STORAGE", "rocksdb")
	t.Setenv("CLEAT_STALE_READS", "true")
	t.Setenv("CLEAT_LOG_FORMAT", "json")
	c, err := load(t, "port: 1")
	if err != nil || c.KV != (KV{Storage: "rocksdb", StaleReads: true}) || c.Log.Format != "json" {
		t.Errorf("%+v %+v %v", c.KV, c.Log, err)
	}
	c, err = load(t, "port: 1", "-kv_storage", "file")
	if err != nil || c.KV.Storage != "file" {
		t.Errorf("a flag comes after the environment: %+v %v", c.KV, err)
	}
	t.Setenv("CLEAT_TRANSFER_RATE", "3M")
	if c, err = load(t, "cluster { name: c, port: 6222 }, server_name: n, kv { transfer_rate: 9MB }"); err != nil || c.Cluster.TransferRate != 3<<20 {
		t.Errorf("the environment comes after the file: %+v %v", c.Cluster, err)
	}
	t.Setenv("CLEAT_TRANSFER_RATE", "3K")
	if _, err = load(t, "port: 1"); err == nil || err.Error() != "environment CLEAT_TRANSFER_RATE should be at least 1M a second, or 0 for no bound" {
		t.Errorf("%v", err)
	}
	t.Setenv("CLEAT_TRANSFER_RATE", "")
	t.Setenv("CLEAT_STORAGE", "paper")
	if _, err = load(t, "port: 1"); err == nil || err.Error() != `environment CLEAT_STORAGE should be one of ["file" "rocksdb"]` {
		t.Errorf("%v", err)
	}
}

// TestTLSFlags makes a whole TLS block of flags.
func TestTLSFlags(t *testing.T) {
	cert, key := writeCert(t)
	c, err := load(t, "", "-tls", "-tlscert", cert, "-tlskey", key, "-tlscacert", cert, "-tlsverify")
	if err != nil {
		t.Fatal(err)
	}
	if c.TLS == nil || !c.TLS.Verify || c.TLS.Timeout != 2*time.Second || c.Auth.Timeout != 3*time.Second {
		t.Errorf("%+v %v", c.TLS, c.Auth.Timeout)
	}
	if c, err = load(t, "tls { cert_file: '"+cert+"', key_file: '"+key+"' }", "-tls=false"); err != nil || c.TLS != nil {
		t.Errorf("%+v %v", c, err)
	}
}
