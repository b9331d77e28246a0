package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// This server keeps room free on its disk, see disk.go, but whoever else writes to that disk does not. When
// nothing is left at all, what was deleted could not even be given back: a checkpoint, which lets go of files
// and of the log, writes before it removes. So a part of the room is held by files, which are given up a few at
// a time when something has to be written and there is no room for it, and taken again when there is.
const (
	reserveDir   = "reserve"
	reserveShare = 16 // of the disk: the files take no more than one of so many parts
	reserveMax   = 64 << 20
	reservePiece = 1 << 20     // a file; one is added at a look, which nobody feels
	reserveTimes = 4           // so often some of them can be given up
	reserveAt    = 512 << 10   // is free beside what waits to be written, or they are
	reserveEvery = time.Second // and then no sooner again, so that what was given up is used
	reserveDelay = time.Minute // on a large disk, after the start: there is no hurry
	reserveLarge = 1 << 30
)

// reserve is those files.
type reserve struct {
	fs  vfs.FS
	dir string

	pieces atomic.Int64
	began  time.Time // of growing

	// files is held by whoever makes or removes them, which may take as long as the disk likes. Nobody waits for it.
	files sync.Mutex
	given time.Time // when some were given up last; under files
}

// open counts what is held from an earlier life.
func (r *reserve) open(fsys vfs.FS, dir string, now time.Time) error {
	r.fs, r.dir = fsys, filepath.Join(dir, reserveDir)
	r.began = now
	for ; ; r.pieces.Add(1) {
		if _, err := r.fs.Stat(r.piece(r.pieces.Load())); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("look at the reserve: %w", err)
		}
	}
}

func (r *reserve) piece(n int64) string { return filepath.Join(r.dir, fmt.Sprintf("%02d", n)) }

// pieces is how many there are to be.
func pieces(diskBytes int64) int64 { return min(diskBytes/reserveShare, reserveMax) / reservePiece }

// bytes is what is held.
func (r *reserve) bytes() int64 { return r.pieces.Load() * reservePiece }

// grow takes another piece, if it is time to.
func (r *reserve) grow(diskBytes int64, now time.Time) error {
	if r.pieces.Load() >= pieces(diskBytes) || diskBytes >= reserveLarge && now.Sub(r.began) < reserveDelay || !r.files.TryLock() {
		return nil
	}
	defer r.files.Unlock()
	err := makeDir(r.fs, r.dir)
	if err == nil {
		err = r.write(r.piece(r.pieces.Load()))
	}
	if err != nil {
		return fmt.Errorf("hold a reserve: %w", err)
	}
	r.pieces.Add(1)
	return nil
}

func (r *reserve) write(path string) error {
	f, err := r.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, reservePiece))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = r.fs.Remove(path) // It is not counted.
	}
	return err
}

// giveUp removes some of the files, the last first, and returns how many bytes that frees; none while another one is
// being made.
func (r *reserve) giveUp(diskBytes int64, now time.Time) (freed int64, err error) {
	if !r.files.TryLock() {
		return 0, nil
	}
	defer r.files.Unlock()
	if now.Sub(r.given) < reserveEvery {
		return 0, nil
	}
	r.given = now
	for range max(1, pieces(diskBytes)/reserveTimes) {
		last := r.pieces.Load() - 1
		if last < 0 {
			break
		}
		if err := r.fs.Remove(r.piece(last)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, fmt.Errorf("give up a part of the reserve: %w", err)
		}
		r.pieces.Store(last)
		freed += reservePiece
	}
	return freed, nil
}
