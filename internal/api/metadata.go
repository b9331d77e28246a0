package api

import (
	"maps"
	"strconv"
	"strings"
)

// serverMetadataPrefix begins the metadata keys that the server owns. What clients send under it is
// dropped; it is stamped anew into every answer.
const serverMetadataPrefix = "_nats."

// Metadata keys by which a bucket is told what the configuration itself has no member for.
const (
	// MetadataStorage chooses the engine behind file storage: StorageRocksDB.
	MetadataStorage = "cleat.storage"
	// MetadataReads set to ReadsStale gives up linearizable default reads.
	MetadataReads = "cleat.reads"

	// MetadataRestoring marks a stream that is being made of a backup. It has no subjects yet.
	MetadataRestoring = "cleat.restoring"

	// HeaderReads in a direct get does the same for that one.
	HeaderReads = "Cleat-Reads"

	StorageRocksDB = "rocksdb"
	ReadsStale     = "stale"
)

// Engine names the storage engine that the configuration asks for: "file", "memory" or "rocksdb".
func (c *StreamConfig) Engine() string {
	if c.Storage == FileStorage && c.Metadata[MetadataStorage] == StorageRocksDB {
		return StorageRocksDB
	}
	return c.Storage.String()
}

// Compressed tells whether stored messages are to be compressed.
func (c *StreamConfig) Compressed() bool { return c.Compression != NoCompression }

// StaleReads tells whether default reads may be served without asking for the read index.
func (c *StreamConfig) StaleReads() bool { return c.Metadata[MetadataReads] == ReadsStale }

// Restoring tells whether the stream takes in a backup.
func (c *StreamConfig) Restoring() bool { return c.Metadata[MetadataRestoring] != "" }

// ForRestore is the configuration under which a stream takes in the backup of one that has
// configuration c: nothing enters it or leaves it but for the limits, and nobody copies.
func (c *StreamConfig) ForRestore() *StreamConfig {
	r := *c
	r.Metadata = maps.Clone(c.Metadata)
	if r.Metadata == nil {
		r.Metadata = make(map[string]string)
	}
	r.Metadata[MetadataRestoring] = "true"
	r.Subjects, r.Sources, r.SubjectTransform, r.Republish, r.FirstSeq = nil, nil, nil, nil, 0
	r.Sealed, r.DenyDelete, r.DenyPurge = false, false, false
	if r.Retention == InterestRetention {
		r.Retention = LimitsRetention // Consumers come last.
	}
	return &r
}

func (c *StreamConfig) checkEngine(bool) *Error {
	switch v := c.Metadata[MetadataStorage]; {
	case v == "" || v == c.Storage.String():
	case v == StorageRocksDB && c.Storage == FileStorage:
	default:
		return invalid("metadata %s can not be %q with %s storage", MetadataStorage, v, c.Storage)
	}
	if v := c.Metadata[MetadataReads]; v != "" && v != ReadsStale {
		return invalid("metadata %s can not be %q", MetadataReads, v)
	}
	return nil
}

// RequiredLevel is the API level that the configuration needs.
func (c *StreamConfig) RequiredLevel() int {
	switch {
	case c.AllowBatchPublish:
		return 4
	case c.AllowMsgCounter, c.AllowAtomicPublish, c.AllowMsgSchedules, c.PersistMode != DefaultPersist:
		return 2
	case c.AllowMsgTTL, c.SubjectDeleteMarkerTTL > 0:
		return 1
	}
	return 0
}

// Stamped returns a copy of c with the server's metadata, for an answer. version is left out of
// listings, where it is empty.
func (c StreamConfig) Stamped(version string) StreamConfig {
	c.Metadata = Stamp(c.Metadata, c.RequiredLevel(), version)
	return c
}

// Stamp returns a copy of metadata with the required level and, unless version is empty, the
// version and level of this server.
func Stamp(metadata map[string]string, required int, version string) map[string]string {
	m := make(map[string]string, len(metadata)+3)
	maps.Copy(m, metadata)
	m[serverMetadataPrefix+"req.level"] = strconv.Itoa(required)
	if version != "" {
		m[serverMetadataPrefix+"ver"] = version
		m[serverMetadataPrefix+"level"] = strconv.Itoa(Level)
	}
	return m
}

// WithoutServerMetadata returns metadata less the members that the server owns; nil if none are
// left.
func WithoutServerMetadata(metadata map[string]string) map[string]string {
	m := maps.Clone(metadata)
	maps.DeleteFunc(m, func(k, _ string) bool { return strings.HasPrefix(k, serverMetadataPrefix) })
	if len(m) == 0 {
		return nil
	}
	return m
}
