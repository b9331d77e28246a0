package simfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrCrashed is what handles return that were opened before a crash.
var ErrCrashed = errors.New("simfs: handle is from before the crash")

// Names says when a change of a directory is durable.
type Names uint8

const (
	// Strict: once that directory was synced, not before.
	Strict Names = iota
	// Journal: once anything was synced.
	Journal
)

// Op is a call that is about to happen.
type Op struct {
	Seq  int // from 1
	Kind string
	Path string

	// Of reads and writes.
	Offset, Len int64
}

func (o Op) String() string {
	return fmt.Sprintf("%d %s %s [%d,+%d)", o.Seq, o.Kind, o.Path, o.Offset, o.Len)
}

// Writes tells whether the call changes anything.
func (o Op) Writes() bool {
	return o.Kind != "open" && o.Kind != "read" && o.Kind != "list" && o.Kind != "stat"
}

// FS is a simulated disk.
type FS struct {
	mu struct {
		sync.Mutex
		rand     *rand.Rand
		root     *node
		journal  []change // of names, not durable, oldest first
		locks    map[string]bool
		life     int // grows with each crash
		ops      int
		used     int64 // pages
		capacity int64 // pages, 0 is unlimited
		history  map[*node]map[int64][SectorSize]byte
		hook     func(Op) error
		names    Names
	}
}

var _ vfs.FS = (*FS)(nil)

// New returns an empty disk.
func New(seed uint64, names Names) *FS {
	f := &FS{}
	f.mu.rand = rand.New(rand.NewPCG(seed, 0x51f5))
	f.mu.root = newDir()
	f.mu.locks = map[string]bool{}
	f.mu.names = names
	return f
}

// SetHook sets what is called before every operation, without any lock: it may fail the operation
// with the error that it returns, block, or crash the disk. A failed write may have written a part.
func (f *FS) SetHook(hook func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.hook = hook
}

// SetCapacity limits the disk to so many bytes, 0 for no limit.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.capacity = bytes / pageSize
}

// Ops is how many operations there were.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.ops
}

// begin counts an operation, asks the hook, and takes the lock.
func (f *FS) begin(kind, path string, offset, length int64) error {
	f.mu.Lock()
	f.mu.ops++
	op, hook := Op{f.mu.ops, kind, path, offset, length}, f.mu.hook
	if hook == nil {
		return nil
	}
	f.mu.Unlock()
	err := hook(op)
	f.mu.Lock()
	if err != nil {
		return &os.PathError{Op: kind, Path: path, Err: err}
	}
	return nil
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(name, `\`, "/")), "/")
}

// lookup finds a node.
func (f *FS) lookup(name string) (*node, error) {
	n := f.mu.root
	for _, part := range split(name) {
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		if n = n.names[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

func split(name string) []string {
	if name = clean(name); name != "" {
		return strings.Split(name, "/")
	}
	return nil
}

// parent finds the directory that has, or will have, name.
func (f *FS) parent(name string) (dir *node, base string, err error) {
	d, base := path.Split(clean(name))
	if base == "" {
		return nil, "", syscall.EINVAL
	}
	if dir, err = f.lookup(d); err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	return dir, base, err
}

func fail(op, name string, err error) error {
	return &os.PathError{Op: op, Path: name, Err: err}
}

// Create implements vfs.FS.
func (f *FS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	err := f.begin("create", name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, fail("create", name, err)
	}
	if old := dir.names[base]; old != nil {
		if old.dir {
			return nil, fail("create", name, syscall.EISDIR)
		}
		f.change(change{kind: unlink, dir: dir, name: base, node: old})
	}
	n := newFile()
	f.change(change{kind: link, dir: dir, name: base, node: n})
	return f.handle(n, name, true), nil
}

// Link implements vfs.FS.
func (f *FS) Link(oldname, newname string) error {
	err := f.begin("link", newname, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	n, err := f.lookup(oldname)
	if err != nil {
		return fail("link", oldname, err)
	}
	dir, base, err := f.parent(newname)
	switch {
	case err == nil && n.dir:
		err = syscall.EPERM
	case err == nil && dir.names[base] != nil:
		err = fs.ErrExist
	}
	if err != nil {
		return fail("link", newname, err)
	}
	f.change(change{kind: link, dir: dir, name: base, node: n})
	return nil
}

// Open implements vfs.FS.
func (f *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.open("open", name, false, opts)
}

// OpenDir implements vfs.FS.
func (f *FS) OpenDir(name string) (vfs.File, error) {
	return f.open("open", name, false, nil)
}

// OpenReadWrite implements vfs.FS.
func (f *FS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.open("open-write", name, true, opts)
}

func (f *FS) open(kind, name string, write bool, opts []vfs.OpenOption) (vfs.File, error) {
	h, err := f.openLocked(kind, name, write)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(h)
	}
	return h, nil
}

func (f *FS) openLocked(kind, name string, write bool) (*file, error) {
	err := f.begin(kind, name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	n, err := f.lookup(name)
	if write && errors.Is(err, fs.ErrNotExist) {
		var dir *node
		var base string
		if dir, base, err = f.parent(name); err == nil {
			n = newFile()
			f.change(change{kind: link, dir: dir, name: base, node: n})
		}
	}
	if err == nil && write && n.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, fail(kind, name, err)
	}
	return f.handle(n, name, write), nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	err := f.begin("remove", name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	dir, base, err := f.parent(name)
	if err == nil {
		switch n := dir.names[base]; {
		case n == nil:
			err = fs.ErrNotExist
		case n.dir && len(n.names) > 0:
			err = syscall.ENOTEMPTY
		default:
			f.change(change{kind: unlink, dir: dir, name: base, node: n})
		}
	}
	if err != nil {
		return fail("remove", name, err)
	}
	return nil
}

// RemoveAll implements vfs.FS.
func (f *FS) RemoveAll(name string) error {
	err := f.begin("remove-all", name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	dir, base, err := f.parent(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fail("remove-all", name, err)
	}
	if n := dir.names[base]; n != nil {
		f.removeTree(dir, base, n)
	}
	return nil
}

func (f *FS) removeTree(dir *node, base string, n *node) {
	if n.dir {
		for _, name := range n.sortedNames() {
			f.removeTree(n, name, n.names[name])
		}
	}
	f.change(change{kind: unlink, dir: dir, name: base, node: n})
}

// Rename implements vfs.FS.
func (f *FS) Rename(oldname, newname string) error {
	err := f.begin("rename", newname, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.rename(oldname, newname)
}

func (f *FS) rename(oldname, newname string) error {
	from, base, err := f.parent(oldname)
	if err != nil || from.names[base] == nil {
		return fail("rename", oldname, fs.ErrNotExist)
	}
	to, newBase, err := f.parent(newname)
	if err != nil {
		return fail("rename", newname, err)
	}
	n, old := from.names[base], to.names[newBase]
	switch {
	case n == old:
		return nil
	case old != nil && old.dir != n.dir:
		return fail("rename", newname, syscall.ENOTDIR)
	case old != nil && old.dir && len(old.names) > 0:
		return fail("rename", newname, syscall.ENOTEMPTY)
	}
	f.change(change{kind: rename, dir: to, name: newBase, node: n, from: from, oldName: base, replaced: old})
	return nil
}

// ReuseForWrite implements vfs.FS.
func (f *FS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	err := f.begin("rename", newname, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := f.rename(oldname, newname); err != nil {
		return nil, err
	}
	n, err := f.lookup(newname)
	if err != nil {
		return nil, fail("rename", newname, err)
	}
	return f.handle(n, newname, true), nil
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(name string, _ os.FileMode) error {
	err := f.begin("mkdir", name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	n := f.mu.root
	for _, part := range split(name) {
		next := n.names[part]
		if next == nil {
			next = newDir()
			f.change(change{kind: link, dir: n, name: part, node: next})
		}
		if !next.dir {
			return fail("mkdir", name, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

// Lock implements vfs.FS.
func (f *FS) Lock(name string) (io.Closer, error) {
	err := f.begin("lock", name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, fail("lock", name, err)
	}
	if f.mu.locks[clean(name)] {
		return nil, fail("lock", name, syscall.EAGAIN)
	}
	if dir.names[base] == nil {
		f.change(change{kind: link, dir: dir, name: base, node: newFile()})
	}
	f.mu.locks[clean(name)] = true
	return &lock{f, clean(name), f.mu.life}, nil
}

type lock struct {
	fs   *FS
	name string
	life int
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.life == l.fs.mu.life {
		delete(l.fs.mu.locks, l.name)
	}
	return nil
}

// List implements vfs.FS. The names are sorted.
func (f *FS) List(name string) ([]string, error) {
	err := f.begin("list", name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	n, err := f.lookup(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, fail("list", name, err)
	}
	return n.sortedNames(), nil
}

// Stat implements vfs.FS.
func (f *FS) Stat(name string) (vfs.FileInfo, error) {
	err := f.begin("stat", name, 0, 0)
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	n, err := f.lookup(name)
	if err != nil {
		return nil, fail("stat", name, err)
	}
	return &info{path.Base("/" + clean(name)), n.nowSize, n.dir}, nil
}

// PathBase implements vfs.FS.
func (f *FS) PathBase(p string) string { return path.Base(p) }

// PathJoin implements vfs.FS.
func (f *FS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (f *FS) PathDir(p string) string { return path.Dir(p) }

// GetDiskUsage implements vfs.FS.
func (f *FS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := f.mu.capacity
	if total == 0 {
		total = 1 << 28 // 1 TiB
	}
	return vfs.DiskUsage{
		AvailBytes: uint64(max(total-f.mu.used, 0)) * pageSize,
		TotalBytes: uint64(total) * pageSize,
		UsedBytes:  uint64(f.mu.used) * pageSize,
	}, nil
}

// Unwrap implements vfs.FS.
func (f *FS) Unwrap() vfs.FS { return nil }
