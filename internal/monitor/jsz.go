package monitor

import (
	"cmp"
	"net/url"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/config"
)

// jszLimit is how many accounts one answer shows when nobody says.
const jszLimit = 1024

// Jsz is /jsz: streams and consumers.
type Jsz struct {
	JetStreamStats
	ID              string           `json:"server_id"`
	Now             time.Time        `json:"now"`
	Disabled        bool             `json:"disabled,omitempty"`
	Config          JetStreamConfig  `json:"config"`
	Limits          *JetStreamLimits `json:"limits,omitempty"`
	Streams         int              `json:"streams"`
	StreamsLeader   int              `json:"streams_leader,omitempty"`
	Consumers       int              `json:"consumers"`
	ConsumersLeader int              `json:"consumers_leader,omitempty"`
	Messages        uint64           `json:"messages"`
	Bytes           uint64           `json:"bytes"`
	Meta            *MetaCluster     `json:"meta_cluster,omitempty"`
	Accounts        []*AccountDetail `json:"account_details,omitempty"`
	Total           int              `json:"total"`
	Lost            []LostStream     `json:"lost_streams,omitempty"` // only where they are asked for
}

// JetStreamConfig is JetStream as configured.
type JetStreamConfig struct {
	MaxMemory    int64         `json:"max_memory"`
	MaxStorage   int64         `json:"max_storage"`
	StoreDir     string        `json:"store_dir,omitempty"`
	SyncInterval time.Duration `json:"sync_interval,omitempty"`
	SyncAlways   bool          `json:"sync_always,omitempty"`
	Domain       string        `json:"domain,omitempty"`
	CompressOK   bool          `json:"compress_ok,omitempty"`
	UniqueTag    string        `json:"unique_tag,omitempty"`
}

// JetStreamStats is what JetStream uses.
type JetStreamStats struct {
	Memory          uint64        `json:"memory"`
	Storage         uint64        `json:"storage"`
	ReservedMemory  uint64        `json:"reserved_memory"`
	ReservedStorage uint64        `json:"reserved_storage"`
	Accounts        int           `json:"accounts"`
	HAAssets        int           `json:"ha_assets"`
	API             JetStreamAPIs `json:"api"`
}

// JetStreamAPIs counts requests.
type JetStreamAPIs struct {
	Level    int    `json:"level"`
	Total    uint64 `json:"total"`
	Errors   uint64 `json:"errors"`
	Inflight uint64 `json:"inflight,omitempty"`
}

// JetStreamLimits bound what users may ask.
type JetStreamLimits struct {
	MaxRequestBatch     int           `json:"max_request_batch,omitempty"`
	MaxAckPending       int           `json:"max_ack_pending,omitempty"`
	Duplicates          time.Duration `json:"max_duplicate_window,omitempty"`
	DefaultMaxConsumers int           `json:"default_max_consumers,omitempty"`
}

// AccountDetail is what one account has.
type AccountDetail struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	JetStreamStats
	Streams []StreamDetail `json:"stream_detail,omitempty"`
}

// StreamDetail is one stream.
type StreamDetail struct {
	Name           string                  `json:"name"`
	Created        time.Time               `json:"created"`
	Cluster        *api.ClusterInfo        `json:"cluster,omitempty"`
	Config         *api.StreamConfig       `json:"config,omitempty"`
	State          api.StreamState         `json:"state"`
	Consumers      []ConsumerDetail        `json:"consumer_detail,omitempty"`
	Direct         []ConsumerDetail        `json:"direct_consumer_detail,omitempty"`
	Mirror         *api.StreamSourceInfo   `json:"mirror,omitempty"`
	Sources        []*api.StreamSourceInfo `json:"sources,omitempty"`
	RaftGroup      string                  `json:"stream_raft_group,omitempty"`
	ConsumerGroups []RaftGroup             `json:"consumer_raft_groups,omitempty"`
	Digest         *ReplicaDigest          `json:"digest,omitempty"`
}

// ConsumerDetail is one consumer, its configuration only if asked for.
type ConsumerDetail struct {
	api.ConsumerInfo
	Config *api.ConsumerConfig `json:"config,omitempty"` // in place of the embedded one
}

// RaftGroup names the group that replicates a consumer: its stream's.
type RaftGroup struct {
	Name  string `json:"name"`
	Group string `json:"raft_group,omitempty"`
}

// JszQuery chooses what /jsz shows. Consumers implies Streams, Streams implies Accounts.
type JszQuery struct {
	Account          string `json:"account"`
	Accounts         bool   `json:"accounts"`
	Streams          bool   `json:"streams"`
	Consumers        bool   `json:"consumer"`
	DirectConsumers  bool   `json:"direct_consumer"`
	Config           bool   `json:"config"`
	LeaderOnly       bool   `json:"leader_only"`        // nothing at all unless this server leads the meta group
	StreamLeaderOnly bool   `json:"stream_leader_only"` // only streams this server leads
	Raft             bool   `json:"raft"`
	Digest           bool   `json:"digest"` // checksums of all that is held: dear
	Lost             bool   `json:"lost"`
	Offset           int    `json:"offset"`
	Limit            int    `json:"limit"`
}

func parseJszQuery(values url.Values) (JszQuery, error) {
	q := queryReader{values: values}
	j := JszQuery{
		Account:          values.Get("acc"),
		Accounts:         q.flag("accounts"),
		Streams:          q.flag("streams"),
		Consumers:        q.flag("consumers"),
		DirectConsumers:  q.flag("direct-consumers"),
		Config:           q.flag("config"),
		LeaderOnly:       q.flag("leader-only"),
		StreamLeaderOnly: q.flag("stream-leader-only"),
		Raft:             q.flag("raft"),
		Digest:           q.flag("digest"),
		Lost:             q.flag("lost"),
		Offset:           q.number("offset"),
		Limit:            q.number("limit"),
	}
	return j, q.err
}

// Jsz returns what /jsz shows.
func (m *Monitor) Jsz(q JszQuery) *Jsz {
	out := &Jsz{ID: m.src.ServerID, Now: time.Now().UTC()}
	js := m.src.JetStream
	if js == nil {
		out.Disabled = true
		return out
	}
	c, u := m.src.Config(), js.Usage()
	out.JetStreamStats, out.Config = *jetStreamStats(u), *jetStreamConfig(c, u)
	out.Limits, out.Meta = jetStreamLimits(c), js.Meta()
	if q.LeaderOnly && !m.LeadsMeta() {
		return &Jsz{ID: out.ID, Now: out.Now, Total: 0}
	}
	if q.Digest && out.Meta != nil {
		d := js.MetaDigest()
		out.Meta.Digest = &d
	}
	if q.Lost {
		out.Lost = js.Lost()
	}
	streams := js.Streams()
	for _, s := range streams {
		out.count(s)
	}
	details := m.accountDetails(streams, q)
	out.Total = len(details)
	if q.Accounts || q.Streams || q.Consumers || q.DirectConsumers || q.Account != "" {
		limit := q.Limit
		if limit <= 0 {
			limit = jszLimit
		}
		if q.Account != "" {
			details = slices.DeleteFunc(details, func(a *AccountDetail) bool { return a.Name != q.Account })
		}
		out.Accounts = window(details, q.Offset, limit)
	}
	return out
}

// LeadsMeta tells whether this server leads the meta group, or is the only one.
func (m *Monitor) LeadsMeta() bool {
	if m.src.JetStream == nil {
		return false
	}
	meta := m.src.JetStream.Meta()
	return meta == nil || meta.Leader == m.src.ServerName
}

// count adds one stream to the totals of this server.
func (out *Jsz) count(s Stream) {
	out.Streams++
	out.Consumers += s.NumConsumers
	out.Messages += s.Info.State.Msgs
	out.Bytes += s.Info.State.Bytes
	if s.Leader {
		out.StreamsLeader++
		out.ConsumersLeader += s.NumConsumers
	}
}

// accountDetails groups streams by account, in order of name.
func (m *Monitor) accountDetails(streams []Stream, q JszQuery) []*AccountDetail {
	byName := make(map[string]*AccountDetail)
	for _, a := range m.src.Config().Accounts {
		if a.JetStream != nil {
			byName[a.Name] = &AccountDetail{Name: a.Name, ID: a.Name}
		}
	}
	slices.SortFunc(streams, func(a, b Stream) int { return cmp.Compare(a.Info.Config.Name, b.Info.Config.Name) })
	for _, s := range streams {
		a := byName[s.Account]
		if a == nil {
			a = &AccountDetail{Name: s.Account, ID: s.Account}
			byName[s.Account] = a
		}
		if s.Info.Config.Storage == api.MemoryStorage {
			a.Memory += s.Info.State.Bytes
		} else {
			a.Storage += s.Info.State.Bytes
		}
		if (q.Streams || q.Consumers || q.DirectConsumers) && (s.Leader || !q.StreamLeaderOnly) {
			a.Streams = append(a.Streams, streamDetail(s, q))
		}
	}
	out := make([]*AccountDetail, 0, len(byName))
	for _, a := range byName {
		a.API.Total, a.API.Errors = m.src.JetStream.Requests(a.Name)
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *AccountDetail) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func streamDetail(s Stream, q JszQuery) StreamDetail {
	d := StreamDetail{
		Name: s.Info.Config.Name, Created: s.Info.Created, Cluster: s.Info.Cluster,
		State: s.Info.State, Mirror: s.Info.Mirror, Sources: s.Info.Sources,
	}
	if q.Config {
		c := s.Info.Config
		d.Config = &c
	}
	if q.Raft {
		d.RaftGroup = s.RaftGroup
	}
	if q.Digest && s.Digest != nil {
		sum := s.Digest()
		d.Digest = &sum
	}
	if (!q.Consumers && !q.DirectConsumers) || s.Consumers == nil {
		return d
	}
	for _, info := range s.Consumers() {
		c := ConsumerDetail{ConsumerInfo: info}
		if q.Config {
			c.Config = &info.Config
		}
		switch {
		case info.Config.Direct && q.DirectConsumers:
			d.Direct = append(d.Direct, c)
		case !info.Config.Direct && q.Consumers:
			d.Consumers = append(d.Consumers, c)
			if q.Raft {
				d.ConsumerGroups = append(d.ConsumerGroups, RaftGroup{info.Name, s.RaftGroup})
			}
		}
	}
	return d
}

func jetStreamConfig(c *config.Config, u Usage) *JetStreamConfig {
	js := &c.JetStream
	return &JetStreamConfig{
		MaxMemory: u.MaxMemory, MaxStorage: u.MaxStorage, StoreDir: js.StoreDir, Domain: js.Domain, UniqueTag: js.UniqueTag,
		SyncAlways: true, // Whatever the file says: nothing is acknowledged before it is synced.
	}
}

func jetStreamStats(u Usage) *JetStreamStats {
	return &JetStreamStats{
		Memory: u.Memory, Storage: u.Storage, ReservedMemory: u.ReservedMemory, ReservedStorage: u.ReservedStorage,
		Accounts: u.Accounts, HAAssets: u.HAAssets,
		API: JetStreamAPIs{Level: config.APILevel, Total: u.APITotal, Errors: u.APIErrors, Inflight: u.APIInflight},
	}
}

// jetStreamLimits returns nil when there are none, as the fields are left out then.
func jetStreamLimits(c *config.Config) *JetStreamLimits {
	l := c.JetStream.Limits
	out := JetStreamLimits{
		MaxRequestBatch: l.MaxRequestBatch, MaxAckPending: l.MaxAckPending,
		Duplicates: l.DuplicateWindow, DefaultMaxConsumers: l.DefaultMaxConsumers,
	}
	if out == (JetStreamLimits{}) {
		return nil
	}
	return &out
}
