package monitor

import (
	"maps"
	"math"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/cleatkv/cleat/internal/config"
)

// Varz is /varz: the server in general. The fields are nats-server's.
type Varz struct {
	ID               string            `json:"server_id"`
	Name             string            `json:"server_name"`
	Version          string            `json:"version"`
	Proto            int               `json:"proto"`
	GitCommit        string            `json:"git_commit,omitempty"`
	GoVersion        string            `json:"go"`
	Host             string            `json:"host"`
	Port             int               `json:"port"`
	AuthRequired     bool              `json:"auth_required,omitempty"`
	TLSRequired      bool              `json:"tls_required,omitempty"`
	TLSVerify        bool              `json:"tls_verify,omitempty"`
	ConnectURLs      []string          `json:"connect_urls,omitempty"`
	MaxConnections   int               `json:"max_connections"`
	MaxSubscriptions int               `json:"max_subscriptions,omitempty"`
	PingInterval     time.Duration     `json:"ping_interval"`
	PingMax          int               `json:"ping_max"`
	HTTPHost         string            `json:"http_host"`
	HTTPPort         int               `json:"http_port"`
	HTTPBasePath     string            `json:"http_base_path"`
	HTTPSPort        int               `json:"https_port"`
	AuthTimeout      float64           `json:"auth_timeout"`
	MaxControlLine   int32             `json:"max_control_line"`
	MaxPayload       int               `json:"max_payload"`
	MaxPending       int64             `json:"max_pending"`
	Cluster          ClusterVarz       `json:"cluster"`
	Gateway          struct{}          `json:"gateway"`
	Leaf             struct{}          `json:"leaf"`
	MQTT             struct{}          `json:"mqtt"`
	WebSocket        WebSocketVarz     `json:"websocket"`
	JetStream        JetStreamVarz     `json:"jetstream"`
	TLSTimeout       float64           `json:"tls_timeout"`
	WriteDeadline    time.Duration     `json:"write_deadline"`
	Start            time.Time         `json:"start"`
	Now              time.Time         `json:"now"`
	Uptime           string            `json:"uptime"`
	Mem              int64             `json:"mem"`
	Cores            int               `json:"cores"`
	MaxProcs         int               `json:"gomaxprocs"`
	MemLimit         int64             `json:"gomemlimit,omitempty"`
	CPU              float64           `json:"cpu"`
	Connections      int               `json:"connections"`
	TotalConnections uint64            `json:"total_connections"`
	Routes           int               `json:"routes"`
	Remotes          int               `json:"remotes"`
	Leafnodes        int               `json:"leafnodes"`
	InMsgs           int64             `json:"in_msgs"`
	InBytes          int64             `json:"in_bytes"`
	InClientMsgs     int64             `json:"in_client_msgs"`
	InClientBytes    int64             `json:"in_client_bytes"`
	OutMsgs          int64             `json:"out_msgs"`
	OutBytes         int64             `json:"out_bytes"`
	OutClientMsgs    int64             `json:"out_client_msgs"`
	OutClientBytes   int64             `json:"out_client_bytes"`
	SlowConsumers    int64             `json:"slow_consumers"`
	StaleConnections int64             `json:"stale_connections"`
	StalledClients   int64             `json:"stalled_clients"`
	Subscriptions    uint32            `json:"subscriptions"`
	HTTPReqStats     map[string]uint64 `json:"http_req_stats"`
	ConfigLoadTime   time.Time         `json:"config_load_time"`
	ConfigDigest     string            `json:"config_digest"`
	Tags             []string          `json:"tags,omitempty"`
	Metadata         map[string]string `json:"metadata,omitempty"`
	SystemAccount    string            `json:"system_account,omitempty"`
	SlowConsumerStat ByKind            `json:"slow_consumer_stats"`
	StaleStat        *ByKind           `json:"stale_connection_stats,omitempty"`
	DiskIOWaitStats  DiskIOWait        `json:"disk_io_wait_stats"`
}

// ByKind is a count by kind of connection.
type ByKind struct {
	Clients  uint64 `json:"clients"`
	Routes   uint64 `json:"routes"`
	Gateways uint64 `json:"gateways"`
	Leafs    uint64 `json:"leafs"`
}

// DiskIOWait counts who waited for the right to use the disk. There is no such right here: all zero.
type DiskIOWait struct {
	Waiters     int64  `json:"waiters"`
	Waits       uint64 `json:"waits"`
	WaitTime    uint64 `json:"wait_time"`
	MaxWaitTime uint64 `json:"max_wait_time"`
}

// ClusterVarz is the cluster as configured.
type ClusterVarz struct {
	Name        string   `json:"name,omitempty"`
	Host        string   `json:"addr,omitempty"`
	Port        int      `json:"cluster_port,omitempty"`
	AuthTimeout float64  `json:"auth_timeout,omitempty"`
	URLs        []string `json:"urls,omitempty"`
	TLSTimeout  float64  `json:"tls_timeout,omitempty"`
	TLSRequired bool     `json:"tls_required,omitempty"`
	TLSVerify   bool     `json:"tls_verify,omitempty"`
}

// WebSocketVarz is the listener for browsers as configured.
type WebSocketVarz struct {
	Host             string        `json:"host,omitempty"`
	Port             int           `json:"port,omitempty"`
	HandshakeTimeout time.Duration `json:"handshake_timeout,omitempty"`
	NoTLS            bool          `json:"no_tls,omitempty"`
	SameOrigin       bool          `json:"same_origin,omitempty"`
	AllowedOrigins   []string      `json:"allowed_origins,omitempty"`
	Compression      bool          `json:"compression,omitempty"`
}

// JetStreamVarz is JetStream in short.
type JetStreamVarz struct {
	Config *JetStreamConfig `json:"config,omitempty"`
	Stats  *JetStreamStats  `json:"stats,omitempty"`
	Meta   *MetaCluster     `json:"meta,omitempty"`
	Limits *JetStreamLimits `json:"limits,omitempty"`
}

// Varz returns what /varz shows.
func (m *Monitor) Varz() *Varz {
	now := time.Now().UTC()
	c := m.src.Config()
	v := &Varz{
		ID: m.src.ServerID, Name: m.src.ServerName,
		Version: config.ProtocolVersion, Proto: config.Proto, GitCommit: config.GitCommit(),
		GoVersion: runtime.Version(), Cores: runtime.NumCPU(), MaxProcs: runtime.GOMAXPROCS(0),
		Start: m.src.Start.UTC(), Now: now, Uptime: uptime(now.Sub(m.src.Start)),
		ConfigDigest: c.Digest, ConfigLoadTime: m.src.Loaded().UTC(),
		Tags: c.ServerTags, Metadata: Metadata(c), SystemAccount: c.SystemAccount,
		HTTPReqStats: make(map[string]uint64),
	}
	for path, n := range m.requests {
		v.HTTPReqStats[path] = n.Load()
	}
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		v.MemLimit = limit
	}
	v.CPU, v.Mem = m.process.usage(now)
	v.setConfig(c)
	m.setTraffic(v)
	if js := m.src.JetStream; js != nil {
		u := js.Usage()
		v.JetStream = JetStreamVarz{Config: jetStreamConfig(c, u), Stats: jetStreamStats(u), Meta: js.Meta(), Limits: jetStreamLimits(c)}
	}
	return v
}

// MetadataVersion is the name under which a server's metadata tell its version: the one in Version is that of
// the protocol.
const MetadataVersion = "cleat.version"

// Metadata is what a server tells of itself: its version, and what its configuration says.
func Metadata(c *config.Config) map[string]string {
	m := map[string]string{MetadataVersion: config.Version}
	maps.Copy(m, c.ServerMetadata)
	return m
}

func (v *Varz) setConfig(c *config.Config) {
	v.Host, v.Port = c.Host, c.Port
	v.AuthRequired = c.AuthRequired()
	v.MaxConnections, v.MaxSubscriptions = c.Limits.MaxConnections, c.Limits.MaxSubscriptions
	v.PingInterval, v.PingMax = c.Limits.PingInterval, c.Limits.PingMax
	v.MaxControlLine = int32(c.Limits.MaxControlLine)
	v.MaxPayload, v.MaxPending = c.Limits.MaxPayload, c.Limits.MaxPending
	v.WriteDeadline = c.Limits.WriteDeadline
	v.HTTPHost, v.HTTPPort, v.HTTPSPort = c.Monitor.Host, c.Monitor.Port, c.Monitor.HTTPSPort
	v.HTTPBasePath = c.Monitor.BasePath
	v.AuthTimeout = c.Auth.Timeout.Seconds()
	v.TLSTimeout = 2
	if c.TLS != nil {
		v.TLSRequired, v.TLSVerify = !c.AllowNonTLS, c.TLS.Verify
		v.TLSTimeout = c.TLS.Timeout.Seconds()
	}
	if cl := &c.Cluster; cl.Enabled() {
		v.Cluster = ClusterVarz{Name: cl.Name, Host: cl.Host, Port: cl.Port, AuthTimeout: cl.AuthTimeout.Seconds()}
		for _, u := range cl.Routes {
			v.Cluster.URLs = append(v.Cluster.URLs, u.Host)
		}
		if cl.TLS != nil {
			v.Cluster.TLSRequired, v.Cluster.TLSVerify, v.Cluster.TLSTimeout = true, true, cl.TLS.Timeout.Seconds()
		}
	}
	if w := &c.WebSocket; w.Port != 0 {
		v.WebSocket = WebSocketVarz{
			Host: w.Host, Port: w.Port,
			HandshakeTimeout: w.HandshakeTimeout, NoTLS: w.NoTLS,
			SameOrigin: w.SameOrigin, AllowedOrigins: w.AllowedOrigins, Compression: w.Compression,
		}
	}
}

func (m *Monitor) setTraffic(v *Varz) {
	a := m.src.Clients.Addresses()
	v.Host, v.Port, v.ConnectURLs = a.Host, a.Port, a.ConnectURLs
	t := m.src.Clients.Traffic()
	v.Connections, v.TotalConnections = t.Connections, t.TotalConnections
	v.InClientMsgs, v.InClientBytes, v.OutClientMsgs, v.OutClientBytes = t.InMsgs, t.InBytes, t.OutMsgs, t.OutBytes
	v.InMsgs, v.InBytes = t.InMsgs+t.RouteInMsgs, t.InBytes+t.RouteInBytes
	v.OutMsgs, v.OutBytes = t.OutMsgs+t.RouteOutMsgs, t.OutBytes+t.RouteOutBytes
	v.SlowConsumers, v.StaleConnections, v.StalledClients = t.SlowConsumers, t.StaleConnections, t.Stalls
	v.SlowConsumerStat.Clients = uint64(t.SlowConsumers)
	if t.StaleConnections > 0 {
		v.StaleStat = &ByKind{Clients: uint64(t.StaleConnections)}
	}
	v.Subscriptions = uint32(t.Subscriptions)
	if m.src.Routes != nil {
		routes := m.src.Routes()
		v.Routes, v.Remotes = len(routes), remotes(routes)
	}
}

// remotes counts the servers behind routes; there may be several routes to one.
func remotes(routes []Route) int {
	seen := make(map[string]bool)
	for _, r := range routes {
		seen[r.RemoteID] = true
	}
	return len(seen)
}
