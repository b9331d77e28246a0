package filelog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// dir is the directory of one engine.
type dir struct {
	fs     vfs.FS
	root   string
	id     uint32        // CRC32C of the engine's name, in every file
	last   atomic.Uint32 // file number given out last
	broken atomic.Pointer[error]
}

func newDir(fs vfs.FS, root, name string) *dir {
	return &dir{
		fs:   fs,
		root: fs.PathJoin(root, name),
		id:   crc32.Checksum([]byte(name), castagnoli),
	}
}

func (d *dir) path(name string) string { return d.fs.PathJoin(d.root, name) }

func (d *dir) blockPath(number uint32) string { return d.path(blockName(number)) }

func blockName(number uint32) string { return fmt.Sprintf("block-%08d", number) }
func indexName(number uint32) string { return fmt.Sprintf("index-%08d", number) }

// number gives out a file number that no file of this directory has had.
func (d *dir) number() uint32 { return d.last.Add(1) }

// synced remembers that a sync failed, as the engine can then no longer be trusted: what was to be
// made durable may be gone from memory and not be on disk, and a second try may succeed wrongly.
func (d *dir) synced(err error) error {
	if err != nil {
		d.broken.CompareAndSwap(nil, &err)
	}
	return err
}

// failed is the error of the first sync that failed.
func (d *dir) failed() error {
	if err := d.broken.Load(); err != nil {
		return fmt.Errorf("storage: %s: an earlier sync failed: %w", d.root, *err)
	}
	return nil
}

// sync makes the names in the directory durable.
func (d *dir) sync() error { return d.synced(syncDir(d.fs, d.root)) }

func syncDir(fs vfs.FS, path string) error {
	f, err := fs.OpenDir(path)
	if err != nil {
		return fmt.Errorf("storage: open directory %s: %w", path, err)
	}
	err = f.Sync()
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("storage: sync directory %s: %w", path, err)
	}
	return nil
}

// makeDir makes a directory and those above it, durably.
func makeDir(fs vfs.FS, path string) error {
	if _, err := fs.Stat(path); err == nil || !isNotExist(err) {
		return err
	}
	parent := fs.PathDir(path)
	if parent != path {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("storage: make directory %s: %w", path, err)
	}
	return syncDir(fs, parent)
}

func isNotExist(err error) bool {
	return err != nil && (oserror.IsNotExist(err) || errors.Is(err, fs.ErrNotExist))
}

// list returns the names in the directory, sorted.
func (d *dir) list() ([]string, error) {
	names, err := d.fs.List(d.root)
	if err != nil {
		return nil, fmt.Errorf("storage: list %s: %w", d.root, err)
	}
	slices.Sort(names)
	return names, nil
}

func (d *dir) remove(name string) error {
	if err := d.fs.Remove(d.path(name)); err != nil {
		return fmt.Errorf("storage: remove %s: %w", d.path(name), err)
	}
	return nil
}
