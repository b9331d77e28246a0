package config

import (
	"net/url"
	"time"

	"github.com/nats-io/jwt/v2"
)

// PortRandom asks for any free port. It is what -1 means in a file or a flag.
const PortRandom = -1

// Names of the accounts that always exist.
const (
	GlobalAccount        = "$G"
	DefaultSystemAccount = "$SYS"
)

// Config is a complete and valid configuration: defaults are filled in, names that refer to each
// other do so correctly. It is not changed after Load returns it.
type Config struct {
	File     string   // path of the configuration file, "" when there was none
	Digest   string   // "sha256:..." of the file's values, "" without a file
	Warnings []string // known fields without effect in this server; to be logged at start
	Misuses  []string // values nats-server warns about; to be logged at start, and -t refuses them

	ServerName     string // "" asks the server to make one up
	ServerTags     []string
	ServerMetadata map[string]string

	Host            string // client listener
	Port            int    // PortRandom for any
	ClientAdvertise string // host:port to tell clients instead of Host:Port
	// LoopbackOnly is true when Host is loopback only because nobody asked for anything else and
	// there is no authentication. The server says so at start.
	LoopbackOnly bool

	TLS         *TLS // nil: plain connections
	AllowNonTLS bool // with TLS: plain connections are welcome too
	Limits      Limits
	WebSocket   WebSocket

	Auth          Auth
	Accounts      []*Account // in order of name; contains the system account once configured
	SystemAccount string     // "" when there shall be none
	NoAuthUser    string     // user of connections that bring no credentials
	Operator      *Operator  // nil: no operator mode

	JetStream JetStream
	Cluster   Cluster
	Monitor   Monitor
	ProfPort  int // pprof over HTTP; 0: off
	Log       Log
	LameDuck  LameDuck

	PidFile      string
	PortsFileDir string

	KV KV
}

// Limits are the bounds and timers of client connections.
type Limits struct {
	MaxConnections   int // -1: none
	MaxSubscriptions int // per connection; 0: none
	MaxSubTokens     int // tokens in a subscription's subject; 0: any number
	MaxControlLine   int
	MaxPayload       int
	MaxPending       int64
	WriteDeadline    time.Duration
	PingInterval     time.Duration
	PingMax          int // pings without an answer before a connection counts as dead
	NoHeaderSupport  bool
}

// TLS describes one listener's (or one cluster link's) use of TLS. The files exist and could be
// read when the configuration was loaded.
type TLS struct {
	CertFile, KeyFile, CAFile string
	Certs                     []CertPair // in place of CertFile and KeyFile
	Verify                    bool       // demand a certificate that CAFile signed
	VerifyAndMap              bool       // and take the user from it
	Insecure                  bool       // as a client: do not verify the other side
	Timeout                   time.Duration
	MinVersion                uint16
	CipherSuites              []uint16
	CurvePreferences          []uint16
	PinnedCerts               []string // hex SHA-256 of acceptable SubjectPublicKeyInfo
	HandshakeFirst            bool     // TLS before the first INFO
	// HandshakeFirstFallback, when positive, is how long to wait for a client's handshake before
	// the plain INFO is sent after all.
	HandshakeFirstFallback time.Duration
}

// CertPair is a certificate and its key.
type CertPair struct{ CertFile, KeyFile string }

// Auth is who may connect, outside of accounts.
type Auth struct {
	User, Password string // the single user; Password may be a bcrypt hash
	Token          string // may be a bcrypt hash
	Users          []*User
	Timeout        time.Duration
}

// Account is one name space of subjects and streams.
type Account struct {
	Name      string
	NKey      string
	Users     []*User
	JetStream *AccountJetStream // nil: no JetStream in this account
	Limits    AccountLimits
	Exports   []Export
	Imports   []Import
}

// AccountLimits bound what one account may use; -1: no limit.
type AccountLimits struct {
	MaxConnections, MaxSubscriptions, MaxPayload int64
}

// AccountJetStream are an account's JetStream limits; -1: no limit.
type AccountJetStream struct {
	MaxMemory, MaxFile                   int64
	MaxStreams, MaxConsumers             int64
	MaxAckPending                        int64
	MemoryMaxStreamBytes, MaxStreamBytes int64 // per stream, by storage
	MaxBytesRequired                     bool  // every stream must set max_bytes
}

// User is somebody who may connect: by name and password, or by nkey.
type User struct {
	Name, Password string // Password may be a bcrypt hash
	NKey           string // public key; then Name and Password are empty
	Account        string // "" for users of the authorization block: the global account
	// Permissions holds the user's own ones, else the default ones of the block; nil: everything.
	Permissions            *Permissions
	AllowedConnectionTypes []string // STANDARD, WEBSOCKET, ...; empty: all
}

// Permissions limit the subjects a user may use.
type Permissions struct {
	Publish, Subscribe *SubjectPermission  // nil: everything
	Responses          *ResponsePermission // nil: no right beyond Publish
}

// SubjectPermission lists subjects; those of subscribers may have the form "subject queue".
// No Allow at all (nil) means everything, an empty one nothing; Deny wins.
type SubjectPermission struct{ Allow, Deny []string }

// ResponsePermission lets a client publish to the reply subjects of messages it received.
type ResponsePermission struct {
	MaxMsgs int           // negative: any number
	Expires time.Duration // negative: never
}

// Export offers subjects to other accounts.
type Export struct {
	Service      bool // else a stream of messages
	Subject      string
	Accounts     []string // who may import; empty: everybody
	ResponseType string   // "Singleton", "Stream" or "Chunked"; services only
}

// Import takes subjects another account exports.
type Import struct {
	Service bool // else a stream of messages
	Account string
	Subject string // as exported
	To      string // where it appears here; "": same
	Prefix  string // streams only: in place of To
}

// Operator is operator mode: users prove themselves by JWTs which chain up to these keys.
type Operator struct {
	TrustedKeys    []string              // public keys whose signatures under account JWTs count
	Claims         []*jwt.OperatorClaims // of the operator JWTs, may be none
	Preload        map[string]string     // account public key to account JWT
	PinnedAccounts []string              // if any: the only accounts that may connect

	ResolverType string // one of the Resolver constants, "" when accounts cannot be looked up
	ResolverURL  string
	ResolverTLS  *TLS
	ResolverDir  string
}

// JetStream is the storage side of the server. Writes are always synced before they are
// acknowledged, whatever a file says of sync_interval.
type JetStream struct {
	Enabled   bool
	StoreDir  string // never "" when Enabled
	MaxMemory int64  // -1: no limit of our own
	MaxFile   int64  // -1: no limit of our own
	Domain    string
	UniqueTag string
	Limits    JetStreamLimits
}

// JetStreamLimits bound what users may ask of JetStream; 0: no limit.
type JetStreamLimits struct {
	MaxAckPending       int
	MaxRequestBatch     int
	DefaultMaxConsumers int
	DuplicateWindow     time.Duration
}

// Cluster is how servers of one cluster find and trust each other. Host and Port are those of the
// peer transport.
type Cluster struct {
	Name           string
	Host           string
	Port           int // 0: not clustered
	Routes         []*url.URL
	User, Password string
	AuthTimeout    time.Duration
	TLS            *TLS
	Advertise      string // host:port to tell other servers
	NoAdvertise    bool   // do not tell clients about the other servers

	// ReplaceAfter is how long a server may be out of reach before its replicas are made anew on others;
	// less than 0: for ever. It stands in the block kv.
	ReplaceAfter time.Duration

	// TransferRate is how many bytes a second of the states of replicas are sent to other servers, and
	// received, at most; less than 0: as many as go. It stands in the block kv.
	TransferRate int64
}

// Enabled says whether this server shall be a member of a cluster.
func (c *Cluster) Enabled() bool { return c.Port != 0 }

// Monitor is the HTTP side. Port or HTTPSPort is set, or neither: then there is no monitoring.
type Monitor struct {
	Host      string
	Port      int
	HTTPSPort int
	BasePath  string
	// Optional is true when nobody asked for monitoring: a busy port then only costs a warning.
	Optional bool
}

// Enabled says whether there shall be a monitoring listener.
func (m *Monitor) Enabled() bool { return m.Port != 0 || m.HTTPSPort != 0 }

// Log is what is logged and where to.
type Log struct {
	Debug, Trace bool

	Time, TimeUTC bool
	File          string
	FileSizeLimit int64 // 0: none
	FileMaxNum    int   // rotated files kept; 0: all
	Syslog        bool
	RemoteSyslog  string
	Format        string // LogFormatNATS or LogFormatJSON
}

// OnStderr tells whether the log is standard error.
func (l *Log) OnStderr() bool { return l.File == "" && !l.Syslog && l.RemoteSyslog == "" }

// Values of Log.Format.
const (
	LogFormatNATS = "nats"
	LogFormatJSON = "json"
)

// WebSocket is the client listener for browsers. Port 0: there is none.
type WebSocket struct {
	Host             string
	Port             int
	NoTLS            bool
	TLS              *TLS
	SameOrigin       bool
	AllowedOrigins   []string
	Compression      bool
	HandshakeTimeout time.Duration
	Headers          map[string]string
}

// LameDuck is how a server leaves: after Grace it closes its connections, spread over Duration.
type LameDuck struct{ Duration, Grace time.Duration }

// KV holds the settings nats-server does not know. In the file they stand in one block, kv.
type KV struct {
	// Storage is the engine of buckets and streams that ask for file storage and name no engine.
	Storage string // StorageFile or StorageRocksDB
	// StaleReads lets reads be answered by any replica at once, without asking the leader. They
	// may then miss acknowledged writes.
	StaleReads bool
}

// Values of KV.Storage.
const (
	StorageFile    = "file"
	StorageRocksDB = "rocksdb"
)
