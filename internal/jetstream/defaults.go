package jetstream

import (
	"maps"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
)

// Defaults are the choices for streams that make none themselves, by metadata that clients written
// for other servers do not know.
type Defaults struct {
	RocksDB    bool // file storage is kept by the rocksdb engine
	StaleReads bool // reads do not ask the leader
}

// complete adds to a configuration what it leaves to the server: for a stream that exists what it
// has, so that a client that does not know the metadata can neither change it by an update nor be
// refused when it creates the stream again; for a new one the defaults.
func (c *call) complete(cfg *api.StreamConfig) {
	chosen := make(map[string]string)
	if d := c.svc.opts.Defaults; d.RocksDB && cfg.Storage == api.FileStorage {
		chosen[api.MetadataStorage] = api.StorageRocksDB
	}
	if c.svc.opts.Defaults.StaleReads {
		chosen[api.MetadataReads] = api.ReadsStale
	}
	if m := c.svc.cluster.Meta(); m != nil {
		if s := m.Stream(meta.Key{Account: c.account.broker.Name(), Name: cfg.Name}); s != nil {
			chosen = s.Config.Metadata
		}
	}
	for _, key := range []string{api.MetadataStorage, api.MetadataReads} {
		if _, said := cfg.Metadata[key]; said || chosen[key] == "" {
			continue
		}
		cfg.Metadata = maps.Clone(cfg.Metadata) // The request's, not ours to change.
		if cfg.Metadata == nil {
			cfg.Metadata = make(map[string]string)
		}
		cfg.Metadata[key] = chosen[key]
	}
}

// followDirect allows direct gets of a mirror as its origin allows them, and tells whether the
// configuration said so already.
func (c *call) followDirect(cfg *api.StreamConfig) bool {
	m := c.svc.cluster.Meta()
	if cfg.Mirror == nil || cfg.MirrorDirect || m == nil {
		return true
	}
	origin := m.Stream(meta.Key{Account: c.account.broker.Name(), Name: cfg.Mirror.Name})
	cfg.MirrorDirect = origin != nil && origin.Config.AllowDirect
	return !cfg.MirrorDirect
}
