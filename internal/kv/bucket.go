package kv

import (
	"maps"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// HistoryMax is the largest history that clients accept.
const HistoryMax = 64

// Bucket is the settings of a bucket, as users see them.
type Bucket struct {
	Name           string
	Description    string
	History        int           // revisions kept of each key
	TTL            time.Duration // 0: for ever
	MarkerTTL      time.Duration // how long a marker tells of an expired key; 0: no markers
	MaxValueBytes  int32         // -1: no limit
	MaxBytes       int64         // -1: no limit
	Engine         string        // file, memory or rocksdb
	Replicas       int
	Compressed     bool
	StaleReads     bool              // reads may miss the newest writes
	Metadata       map[string]string // the user's own
	RepublishTo    string            // empty: entries are not published again
	PlacementTags  []string
	PlacementGroup string // cluster
}

// StreamConfig is the configuration of the stream that holds the bucket, as clients request it.
func (b *Bucket) StreamConfig() api.StreamConfig {
	c := api.StreamConfig{
		Name: StreamName(b.Name), Description: b.Description, Subjects: []string{Subject(b.Name, ">")},
		MaxMsgsPerSubject: int64(max(b.History, 1)), MaxAge: b.TTL, MaxMsgSize: b.MaxValueBytes, MaxBytes: b.MaxBytes,
		MaxMsgs: -1, MaxConsumers: -1, Replicas: max(b.Replicas, 1),
		Discard: api.DiscardNew, AllowRollup: true, DenyDelete: true, AllowDirect: true,
		SubjectDeleteMarkerTTL: b.MarkerTTL, AllowMsgTTL: b.MarkerTTL > 0,
		Metadata: maps.Clone(b.Metadata),
	}
	if b.Compressed {
		c.Compression = api.S2Compression
	}
	if b.Engine == api.MemoryStorage.String() {
		c.Storage = api.MemoryStorage
	}
	if b.Engine == api.StorageRocksDB {
		c.Metadata = with(c.Metadata, api.MetadataStorage, api.StorageRocksDB)
	}
	if b.StaleReads {
		c.Metadata = with(c.Metadata, api.MetadataReads, api.ReadsStale)
	}
	if b.RepublishTo != "" {
		c.Republish = &api.Republish{Source: Subject(b.Name, ">"), Destination: b.RepublishTo}
	}
	if len(b.PlacementTags) > 0 || b.PlacementGroup != "" {
		c.Placement = &api.Placement{Cluster: b.PlacementGroup, Tags: b.PlacementTags}
	}
	return c
}

// BucketOf is the inverse; ok is false if the stream holds no bucket.
func BucketOf(c *api.StreamConfig) (b Bucket, ok bool) {
	name, ok := BucketName(c.Name)
	if !ok {
		return Bucket{}, false
	}
	b = Bucket{
		Name: name, Description: c.Description, History: int(c.MaxMsgsPerSubject), TTL: c.MaxAge, MarkerTTL: c.SubjectDeleteMarkerTTL,
		MaxValueBytes: c.MaxMsgSize, MaxBytes: c.MaxBytes, Engine: c.Engine(), Replicas: c.Replicas,
		Compressed: c.Compressed(), StaleReads: c.StaleReads(), Metadata: api.WithoutServerMetadata(c.Metadata),
	}
	delete(b.Metadata, api.MetadataStorage)
	delete(b.Metadata, api.MetadataReads)
	if len(b.Metadata) == 0 {
		b.Metadata = nil
	}
	if c.Republish != nil {
		b.RepublishTo = c.Republish.Destination
	}
	if c.Placement != nil {
		b.PlacementTags, b.PlacementGroup = c.Placement.Tags, c.Placement.Cluster
	}
	return b, true
}

func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = make(map[string]string)
	}
	m[key] = value
	return m
}
