package lsm

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// namesFirst makes names durable in the order that Pebble relies on, for file systems that do not
// keep it. A marker is an empty file whose name says which manifest is the current one. Pebble makes
// the manifest, makes the new marker, removes the old one, and then syncs the directory: a crash in
// between could leave a marker without its manifest, or no marker at all, and then there would be
// no database.
type namesFirst struct{ vfs.FS }

// Create implements vfs.FS.
func (fs namesFirst) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.beforeMarker(name); err != nil {
		return nil, err
	}
	return fs.FS.Create(name, category)
}

// Remove implements vfs.FS.
func (fs namesFirst) Remove(name string) error {
	if err := fs.beforeMarker(name); err != nil {
		return err
	}
	return fs.FS.Remove(name)
}

// beforeMarker makes durable what was done before a marker comes or goes.
func (fs namesFirst) beforeMarker(name string) error {
	if !strings.HasPrefix(fs.PathBase(name), "marker.") {
		return nil
	}
	return syncDir(fs.FS, fs.PathDir(name))
}

// Unwrap implements vfs.FS.
func (fs namesFirst) Unwrap() vfs.FS { return fs.FS }

func syncDir(fs vfs.FS, path string) error {
	f, err := fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
