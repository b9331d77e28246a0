package simfs

import (
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open handle.
type file struct {
	fs     *FS
	n      *node
	path   string
	write  bool
	life   int
	pos    int64
	closed bool
}

func (f *FS) handle(n *node, path string, write bool) *file {
	n.refs++
	return &file{fs: f, n: n, path: path, write: write, life: f.mu.life}
}

// begin starts an operation on the handle.
func (h *file) begin(kind string, offset, length int64) error {
	if err := h.fs.begin(kind, h.path, offset, length); err != nil {
		return err
	}
	return h.usable(kind)
}

func (h *file) usable(kind string) error {
	switch {
	case h.closed:
		return fail(kind, h.path, fs.ErrClosed)
	case h.life != h.fs.mu.life:
		return fail(kind, h.path, ErrCrashed)
	}
	return nil
}

func (h *file) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return fail("close", h.path, fs.ErrClosed)
	}
	h.closed = true
	if h.life == h.fs.mu.life {
		h.fs.unref(h.n)
	}
	return nil
}

func (h *file) Read(b []byte) (int, error) {
	n, err := h.ReadAt(b, h.pos)
	h.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (h *file) ReadAt(b []byte, at int64) (int, error) {
	err := h.begin("read", at, int64(len(b)))
	defer h.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if h.n.dir {
		return 0, fail("read", h.path, syscall.EISDIR)
	}
	n := int(max(0, min(int64(len(b)), h.n.nowSize-at)))
	if len(h.n.unreadable) > 0 {
		for s := at / SectorSize; s*SectorSize < at+int64(n); s++ {
			if h.n.unreadable[s] {
				return 0, fail("read", h.path, syscall.EIO)
			}
		}
	}
	h.n.now.read(b[:n], at)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) Write(b []byte) (int, error) {
	n, err := h.WriteAt(b, h.pos)
	h.pos += int64(n)
	return n, err
}

func (h *file) WriteAt(b []byte, at int64) (int, error) {
	err := h.begin("write", at, int64(len(b)))
	defer h.fs.mu.Unlock()
	if h.usable("write") != nil {
		return 0, h.usable("write")
	}
	if !h.write || h.n.dir {
		return 0, fail("write", h.path, syscall.EBADF)
	}
	if err != nil {
		// As much as the seed says got through, in whole sectors.
		end := (at + h.fs.mu.rand.Int64N(int64(len(b))+1)) / SectorSize * SectorSize
		n := int(end - at)
		if n > 0 && h.fs.hasRoom(h.n, at, int64(n)) {
			h.fs.mu.used += int64(h.n.writeAt(b[:n], at, h.fs.mu.ops))
			return n, err
		}
		return 0, err
	}
	if len(b) == 0 {
		return 0, nil
	}
	if !h.fs.hasRoom(h.n, at, int64(len(b))) {
		return 0, fail("write", h.path, syscall.ENOSPC)
	}
	h.fs.mu.used += int64(h.n.writeAt(b, at, h.fs.mu.ops))
	for s := range h.n.unreadable {
		if at <= s*SectorSize && (s+1)*SectorSize <= at+int64(len(b)) {
			delete(h.n.unreadable, s) // A sector that is written anew is remapped.
		}
	}
	return len(b), nil
}

// hasRoom tells whether the holes that a write fills fit on the disk.
func (f *FS) hasRoom(n *node, at, length int64) bool {
	if f.mu.capacity == 0 {
		return true
	}
	holes := int64(0)
	for p := at / pageSize; p*pageSize < at+length; p++ {
		if p >= int64(len(n.now.pages)) || n.now.pages[p] == nil {
			holes++
		}
	}
	return holes == 0 || f.mu.used+holes <= f.mu.capacity
}

// Preallocate implements vfs.File; it does nothing, as it may.
func (h *file) Preallocate(int64, int64) error { return nil }

func (h *file) Stat() (vfs.FileInfo, error) {
	err := h.begin("stat", 0, 0)
	defer h.fs.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &info{h.fs.PathBase(h.path), h.n.nowSize, h.n.dir}, nil
}

func (h *file) Sync() error { return h.sync("sync") }

func (h *file) SyncData() error { return h.sync("sync-data") }

// SyncTo implements vfs.File. It promises nothing, so it does nothing.
func (h *file) SyncTo(int64) (bool, error) { return false, nil }

func (h *file) sync(kind string) error {
	err := h.begin(kind, 0, 0)
	defer h.fs.mu.Unlock()
	if e := h.usable(kind); e != nil {
		return e
	}
	if err != nil {
		// Reads still see it, but no later sync will write it.
		h.n.drop()
		return err
	}
	if h.n.dir || h.fs.mu.names == Journal {
		h.fs.syncNames(h.n)
	}
	if !h.n.dir {
		h.fs.remember(h.n)
		h.n.sync()
	}
	return nil
}

// Prefetch implements vfs.File.
func (h *file) Prefetch(int64, int64) error { return nil }

// Fd implements vfs.File.
func (h *file) Fd() uintptr { return vfs.InvalidFd }

// info describes a file.
type info struct {
	name string
	size int64
	dir  bool
}

func (i *info) Name() string { return i.name }
func (i *info) Size() int64  { return i.size }
func (i *info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
func (i *info) ModTime() time.Time     { return time.Time{} }
func (i *info) IsDir() bool            { return i.dir }
func (i *info) Sys() any               { return nil }
func (i *info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
