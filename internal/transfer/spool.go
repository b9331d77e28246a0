package transfer

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// spool is a state on its way out: a file that one goroutine writes, and the sender reads as it grows.
type spool struct {
	fs   vfs.FS
	path string
	file vfs.File // the writer's
	sum  hash.Hash
	read vfs.File // the sender's

	mu      sync.Mutex
	size    int64 // bytes written so far
	done    bool  // nothing more comes
	err     error // why not all came
	trailer []byte
	grown   chan struct{} // signalled when any of this changed
}

var errGivenUp = errors.New("the sending was given up")

func newSpool(fs vfs.FS, path string) (*spool, error) {
	p := &spool{fs: fs, path: path, sum: sha256.New(), grown: make(chan struct{}, 1)}
	var err error
	if p.file, err = fs.Create(path, vfs.WriteCategoryUnspecified); err != nil {
		return nil, err
	}
	if p.read, err = fs.Open(path); err != nil {
		return nil, errors.Join(err, p.file.Close(), fs.Remove(path))
	}
	return p, nil
}

// fill has the state written. It returns when that is done, or given up.
func (p *spool) fill(write func(io.Writer) (trailer []byte, err error)) {
	trailer, err := write(p)
	err = errors.Join(err, p.file.Close())
	p.mu.Lock()
	p.done, p.trailer = true, trailer
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	p.signal()
}

// Write is for whoever makes the state.
func (p *spool) Write(b []byte) (int, error) {
	p.mu.Lock()
	err := p.err
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	p.sum.Write(b) // First: a file may make use of what it is given. After an error nobody asks for the sum.
	n, err := p.file.Write(b)
	p.mu.Lock()
	p.size += int64(n)
	p.mu.Unlock()
	p.signal()
	return n, err
}

func (p *spool) signal() {
	select {
	case p.grown <- struct{}{}:
	default:
	}
}

// state tells how much there is, whether that is all, and what went wrong.
func (p *spool) state() (size int64, done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size, p.done, p.err
}

// chunk appends the bytes at the offset to b: a whole chunk, or less at the end of what there is.
func (p *spool) chunk(b []byte, offset, size int64) ([]byte, error) {
	n := min(size-offset, chunkBytes)
	at := len(b)
	b = append(b, make([]byte, n)...)
	k, err := p.read.ReadAt(b[at:], offset)
	if int64(k) == n {
		return b, nil
	}
	return b[:at], errors.Join(err, io.ErrUnexpectedEOF)
}

// giveUp makes the writer stop at its next write.
func (p *spool) giveUp() { p.fail(errGivenUp) }

// remove is called when the writer has returned.
func (p *spool) remove() {
	_ = p.read.Close()
	_ = p.fs.Remove(p.path) // What is left over is removed at the next start.
}

// fail notes that the file can not be read any more.
func (p *spool) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	p.signal()
}
