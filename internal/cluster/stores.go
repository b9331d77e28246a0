package cluster

import (
	"fmt"
	"path/filepath"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/storage/lsm"
	"github.com/cleatkv/cleat/internal/storage/memory"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// storeKind tells the stores of a server apart.
type storeKind uint8

const (
	storeMeta   storeKind = iota // the meta group, apart from all streams
	storeFile                    // storage: file
	storeMemory                  // storage: memory
	storeRocks                   // storage: rocksdb, opened when the first stream asks for it
)

// The directories of the stores, below that of the server.
const (
	metaDir    = "meta"
	streamsDir = "streams"
	rocksDir   = "rocksdb"
)

// openStores opens every kind of store below dir. report is told of what the operator should know.
func openStores(fsys vfs.FS, dir string, report func(string)) (map[storeKind]storage.Store, error) {
	stores := map[storeKind]storage.Store{storeMemory: memory.NewStore()}
	for kind, sub := range map[storeKind]string{storeMeta: metaDir, storeFile: streamsDir} { // order: independent opens
		s, err := filelog.OpenStore(fsys, filepath.Join(dir, sub), filelog.WithReport(report))
		if err != nil {
			return nil, err
		}
		stores[kind] = s
	}
	return stores, nil
}

// store gives a store by kind. Only the reconciler calls it.
func (c *Cluster) store(kind storeKind) (storage.Store, error) {
	if s := c.stores[kind]; s != nil {
		return s, nil
	}
	s, err := lsm.OpenStore(c.opts.FS, filepath.Join(c.opts.Dir, rocksDir),
		lsm.WithReport(c.warn), lsm.WithFatal(c.diskFailed))
	if err != nil {
		return nil, fmt.Errorf("open the database of rocksdb buckets: %w", err)
	}
	c.stores[kind] = s
	return s, nil
}

func (c *Cluster) warn(text string) { c.opts.Logger.Warn(text) }

// storeOf chooses the store for a stream's configuration.
func storeOf(cfg *api.StreamConfig) storeKind {
	switch cfg.Engine() {
	case api.StorageRocksDB:
		return storeRocks
	case api.MemoryStorage.String():
		return storeMemory
	}
	return storeFile
}
