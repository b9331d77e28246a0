package filelog

import (
	"fmt"
	"math"

	"github.com/cleatkv/cleat/internal/storage"
)

var _ storage.Scrubber = (*Engine)(nil)

// scrubbing is where Scrub goes on.
type scrubbing struct {
	seq   uint64 // the next message
	index uint32 // the index file that is being read, 0: none
	at    int64  // in it
}

// Scrub implements storage.Scrubber: it reads the messages in order, then the manifest and the index. What
// is dead is not read, nor missed.
//
// What manifest and index say is in memory, too. If they are damaged the next checkpoint writes them anew, so
// the error is only told.
func (e *Engine) Scrub(limit int64) (read int64, done bool, err error) {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return 0, false, errClosed
	}
	at := &e.scrubbed
	if at.index == 0 {
		if read, done, err = e.scrubMessages(limit); !done || err != nil {
			return read, false, err
		}
		if e.index == nil {
			return read, true, nil
		}
	}
	n, done, err := e.scrubIndex(limit - read)
	if err == nil && done {
		err = e.scrubManifest()
	}
	if done || err != nil {
		*at = scrubbing{}
	}
	if err != nil {
		e.renew = true
		e.dirty.Add(commitBytes) // A checkpoint is due.
		err = fmt.Errorf("%w; what it says is in memory, and is written anew", err)
	}
	return read + n, done && err == nil, err
}

func (e *Engine) scrubMessages(limit int64) (read int64, done bool, err error) {
	done = true
	err = e.Scan(nil, e.scrubbed.seq, math.MaxInt, func(m *storage.Message) bool {
		read += int64(m.Size())
		e.scrubbed.seq = m.Seq + 1
		done = read < limit
		return done
	})
	if err != nil {
		e.scrubbed = scrubbing{}
	}
	return read, done, err
}

// scrubIndex checks frames of the index file. Another file may have taken its place since the last piece.
func (e *Engine) scrubIndex(limit int64) (read int64, done bool, err error) {
	x, at := e.index, &e.scrubbed
	if at.index != x.number {
		at.index, at.at = x.number, 0
	}
	r, err := openIndexFile(e.dir, x.number, at.at, x.size)
	if err != nil {
		return 0, false, err
	}
	defer r.close()
	begin := at.at
	if at.at == 0 {
		err = r.header()
	}
	for err == nil && r.at < x.size && r.at-begin < limit {
		_, _, err = r.frame()
	}
	at.at = r.at
	return r.at - begin, r.at >= x.size, err
}

// scrubManifest checks that the manifest is that of the last checkpoint.
func (e *Engine) scrubManifest() error {
	m, err := e.dir.readManifest()
	switch {
	case err != nil:
		return err
	case m == nil:
		return &storage.CorruptError{Path: e.dir.path(manifestName), Detail: "the file is missing"}
	case m.applied.Index != e.manifest.applied.Index || m.index != e.manifest.index || m.indexLen != e.manifest.indexLen:
		return &storage.CorruptError{Path: e.dir.path(manifestName), Detail: "it is not the one that was written last"}
	}
	return nil
}
