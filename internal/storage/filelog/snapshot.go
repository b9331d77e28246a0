package filelog

import (
	"errors"
	"io"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

const installBytes = 1 << 20 // of a snapshot, taken into one change

// WriteSnapshot implements storage.Engine. No file of the view goes while it runs: checkpoints and
// compaction wait for it.
func (e *Engine) WriteSnapshot(w io.Writer) (storage.Applied, error) {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return storage.Applied{}, errClosed
	}
	if err := e.Current.Err(); err != nil {
		return storage.Applied{}, err
	}
	v := e.View()
	return v.Applied(), e.noted(v.WriteSnapshot(w, v.read))
}

// InstallSnapshot implements storage.Engine. The new state is built beside the old one, in new
// files; the manifest of its first checkpoint makes it the state.
func (e *Engine) InstallSnapshot(r io.Reader) error {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	if err := e.dir.failed(); err != nil {
		return err
	}
	fresh := newEngine(e.dir, e.opts, e.tuning)
	fresh.manifest = &manifest{}
	if err := fresh.fill(r); err != nil {
		fresh.abandon()
		return err
	}
	if err := fresh.checkpoint(); err != nil {
		fresh.abandon()
		return err
	}
	return e.become(fresh)
}

// fill appends everything in a snapshot stream.
func (e *Engine) fill(r io.Reader) error {
	sr, err := storage.NewSnapshotReader(r)
	if err != nil {
		return err
	}
	s := sr.State()
	for done := false; !done; {
		tx := e.begin()
		for tx.written < installBytes && !done {
			it, err := sr.Next()
			switch {
			case errors.Is(err, io.EOF):
				done = true
				tx.SetLast(s.LastSeq, s.LastTime)
			case err != nil:
			case it.Message == nil:
				tx.SetAux(it.Key, it.Value)
			default:
				err = tx.Append(*it.Message)
			}
			if err != nil && !done {
				tx.Discard()
				return err
			}
		}
		if err := tx.Commit(s.Applied); err != nil {
			return err
		}
	}
	return nil
}

// abandon gives up an engine whose state never became that of the directory. Files whose manifest
// may be on disk all the same stay until the directory is next opened.
func (e *Engine) abandon() {
	for _, b := range e.View().blocks {
		b.doomed.Store(e.dir.failed() == nil)
		b.release()
	}
}

// become makes the state of fresh that of e, whose old files it gives up.
func (e *Engine) become(fresh *Engine) error {
	e.change.Lock()
	v := *fresh.View()
	old := e.View()
	v.version = old.version + 1
	erase := e.since.erase
	e.active, e.limit, e.since, e.copies = fresh.active, fresh.limit, fresh.since, fresh.copies
	e.moving = nil
	e.Publish(&v)
	e.change.Unlock()

	c := &checkpoint{v: old, took: changes{erase: erase}}
	err := c.erase()
	for _, b := range old.blocks {
		b.doomed.Store(true)
		b.release()
	}
	if e.index != nil {
		e.index.remove()
	}
	e.manifest, e.index, e.saved = fresh.manifest, fresh.index, v.version
	e.victim = nil
	e.durable.Store(fresh.durable.Load())
	e.dirty.Store(0)
	e.Whole()
	e.damage.Store(nil) // What was damaged is no longer a part of the state.
	return err
}

// Verify implements storage.Engine: it reads the manifest, the index file and every block to its
// end, and looks for every message where the index says it is.
func (e *Engine) Verify() error {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	if _, err := e.dir.readManifest(); err != nil {
		return err
	}
	if e.index != nil {
		if err := readIndexFile(e.dir, e.index.number, e.index.size, nil); err != nil {
			return err
		}
	}
	e.change.Lock()
	v := e.View()
	sizes := make([]int64, len(v.blocks))
	for i, b := range v.blocks {
		sizes[i] = b.size
	}
	e.change.Unlock()
	if err := v.tail.flush(true); err != nil {
		return err
	}
	found := uint64(0)
	for i, b := range v.blocks {
		n, err := v.verifyBlock(b, sizes[i])
		if err != nil {
			return err
		}
		found += n
	}
	if msgs := v.State().Msgs; found != msgs {
		return &storage.CorruptError{Path: e.dir.root, Detail: "some messages are not where the index says they are"}
	}
	return nil
}

// verifyBlock reads a block and returns how many of its records are live.
func (v *view) verifyBlock(b *block, size int64) (live uint64, err error) {
	if err := b.checkHeader(); err != nil {
		return 0, err
	}
	var wrong error
	_, err = b.scan(blockHeaderBytes, size, func(at uint32, rec []byte) bool {
		loc := index.Loc{Block: b.number, Offset: at, Len: uint32(len(rec))}
		en, ok := v.Get(recordSeq(rec))
		if !ok || en.Loc != loc {
			return true
		}
		live++
		_, wrong = b.message(rec, &en)
		return wrong == nil
	})
	return live, errors.Join(err, wrong)
}
