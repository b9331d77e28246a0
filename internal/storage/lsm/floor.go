package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// floor is a file beside the database's own, which says how far engines are on disk at least.
//
// Pebble takes damage in its manifest for the torn end of it, and then opens an older state, or an
// empty one, without a word. An engine that is behind its floor tells.
//
//	| magic "CLEATLSM" 8 | version 4 | entries 4 | repeated: number 8 | applied index 8 | crc32c 4 |
//
// Integers are little endian; the checksum covers all before it. The file is replaced as a whole.
type floor struct {
	fs  vfs.FS
	dir string

	mu struct {
		sync.Mutex
		indexes map[keyed]uint64
	}
}

const (
	floorName    = "FLOOR"
	floorMagic   = "CLEATLSM"
	floorVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newFloor(fs vfs.FS, dir string) *floor {
	f := &floor{fs: fs, dir: dir}
	f.mu.indexes = make(map[keyed]uint64)
	return f
}

func (f *floor) path() string { return f.fs.PathJoin(f.dir, floorName) }

// load reads the file, and tells whether there is one.
func (f *floor) load() (ok bool, err error) {
	file, err := f.fs.Open(f.path())
	if oserror.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("storage: open %s: %w", f.path(), err)
	}
	b, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return false, fmt.Errorf("storage: read %s: %w", f.path(), err)
	}
	n := len(b) - 4
	if n < 16 || (n-16)%16 != 0 || crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]) {
		return false, &storage.CorruptError{Path: f.path(), Detail: "checksum mismatch"}
	}
	if string(b[:8]) != floorMagic || binary.LittleEndian.Uint32(b[8:]) != floorVersion {
		return false, &storage.CorruptError{Path: f.path(), Detail: "unknown format"}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for e := b[16:n]; len(e) > 0; e = e[16:] {
		f.mu.indexes[keyed(binary.LittleEndian.Uint64(e))] = binary.LittleEndian.Uint64(e[8:])
	}
	return true, nil
}

func (f *floor) encode() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := binary.LittleEndian.AppendUint32([]byte(floorMagic), floorVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.mu.indexes)))
	for _, k := range slices.Sorted(maps.Keys(f.mu.indexes)) {
		b = binary.LittleEndian.AppendUint64(b, uint64(k))
		b = binary.LittleEndian.AppendUint64(b, f.mu.indexes[k])
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// save replaces the file. The caller sees to it that only one does at a time.
func (f *floor) save() error {
	tmp := f.path() + ".tmp"
	file, err := f.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("storage: create %s: %w", tmp, err)
	}
	_, err = file.Write(f.encode())
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.fs.Rename(tmp, f.path())
	}
	if err == nil {
		err = syncDir(f.fs, f.dir)
	}
	if err != nil {
		return fmt.Errorf("storage: write %s: %w", f.path(), err)
	}
	return nil
}

// raise notes that an engine is on disk up to an index.
func (f *floor) raise(k keyed, index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.indexes[k] = max(f.mu.indexes[k], index)
}

// empty tells whether no engine was on disk ever.
func (f *floor) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.indexes) == 0
}

// remove forgets an engine.
func (f *floor) remove(k keyed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.indexes, k)
}

// check returns damage if an engine is behind its floor.
func (f *floor) check(d *database) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(f.mu.indexes)) {
		st, err := d.durableState(k)
		if err != nil {
			return err
		}
		if st == nil {
			st = emptyState()
		}
		if want := f.mu.indexes[k]; st.applied.Index < want {
			return &storage.CorruptError{
				Path:   d.dir,
				Detail: fmt.Sprintf("engine %d is at position %d, and was at %d: the database lost what it had", k, st.applied.Index, want),
			}
		}
	}
	return nil
}
