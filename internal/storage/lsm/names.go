package lsm

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// namesFirst makes the names of files durable before a marker that speaks of them. Pebble makes a
// manifest and then the marker that names it, and syncs the directory once, after both: if a file
// system does not keep the order of names, a crash in between leaves a marker without its file,
// and a database that does not open.
type namesFirst struct{ vfs.FS }

// Create implements vfs.FS.
func (fs namesFirst) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(fs.PathBase(name), "marker.") {
		if err := syncDir(fs.FS, fs.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return fs.FS.Create(name, category)
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
