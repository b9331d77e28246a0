package lsm

import (
	"fmt"
	iofs "io/fs"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ending is the end of a database that cannot go on. When a manifest, a marker or a directory could not
// be written, Pebble does not know any more what is on the disk, and expects the process to end at
// once. Here the disk is closed to it instead, so that the server can say what happened and stop in
// order: whatever Pebble writes from then on goes to memory that is never read by a later start,
// and nothing is called durable. A start reads the last whole state, and the Raft log holds what
// came after.
type ending struct {
	tell func(error)
	once sync.Once
	came chan struct{} // closed when the database has ended
	err  error         // why; set before came is closed
	mem  *vfs.MemFS    // takes what is written after the end
}

func newEnding(tell func(error)) *ending {
	return &ending{tell: tell, came: make(chan struct{}), mem: vfs.NewMem()}
}

// reason tells why the database has ended; nil if it has not.
func (e *ending) reason() error {
	select {
	case <-e.came:
		return e.err
	default:
		return nil
	}
}

// because ends the database and tells, the first time.
func (e *ending) because(err error) {
	e.once.Do(func() {
		e.err = fmt.Errorf("storage: the database can not go on: %w", err)
		close(e.came)
		e.tell(e.err)
	})
}

// create makes a file after the end.
func (e *ending) create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := e.mem.MkdirAll(e.mem.PathDir(name), 0o755); err != nil {
		return nil, err
	}
	return e.mem.Create(name, category)
}

// endingFS is the file system of a database that may end.
type endingFS struct {
	vfs.FS
	end *ending
}

// vital tells whether the database ends when a file cannot be written.
func (fs endingFS) vital(name string) bool {
	base := fs.PathBase(name)
	return strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")
}

// Create implements vfs.FS.
func (fs endingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if fs.end.reason() != nil {
		return fs.end.create(name, category)
	}
	f, err := fs.FS.Create(name, category)
	switch {
	case err == nil:
		return endingFile{f, fs.end, fs.vital(name)}, nil
	case fs.vital(name):
		fs.end.because(err)
		return fs.end.create(name, category)
	}
	return nil, err
}

// ReuseForWrite implements vfs.FS.
func (fs endingFS) ReuseForWrite(_, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.Create(newname, category)
}

// Open implements vfs.FS.
func (fs endingFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if fs.end.reason() != nil {
		if f, err := fs.end.mem.Open(name, opts...); err == nil {
			return f, nil
		}
	}
	return fs.FS.Open(name, opts...)
}

// Stat implements vfs.FS.
func (fs endingFS) Stat(name string) (vfs.FileInfo, error) {
	if fs.end.reason() != nil {
		if info, err := fs.end.mem.Stat(name); err == nil {
			return info, nil
		}
	}
	return fs.FS.Stat(name)
}

// Link implements vfs.FS.
func (fs endingFS) Link(oldname, newname string) error {
	if err := fs.end.reason(); err != nil {
		return err
	}
	return fs.FS.Link(oldname, newname)
}

// Remove implements vfs.FS.
func (fs endingFS) Remove(name string) error {
	if fs.end.reason() != nil {
		return nil
	}
	return fs.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (fs endingFS) RemoveAll(name string) error {
	if fs.end.reason() != nil {
		return nil
	}
	return fs.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (fs endingFS) Rename(oldname, newname string) error {
	if fs.end.reason() != nil {
		return nil
	}
	return fs.FS.Rename(oldname, newname)
}

// MkdirAll implements vfs.FS.
func (fs endingFS) MkdirAll(dir string, perm iofs.FileMode) error {
	if fs.end.reason() != nil {
		return nil
	}
	return fs.FS.MkdirAll(dir, perm)
}

// OpenDir implements vfs.FS.
func (fs endingFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return endingFile{f, fs.end, true}, nil
}

// Unwrap implements vfs.FS.
func (fs endingFS) Unwrap() vfs.FS { return fs.FS }

// endingFile is a file, or a directory, of a database that may end.
type endingFile struct {
	vfs.File
	end   *ending
	vital bool
}

// after says what the database hears of a write: nothing of one that ends it, or that comes later.
func (f endingFile) after(err error) error {
	if err == nil || !f.vital {
		return err
	}
	f.end.because(err)
	return nil
}

// Write implements vfs.File.
func (f endingFile) Write(b []byte) (int, error) {
	if f.end.reason() != nil {
		return len(b), nil
	}
	n, err := f.File.Write(b)
	if f.vital {
		n = len(b)
	}
	return n, f.after(err)
}

// Sync implements vfs.File.
func (f endingFile) Sync() error {
	if f.end.reason() != nil {
		return nil
	}
	return f.after(f.File.Sync())
}

// SyncData implements vfs.File.
func (f endingFile) SyncData() error {
	if f.end.reason() != nil {
		return nil
	}
	return f.after(f.File.SyncData())
}

// SyncTo implements vfs.File.
func (f endingFile) SyncTo(length int64) (full bool, err error) {
	if f.end.reason() != nil {
		return false, nil
	}
	full, err = f.File.SyncTo(length)
	return full, f.after(err)
}

// Close implements vfs.File.
func (f endingFile) Close() error { return f.after(f.File.Close()) }
