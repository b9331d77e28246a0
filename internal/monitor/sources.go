package monitor

import (
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/jetstream"
)

// Sources are what is shown. Only Config and Clients are needed; what is nil is not there.
type Sources struct {
	ServerID   string
	ServerName string
	Start      time.Time
	Config     func() *config.Config // the present one, after reloads
	Loaded     func() time.Time      // when it was read

	Clients   Clients
	Accounts  Accounts
	JetStream JetStream
	Routes    func() []Route
	Health    Health
	Raft      func() cluster.Figures // nil without JetStream
	// Operations are those on the keys of buckets; nil without JetStream.
	Operations func() []jetstream.Operation
}

// Clients are the client connections.
type Clients interface {
	Addresses() Addresses
	Traffic() Traffic
	// Open returns the connections there are, Closed the last of those that ended. The order does
	// not matter.
	Open() []Conn
	Closed() []Conn
}

// Addresses are where clients connect to.
type Addresses struct {
	Host        string // of the listener, as bound
	Port        int
	ConnectURLs []string // told to clients
	TLSRequired bool
	TLSVerify   bool
}

// Traffic counts since the server was started.
type Traffic struct {
	Connections         int    // open now
	TotalConnections    uint64 // ever accepted
	InMsgs, InBytes     int64  // from clients
	OutMsgs, OutBytes   int64  // to clients
	SlowConsumers       int64
	StaleConnections    int64
	Stalls              int64
	RouteInMsgs         int64 // from other servers
	RouteInBytes        int64
	RouteOutMsgs        int64
	RouteOutBytes       int64
	Subscriptions       int
	SubscriptionInserts uint64
	SubscriptionRemoves uint64
	SubscriptionLookups uint64
}

// Conn is one client connection.
type Conn struct {
	ID           uint64
	Type         string // "nats" or "websocket"
	IP           string
	Port         int
	Start        time.Time
	LastActivity time.Time
	Stop         time.Time // zero while open
	Reason       string    // why it was closed
	RTT          time.Duration

	Pending           int
	InMsgs, InBytes   int64
	OutMsgs, OutBytes int64
	Stalls            int64

	Name, Lang, Version string
	User, Account       string
	TLSVersion          string
	TLSCipher           string

	NumSubs int
	// Subs lists the subscriptions; it is called only when somebody asks.
	Subs func() []Sub
}

// Sub is one subscription of a client.
type Sub struct {
	Account, Subject, Queue, SID string
	Msgs, Max                    int64
	Client                       uint64
}

// Accounts are the name spaces.
type Accounts interface {
	Names() []string
	// Account returns what is known of one; false if there is none of that name.
	Account(name string) (Account, bool)
}

// Account is one name space and its counts.
type Account struct {
	Name             string
	Connections      int
	TotalConnections int
	Subscriptions    int
	JetStream        bool
	SentMsgs         int64 // to its clients
	SentBytes        int64
	ReceivedMsgs     int64 // from them
	ReceivedBytes    int64
	SlowConsumers    int64
}

// JetStream are the streams and consumers.
type JetStream interface {
	Usage() Usage
	Meta() *MetaCluster // nil on a server outside a cluster
	// Requests counts the API calls of an account.
	Requests(account string) (total, errors uint64)
	// Streams returns those with a replica on this server.
	Streams() []Stream
	// Lost returns the streams of which this server reaches no replica.
	Lost() []LostStream
	// Groups returns the Raft groups of an account's streams that have a member here, by name; of the account ""
	// that of the meta group.
	Groups(account string) map[string]RaftzGroup
	// MetaDigest is the meta group's on this server.
	MetaDigest() ReplicaDigest
}

// Usage is what JetStream keeps and does on this server.
type Usage struct {
	MaxMemory, MaxStorage           int64 // what may be used
	Memory, Storage                 uint64
	ReservedMemory, ReservedStorage uint64
	Accounts, HAAssets              int
	APITotal, APIErrors             uint64
	APIInflight                     uint64
}

// MetaCluster is the group that knows what exists where.
type MetaCluster struct {
	Name         string          `json:"name,omitempty"`
	Leader       string          `json:"leader,omitempty"`
	Peer         string          `json:"peer,omitempty"`
	Replicas     []*api.PeerInfo `json:"replicas,omitempty"`
	Digest       *ReplicaDigest  `json:"digest,omitempty"`
	Size         int             `json:"cluster_size"`
	QuorumNeeded int             `json:"quorum_needed"`
	Pending      int             `json:"pending"`

	PendingRequests int      `json:"pending_requests"`
	PendingInfos    int      `json:"pending_infos"`
	Snapshot        struct { // Not taken in such a way here.
		PendingEntries uint64 `json:"pending_entries"`
		PendingSize    uint64 `json:"pending_size"`
	} `json:"snapshot"`
}

// Stream is one stream with a replica here.
type Stream struct {
	Account   string
	Info      api.StreamInfo
	Leader    bool // this server leads it
	RaftGroup string
	// Consumers lists its consumers; it is called only when somebody asks.
	Consumers    func() []api.ConsumerInfo
	NumConsumers int
	// Digest reads all that the replica holds; it is called only when somebody asks.
	Digest func() ReplicaDigest
}

// LostStream is a stream that nobody can serve, and where its replicas are.
type LostStream struct {
	Account  string   `json:"account"`
	Name     string   `json:"name"`
	Replicas int      `json:"num_replicas"`
	Servers  []string `json:"servers"`
}

// ReplicaDigest says what a replica holds, by a checksum: equal on replicas that have applied the same.
type ReplicaDigest struct {
	Applied uint64 `json:"applied"` // index of the last log entry in it
	Term    uint64 `json:"term"`
	SHA256  string `json:"sha256,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Route is a connection to another server.
type Route struct {
	ID                   uint64
	RemoteID, RemoteName string
	Solicited            bool
	Configured           bool
	IP                   string
	Port                 int
	Start, LastActivity  time.Time
	RTT                  time.Duration
	Pending              int
	InMsgs, InBytes      int64
	OutMsgs, OutBytes    int64
}

// Health looks whether the server can do its work.
type Health interface {
	// Check returns what is wrong, nothing when all is well. It does not wait for anything.
	Check(HealthQuery) []HealthProblem
}

// HealthQuery says what to look at.
type HealthQuery struct {
	// ServerOnly asks only whether clients can connect, EnabledOnly whether JetStream runs as well,
	// MetaOnly also whether the meta group has a leader and this server is up to date with it.
	ServerOnly  bool `json:"js-server-only"`
	EnabledOnly bool `json:"js-enabled-only"`
	MetaOnly    bool `json:"js-meta-only"`

	// If set, only that one.
	Account  string `json:"account"`
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
}

// HealthProblem is one thing that is wrong.
type HealthProblem struct {
	Code                      int    // HTTP status: 503 when something does not work, 404 when it is not there
	Type                      string // one of the Health constants
	Account, Stream, Consumer string
	Error                     string
}

// Kinds of health problems.
const (
	HealthConnection = "CONNECTION"
	HealthBadRequest = "BAD_REQUEST"
	HealthJetStream  = "JETSTREAM"
	HealthAccount    = "ACCOUNT"
	HealthStream     = "STREAM"
	HealthConsumer   = "CONSUMER"
)
