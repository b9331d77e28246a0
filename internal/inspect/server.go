package inspect

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The parts of a server's directory.
const (
	lockFile   = "lock"
	walDir     = "wal"
	metaDir    = "meta"
	streamsDir = "streams"
	rocksDir   = "rocksdb"
	damagedDir = "damaged" // what repair has put aside
)

// A server's directory is locked while its files are looked at, so that none writes meanwhile. Files that
// are not in one, such as a copy of an engine, need no lock.

// Lock finds the server's directory that a path is in or below, and locks it. root is "" if there is none.
func Lock(fs vfs.FS, path string) (root string, unlock io.Closer, err error) {
	dir := path
	for range 4 {
		if isServer(fs, dir) {
			l, err := fs.Lock(fs.PathJoin(dir, lockFile))
			if err != nil {
				return "", nil, fmt.Errorf("%s is in use: stop the server first (%w)", dir, err)
			}
			return dir, l, nil
		}
		parent := fs.PathDir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return "", io.NopCloser(nil), nil
}

// isServer tells whether a directory is that of a server.
func isServer(fs vfs.FS, dir string) bool {
	_, err := fs.Stat(fs.PathJoin(dir, lockFile))
	return err == nil && isDir(fs, fs.PathJoin(dir, walDir))
}

func isDir(fs vfs.FS, path string) bool {
	info, err := fs.Stat(path)
	return err == nil && info.IsDir()
}

// WALDir is where the Raft log is: in a server's directory, or in the directory itself.
func WALDir(fs vfs.FS, path string) string {
	if dir := fs.PathJoin(path, walDir); isDir(fs, dir) {
		return dir
	}
	return path
}

// list returns the names in a directory, none if it is not there.
func list(fs vfs.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if oserror.IsNotExist(err) || errors.Is(err, vfs.ErrUnsupported) {
		return nil, nil
	}
	return names, err
}

// groupOf is the Raft group of an engine, by its name, 0 for others.
func groupOf(engine string) (group uint64) {
	var replica uint64
	if n, err := fmt.Sscanf(engine, "g%d-r%d", &group, &replica); n != 2 || err != nil || strings.ContainsAny(engine, "/\\") {
		return 0
	}
	return group
}
