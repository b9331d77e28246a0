package filelog

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// An index file holds the index as of some checkpoint and then what each later checkpoint changed,
// in the frames of package index:
//
//	header: | magic "CLEATIDX" 8 | version 4 | number 4 | engine 4 | crc32c 4 |
//	frame:  | length 4 | kind 1 | payload ... | sum 4 |
//
// length is that of the whole frame, sum the CRC32C of all before it in the frame, changed by its
// place as in a block. The manifest says how long the file is; what follows was never finished.
const (
	indexMagic       = "CLEATIDX"
	indexVersion     = 1
	indexHeaderBytes = 24
	frameOverhead    = 9
	frameBytesMax    = 1 << 30
	readAhead        = 1 << 20
)

func appendIndexHeader(b []byte, number, engine uint32) []byte {
	at := len(b)
	b = append(b, indexMagic...)
	b = binary.LittleEndian.AppendUint32(b, indexVersion)
	b = binary.LittleEndian.AppendUint32(b, number)
	b = binary.LittleEndian.AppendUint32(b, engine)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

// indexFile is the index file of the last checkpoint, or the next. It is open while a checkpoint
// writes to it.
type indexFile struct {
	dir    *dir
	number uint32
	file   vfs.File // nil: not open
	size   int64    // end of what a manifest vouches for
	end    int64    // end of what was written
	base   int64
	buf    []byte
}

// newIndexFile creates a file with nothing but its header.
func newIndexFile(d *dir) (*indexFile, error) {
	x := &indexFile{dir: d, number: d.number()}
	x.buf = appendIndexHeader(x.buf[:0], x.number, d.id)
	if err := x.write(); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func (x *indexFile) path() string { return x.dir.path(indexName(x.number)) }

// close closes the file, if it is open.
func (x *indexFile) close() {
	if x.file != nil {
		_ = x.file.Close() // What was written is synced or not, whatever this says.
		x.file = nil
	}
	x.buf = nil
}

// remove removes the file. If that fails, it goes when the engine is next opened.
func (x *indexFile) remove() {
	x.close()
	_ = x.dir.fs.Remove(x.path())
}

// emit appends a frame, after what the manifest vouches for and earlier frames.
func (x *indexFile) emit(kind byte, payload []byte) error {
	x.buf = binary.LittleEndian.AppendUint32(x.buf[:0], uint32(len(payload)+frameOverhead))
	x.buf = append(x.buf, kind)
	x.buf = append(x.buf, payload...)
	sum := placed(crc32.Checksum(x.buf, castagnoli), x.number, x.end)
	x.buf = binary.LittleEndian.AppendUint32(x.buf, sum)
	return x.write()
}

func (x *indexFile) write() (err error) {
	if x.file == nil {
		if x.file, err = x.dir.fs.OpenReadWrite(x.path(), vfs.WriteCategoryUnspecified); err != nil {
			return fmt.Errorf("storage: open %s: %w", x.path(), err)
		}
	}
	if _, err := x.file.WriteAt(x.buf, x.end); err != nil {
		return fmt.Errorf("storage: write %s at %d: %w", x.path(), x.end, err)
	}
	x.end += int64(len(x.buf))
	return nil
}

func (x *indexFile) sync() error {
	if err := x.dir.synced(x.file.Sync()); err != nil {
		return fmt.Errorf("storage: sync %s: %w", x.path(), err)
	}
	return nil
}

// readIndexFile reads the first size bytes of an index file. Without a loader it only checks them.
func readIndexFile(d *dir, number uint32, size int64, l *index.Loader) error {
	r, err := openIndexFile(d, number, 0, size)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.header(); err != nil {
		return err
	}
	for r.at < size {
		kind, payload, err := r.frame()
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		if err := l.Frame(kind, payload); err != nil {
			return &storage.CorruptError{Path: r.path, Offset: r.start, Detail: err.Error()}
		}
	}
	return nil
}

// openIndexFile opens the first size bytes of an index file for reading from a place on.
func openIndexFile(d *dir, number uint32, at, size int64) (*indexReader, error) {
	path := d.path(indexName(number))
	f, err := d.fs.Open(path)
	if isNotExist(err) {
		return nil, &storage.CorruptError{Path: path, Detail: "the file is missing"}
	}
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", path, err)
	}
	r := &indexReader{file: f, path: path, number: number, engine: d.id, at: at}
	// A server opens thousands of small ones when it starts.
	r.r = bufio.NewReaderSize(io.NewSectionReader(f, at, size-at), int(min(size-at, readAhead)))
	return r, nil
}

type indexReader struct {
	file   vfs.File
	r      *bufio.Reader
	path   string
	number uint32
	engine uint32
	start  int64 // of the current frame
	at     int64
	buf    []byte
}

func (r *indexReader) close() { _ = r.file.Close() }

func (r *indexReader) header() error {
	b := make([]byte, indexHeaderBytes)
	if err := r.full(b); err != nil {
		return err
	}
	if string(b) != string(appendIndexHeader(nil, r.number, r.engine)) {
		return r.corrupt("the header is wrong")
	}
	return nil
}

func (r *indexReader) frame() (kind byte, payload []byte, err error) {
	r.start = r.at
	var head [4]byte
	if err := r.full(head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.LittleEndian.Uint32(head[:]))
	if n < frameOverhead || n > frameBytesMax {
		return 0, nil, r.corrupt("the length of a frame is wrong")
	}
	r.buf = append(r.buf[:0], head[:]...)
	for len(r.buf) < n { // Grown as bytes arrive: a damaged length claims nothing.
		at := len(r.buf)
		r.buf = append(r.buf, make([]byte, min(n-at, 1<<20))...)
		if err := r.full(r.buf[at:]); err != nil {
			return 0, nil, err
		}
	}
	if placed(crc32.Checksum(r.buf[:n-4], castagnoli), r.number, r.start) != binary.LittleEndian.Uint32(r.buf[n-4:]) {
		return 0, nil, r.corrupt("checksum mismatch")
	}
	return r.buf[4], r.buf[5 : n-4], nil
}

func (r *indexReader) full(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.at += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return r.corrupt("the file ends too early")
	}
	if err != nil {
		return fmt.Errorf("storage: read %s at %d: %w", r.path, r.at, err)
	}
	return nil
}

func (r *indexReader) corrupt(detail string) error {
	return &storage.CorruptError{Path: r.path, Offset: r.start, Detail: detail}
}
