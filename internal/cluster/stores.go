package cluster

import (
	"path/filepath"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/storage/memory"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// storeKind tells the stores of a server apart.
type storeKind uint8

const (
	storeMeta   storeKind = iota // the meta group, apart from all streams
	storeFile                    // storage: file
	storeMemory                  // storage: memory
)

// openStores opens every kind of store below dir.
func openStores(fsys vfs.FS, dir string) (map[storeKind]storage.Store, error) {
	stores := map[storeKind]storage.Store{storeMemory: memory.NewStore()}
	for kind, sub := range map[storeKind]string{storeMeta: "meta", storeFile: "streams"} { // order: independent opens
		s, err := filelog.OpenStore(fsys, filepath.Join(dir, sub))
		if err != nil {
			return nil, err
		}
		stores[kind] = s
	}
	return stores, nil
}

// storeOf chooses the store for a stream's configuration.
func storeOf(cfg *api.StreamConfig) storeKind {
	if cfg.Storage == api.MemoryStorage {
		return storeMemory
	}
	return storeFile
}
