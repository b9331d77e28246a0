package main

import (
	"maps"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cli"
)

// The records of the structured formats. Their fields are a promise: docs/cli.md lists them, and a
// field is only ever added, at the end.

// entryRecord is one revision of a key: get, history, revert, watch.
type entryRecord struct {
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key"`
	Revision  uint64    `json:"revision"`
	Operation string    `json:"operation"` // PUT, DELETE or PURGE
	Created   time.Time `json:"created"`
	Length    int       `json:"length"`   // of the value, in bytes
	Encoding  string    `json:"encoding"` // of Value here: text or base64
	Value     string    `json:"value"`
}

func newEntryRecord(e jetstream.KeyValueEntry) entryRecord {
	value, encoding := cli.Encoded(e.Value())
	return entryRecord{e.Bucket(), e.Key(), e.Revision(), operation(e), e.Created().UTC(),
		len(e.Value()), encoding, value}
}

// operation is what made an entry.
func operation(e jetstream.KeyValueEntry) string {
	switch e.Operation() {
	case jetstream.KeyValuePut:
		return "PUT"
	case jetstream.KeyValueDelete:
		return "DELETE"
	case jetstream.KeyValuePurge:
		return "PURGE"
	default:
		return "UNKNOWN"
	}
}

// writeRecord is a write that was acknowledged: put, create, update, del of a key, purge.
type writeRecord struct {
	Bucket    string  `json:"bucket"`
	Key       string  `json:"key"`
	Revision  *uint64 `json:"revision"` // null for a marker: the client library does not say
	Operation string  `json:"operation"`
}

// keyRecord is a key in a list, with its value; keyInfoRecord without, keyNameRecord just the key.
type keyRecord struct {
	Key      string    `json:"key"`
	Revision uint64    `json:"revision"`
	Created  time.Time `json:"created"`
	Length   int       `json:"length"`
	Encoding string    `json:"encoding"`
	Value    string    `json:"value"`
}

type keyInfoRecord struct {
	Key      string    `json:"key"`
	Revision uint64    `json:"revision"`
	Created  time.Time `json:"created"`
}

type keyNameRecord struct {
	Key string `json:"key"`
}

func newKeyRecord(e jetstream.KeyValueEntry) keyRecord {
	value, encoding := cli.Encoded(e.Value())
	return keyRecord{e.Key(), e.Revision(), e.Created().UTC(), len(e.Value()), encoding, value}
}

func (k keyRecord) keyInfoRecord() keyInfoRecord { return keyInfoRecord{k.Key, k.Revision, k.Created} }

// cell is the value as a table can hold it: control characters would break the box.
func (k keyRecord) cell() string {
	if k.Encoding == "text" && strings.ContainsFunc(k.Value, func(c rune) bool {
		return unicode.IsControl(c) && c != '\n' && c != '\t'
	}) {
		return cli.Display([]byte(k.Value))
	}
	return k.Value
}

// bucketRecord is a bucket in a list; bucketNameRecord just its name.
type bucketRecord struct {
	Bucket      string     `json:"bucket"`
	Description string     `json:"description"`
	Created     time.Time  `json:"created"`
	Bytes       uint64     `json:"bytes"`
	Values      uint64     `json:"values"`
	LastUpdate  *time.Time `json:"last_update"` // null while nothing was written
}

type bucketNameRecord struct {
	Bucket string `json:"bucket"`
}

func newBucketRecord(name string, info *jetstream.StreamInfo) bucketRecord {
	b := bucketRecord{Bucket: name, Description: info.Config.Description, Created: info.Created.UTC(),
		Bytes: info.State.Bytes, Values: info.State.Msgs}
	if !info.State.LastTime.IsZero() {
		last := info.State.LastTime.UTC()
		b.LastUpdate = &last
	}
	return b
}

// deletedRecord is the answer of del of a bucket, compactRecord that of compact.
type deletedRecord struct {
	Bucket  string `json:"bucket"`
	Deleted bool   `json:"deleted"`
}

type compactRecord struct {
	Bucket       string `json:"bucket"`
	ValuesBefore uint64 `json:"values_before"`
	ValuesAfter  uint64 `json:"values_after"`
}

// infoRecord is a bucket's configuration and state: info, add, edit. Limits are -1, ages 0 when there
// is none; the last members are null where they do not apply.
type infoRecord struct {
	Bucket                string            `json:"bucket"`
	Description           string            `json:"description"`
	Created               time.Time         `json:"created"`
	History               int64             `json:"history"`
	Values                uint64            `json:"values"`
	Bytes                 uint64            `json:"bytes"`
	FirstRevision         uint64            `json:"first_revision"`
	LastRevision          uint64            `json:"last_revision"`
	MaxBytes              int64             `json:"max_bytes"`
	MaxValueSize          int32             `json:"max_value_size"`
	TTLSeconds            float64           `json:"ttl_seconds"`
	LimitMarkerTTLSeconds float64           `json:"limit_marker_ttl_seconds"`
	Compressed            bool              `json:"compressed"`
	Stream                string            `json:"stream"`
	Storage               string            `json:"storage"` // file, memory or rocksdb
	Replicas              int               `json:"replicas"`
	Metadata              map[string]string `json:"metadata"`
	Placement             *placementRecord  `json:"placement"`
	Republish             *republishRecord  `json:"republish"`
	Mirror                *originRecord     `json:"mirror"`
	Sources               []originRecord    `json:"sources"`
	Cluster               *clusterRecord    `json:"cluster"`
}

type placementRecord struct {
	Cluster string   `json:"cluster"`
	Tags    []string `json:"tags"`
}

type republishRecord struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	HeadersOnly bool   `json:"headers_only"`
}

type originRecord struct {
	Bucket        string   `json:"bucket"`
	ExternalAPI   string   `json:"external_api"`
	Lag           uint64   `json:"lag"`
	ActiveSeconds *float64 `json:"active_seconds"` // since it was last seen, null if it never was
}

type clusterRecord struct {
	Name     string          `json:"name"`
	Leader   string          `json:"leader"`
	Replicas []replicaRecord `json:"replicas"` // the others, without the leader
}

type replicaRecord struct {
	Name          string   `json:"name"`
	Current       bool     `json:"current"`
	Offline       bool     `json:"offline"`
	Lag           uint64   `json:"lag"`
	ActiveSeconds *float64 `json:"active_seconds"`
}

func newInfoRecord(bucket string, info *jetstream.StreamInfo) infoRecord {
	c := &info.Config
	r := infoRecord{
		Bucket: bucket, Description: c.Description, Created: info.Created.UTC(),
		History: c.MaxMsgsPerSubject, Values: info.State.Msgs, Bytes: info.State.Bytes,
		FirstRevision: info.State.FirstSeq, LastRevision: info.State.LastSeq,
		MaxBytes: c.MaxBytes, MaxValueSize: c.MaxMsgSize,
		TTLSeconds: c.MaxAge.Seconds(), LimitMarkerTTLSeconds: c.SubjectDeleteMarkerTTL.Seconds(),
		Compressed: c.Compression != jetstream.NoCompression, Stream: c.Name, Storage: engine(c),
		Replicas: c.Replicas, Metadata: userMetadata(c.Metadata), Sources: []originRecord{},
	}
	if p := c.Placement; p != nil {
		r.Placement = &placementRecord{p.Cluster, append([]string{}, p.Tags...)}
	}
	if p := c.RePublish; p != nil {
		r.Republish = &republishRecord{p.Source, p.Destination, p.HeadersOnly}
	}
	if info.Mirror != nil {
		m := newOriginRecord(info.Mirror, []*jetstream.StreamSource{c.Mirror})
		r.Mirror = &m
	}
	for _, s := range info.Sources {
		r.Sources = append(r.Sources, newOriginRecord(s, c.Sources))
	}
	if info.Cluster != nil {
		r.Cluster = newClusterRecord(info.Cluster)
	}
	return r
}

// newOriginRecord joins the state of a mirror or source with what is configured for it.
func newOriginRecord(state *jetstream.StreamSourceInfo, configured []*jetstream.StreamSource) originRecord {
	r := originRecord{Bucket: strings.TrimPrefix(state.Name, "KV_"), Lag: state.Lag,
		ActiveSeconds: seconds(state.Active)}
	for _, s := range configured {
		if s != nil && s.Name == state.Name && s.External != nil {
			r.ExternalAPI = s.External.APIPrefix
		}
	}
	return r
}

func newClusterRecord(c *jetstream.ClusterInfo) *clusterRecord {
	r := &clusterRecord{Name: c.Name, Leader: c.Leader, Replicas: []replicaRecord{}}
	for _, p := range c.Replicas {
		r.Replicas = append(r.Replicas, replicaRecord{p.Name, p.Current, p.Offline, p.Lag, seconds(p.Active)})
	}
	return r
}

// seconds is how long ago something was seen; the server says 0, a negative or the longest duration
// for never.
func seconds(d time.Duration) *float64 {
	if d <= 0 || d == 1<<63-1 {
		return nil
	}
	s := d.Seconds()
	return &s
}

// engine is the storage a bucket asks for: what rocksdb is called by, clients see as file.
func engine(c *jetstream.StreamConfig) string {
	if c.Storage == jetstream.MemoryStorage {
		return "memory"
	}
	if c.Metadata[api.MetadataStorage] == api.StorageRocksDB {
		return api.StorageRocksDB
	}
	return "file"
}

// userMetadata leaves out what the server keeps in the metadata and what is shown elsewhere.
func userMetadata(m map[string]string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	maps.DeleteFunc(out, func(k, _ string) bool {
		return strings.HasPrefix(k, "_nats.") || k == api.MetadataStorage
	})
	return out
}

// project makes records of another kind of records.
func project[A, B any](in []A, f func(A) B) []B {
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = f(a)
	}
	return out
}
