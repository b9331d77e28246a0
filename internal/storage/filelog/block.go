package filelog

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// errGone is returned when a block file was given up: whoever looked it up had an old view.
var errGone = errors.New("storage: block was given up")

// block is a block file. Those of a view are there as long as one can read from the view, but for
// the files of old views: see retain.
type block struct {
	dir    *dir
	number uint32

	// Guarded by Engine.change.
	size int64 // bytes assigned to records, the header's among them
	live int64 // bytes of live records

	written atomic.Int64 // bytes in the file
	durable atomic.Int64 // bytes synced
	users   atomic.Int32 // the engine, and readers in the middle of a read; 0: given up for good
	doomed  atomic.Bool  // the file goes with the last user

	// writing orders writes and syncs. Who writes the newest bytes does not wait for it while a
	// sync is under way: see tail.flush. It is taken before open.
	writing sync.Mutex

	// open is held for reading by whoever uses the file, and for writing to open or close it.
	open struct {
		sync.RWMutex
		file     vfs.File // nil: not open
		writable bool
	}
}

func newBlock(d *dir, number uint32) *block {
	b := &block{dir: d, number: number}
	b.users.Store(1)
	return b
}

func (b *block) path() string { return b.dir.blockPath(b.number) }

// retain keeps the file open and in place until release. It fails once the engine gave it up.
func (b *block) retain() bool {
	for {
		n := b.users.Load()
		if n == 0 {
			return false
		}
		if b.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release ends a retain. The last user closes the file, and removes it if it is doomed. A file
// that could not be removed is removed when the engine is next opened.
func (b *block) release() {
	if b.users.Add(-1) > 0 {
		return
	}
	b.close()
	if b.doomed.Load() && b.written.Load() > 0 {
		_ = b.dir.fs.Remove(b.path())
	}
}

// close closes the file, if it is open. It is opened again when it is needed.
func (b *block) close() {
	b.open.Lock()
	defer b.open.Unlock()
	if b.open.file != nil {
		_ = b.open.file.Close() // What was written is synced or not, whatever this says.
		b.open.file = nil
	}
}

// use calls fn with the open file.
func (b *block) use(writable bool, fn func(vfs.File) error) error {
	for {
		b.open.RLock()
		if b.open.file != nil && (b.open.writable || !writable) {
			defer b.open.RUnlock()
			return fn(b.open.file)
		}
		b.open.RUnlock()
		if err := b.reopen(writable); err != nil {
			return err
		}
	}
}

func (b *block) reopen(writable bool) error {
	b.open.Lock()
	defer b.open.Unlock()
	if b.open.file != nil {
		if b.open.writable || !writable {
			return nil // Somebody else was quicker.
		}
		_ = b.open.file.Close() // It was open for reading.
		b.open.file = nil
	}
	var f vfs.File
	var err error
	if writable {
		f, err = b.dir.fs.OpenReadWrite(b.path(), vfs.WriteCategoryUnspecified)
	} else {
		f, err = b.dir.fs.Open(b.path())
	}
	if err != nil {
		return fmt.Errorf("storage: open %s: %w", b.path(), err)
	}
	b.open.file, b.open.writable = f, writable
	return nil
}

// writeAt puts bytes of records at their place. Writing the same bytes again is harmless, so a
// failed write may be tried again.
func (b *block) writeAt(p []byte, offset int64) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.writeLocked(p, offset)
}

func (b *block) writeLocked(p []byte, offset int64) error {
	if done := b.written.Load() - offset; done > 0 {
		if done >= int64(len(p)) {
			return nil // Somebody else was quicker.
		}
		p, offset = p[done:], offset+done
	}
	return b.use(true, func(f vfs.File) error {
		if _, err := f.WriteAt(p, offset); err != nil {
			return fmt.Errorf("storage: write %s at %d: %w", b.path(), offset, err)
		}
		b.written.Store(offset + int64(len(p)))
		return nil
	})
}

// sync makes durable what was written.
func (b *block) sync() error {
	written := b.written.Load()
	if b.durable.Load() >= written {
		return nil
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	written = b.written.Load()
	return b.use(true, func(f vfs.File) error {
		if err := b.dir.synced(f.Sync()); err != nil {
			return fmt.Errorf("storage: sync %s: %w", b.path(), err)
		}
		b.durable.Store(written)
		return nil
	})
}

// erase overwrites records and makes that durable.
func (b *block) erase(places []place) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.use(true, func(f vfs.File) error {
		for _, p := range places {
			rec := make([]byte, p.length)
			eraseRecord(rec, p.block, p.offset)
			if _, err := f.WriteAt(rec, int64(p.offset)); err != nil {
				return fmt.Errorf("storage: write %s at %d: %w", b.path(), p.offset, err)
			}
		}
		if err := b.dir.synced(f.Sync()); err != nil {
			return fmt.Errorf("storage: sync %s: %w", b.path(), err)
		}
		return nil
	})
}

// read reads bytes from the file. It returns errGone if the engine gave the block up.
func (b *block) read(p []byte, offset int64) error {
	if !b.retain() {
		return errGone
	}
	defer b.release()
	err := b.use(false, func(f vfs.File) error {
		n, err := f.ReadAt(p, offset)
		switch {
		case n == len(p):
			return nil
		case err == io.EOF:
			return b.corrupt(offset, "the file ends too early")
		}
		return fmt.Errorf("storage: read %s at %d: %w", b.path(), offset, err)
	})
	if isNotExist(err) {
		return b.corrupt(0, "the file is missing")
	}
	return err
}

func (b *block) corrupt(offset int64, detail string) error {
	return &storage.CorruptError{Path: b.path(), Offset: offset, Detail: detail}
}

// scan calls fn for the records of the file from offset up to end, and returns where it stopped:
// fn returning false ends it after that record. It reads ahead; the record is fn's until it
// returns.
func (b *block) scan(offset, end int64, fn func(offset uint32, rec []byte) bool) (int64, error) {
	return b.scanWith(make([]byte, min(scanBytes, end-offset)), offset, end, fn)
}

// scanWith does so with the caller's buffer.
func (b *block) scanWith(buf []byte, offset, end int64, fn func(offset uint32, rec []byte) bool) (int64, error) {
	have := buf[:0] // bytes read and not yet looked at; they begin at offset
	for offset < end {
		var err error
		if have, err = b.ahead(buf, have, offset, end, 4); err != nil {
			return offset, err
		}
		n := int64(uint32(have[0]) | uint32(have[1])<<8 | uint32(have[2])<<16 | uint32(have[3])<<24)
		if n < recordBytesMin || n > end-offset {
			return offset, b.corrupt(offset, "the length of a record is wrong")
		}
		if n > int64(len(buf)) {
			buf = append(make([]byte, 0, n), have...)[:n]
			have = buf[:len(have)]
		}
		if have, err = b.ahead(buf, have, offset, end, n); err != nil {
			return offset, err
		}
		if wrong := checkRecord(have[:n], b.number, uint32(offset)); wrong != "" {
			return offset, b.corrupt(offset, wrong)
		}
		more := fn(uint32(offset), have[:n])
		have = have[n:]
		offset += n
		if !more {
			break
		}
	}
	return offset, nil
}

const scanBytes = 256 << 10

// ahead makes sure that at least n bytes are in have, filling buf from its beginning.
func (b *block) ahead(buf, have []byte, offset, end, n int64) ([]byte, error) {
	if int64(len(have)) >= n {
		return have, nil
	}
	if n > end-offset {
		return nil, b.corrupt(offset, "a record ends behind the end")
	}
	kept := copy(buf, have)
	fill := min(int64(len(buf)), end-offset)
	err := b.read(buf[kept:fill], offset+int64(kept))
	if err != nil && fill > n { // What lies behind is not the concern of this record.
		fill = n
		err = b.read(buf[kept:fill], offset+int64(kept))
	}
	if err != nil {
		return nil, err
	}
	return buf[:fill], nil
}
