// Package lsm is the storage engine for streams with more keys than memory: Pebble, one database
// for all engines of a server, so that thousands of small ones cost little.
//
// The database keeps no log of its own: the Raft log is the redo log, as for every engine. What
// was committed reaches the disk when Pebble flushes a memtable, always as a prefix of the commits;
// each commit writes the engine's position with its effects, so a read that ignores memtables
// tells how far the disk is.
//
// Reading a database can fail where the other engines look things up in memory. Load and Commit
// return such errors; the answers that have no place for one are worthless then, and Err says so.
package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/search"
)

var errClosed = errors.New("storage: engine is closed")

// Engine keeps one stream in the keys that begin with its number.
type Engine struct {
	db      *database
	name    string
	onClose func()

	snapshot *pebble.Snapshot // what all reads see, if not the newest state: see frozen

	current atomic.Pointer[generation]
	dirty   atomic.Int64
	err     atomic.Pointer[error] // the first that made an answer impossible
	closed  atomic.Bool

	durable struct {
		sync.Mutex
		flushes uint64 // of the database, when applied was read
		applied storage.Applied
	}

	change sync.Mutex // held from Begin to Commit or Discard, and while a snapshot becomes the state
	work   sync.Mutex // held by background work, which may take change but not the reverse
	erased bool       // guarded by change: there is something to be got rid of

	scrubbed uint64 // the table that Scrub has read last; guarded by work
}

var _ storage.Engine = (*Engine)(nil)

// generation is the published state of an engine: the number its keys begin with, which a snapshot
// changes, and the summary. Those of one number share users.
type generation struct {
	keyed
	st    *state
	users *users
}

// users counts the operations that read under a number, so that its keys can go when the last one
// has ended.
type users struct {
	n    atomic.Int64 // and one while it is the engine's number
	done func()
}

func (u *users) retain() bool {
	for {
		n := u.n.Load()
		if n == 0 {
			return false
		}
		if u.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (u *users) release() {
	if u.n.Add(-1) == 0 {
		u.done()
	}
}

func newUsers(done func()) *users {
	u := &users{done: done}
	u.n.Store(1)
	return u
}

// begin starts a read of the current state. The caller ends it.
func (e *Engine) read() (*generation, *view) {
	for {
		g := e.current.Load()
		if g.users.retain() {
			v := &view{keyed: g.keyed, db: e.db, r: e.db.DB}
			if e.snapshot != nil {
				v.r = e.snapshot
			}
			return g, v
		}
	}
}

// end ends a read, and keeps the error it met.
func (e *Engine) end(g *generation, v *view) error {
	err := v.close()
	g.users.release()
	if err != nil {
		e.err.CompareAndSwap(nil, &err)
	}
	return err
}

// Err implements storage.Reader.
func (e *Engine) Err() error {
	if err := e.err.Load(); err != nil {
		return *err
	}
	return nil
}

// State implements storage.Reader.
func (e *Engine) State() storage.State { return e.current.Load().st.State }

// Applied implements storage.Reader.
func (e *Engine) Applied() storage.Applied { return e.current.Load().st.applied }

// Load implements storage.Reader.
func (e *Engine) Load(seq uint64) (storage.Message, error) {
	if e.closed.Load() {
		return storage.Message{}, errClosed
	}
	g, v := e.read()
	m := v.message(seq)
	if err := e.end(g, v); err != nil {
		return storage.Message{}, err
	}
	if m == nil {
		return storage.Message{}, storage.ErrNotFound
	}
	return *m, nil
}

// Subject implements storage.Reader.
func (e *Engine) Subject(subject string) (storage.SubjectState, bool) {
	g, v := e.read()
	s, ok := v.subject(subject)
	return s, e.end(g, v) == nil && ok
}

// Subjects implements storage.Reader.
func (e *Engine) Subjects(filters []string, after string, fn func(string, storage.SubjectState) bool) {
	g, v := e.read()
	defer e.end(g, v)
	v.subjects(filters, after, fn)
}

func (v *view) subjects(filters []string, after string, fn func(string, storage.SubjectState) bool) {
	for w := search.Walk(filters, after, v.SubjectCursor); w.Next(); {
		if v.err != nil || !fn(w.Key(), w.State()) {
			return
		}
	}
}

// SubjectSeqs implements storage.Reader.
func (e *Engine) SubjectSeqs(subject string, from uint64, fn func(uint64) bool) {
	g, v := e.read()
	defer e.end(g, v)
	v.SubjectSeqs(subject, from, fn)
}

// LastSeq implements storage.Reader.
func (e *Engine) LastSeq(filter string, upTo uint64) (uint64, bool) {
	g, v := e.read()
	seq, ok := search.LastSeq(v, filter, upTo)
	return seq, e.end(g, v) == nil && ok
}

// NextSeq implements storage.Reader.
func (e *Engine) NextSeq(filters []string, from uint64) (uint64, string, bool) {
	if from > e.current.Load().st.LastSeq {
		return 0, "", false
	}
	g, v := e.read()
	seq, subject, ok := search.NextSeq(v, filters, from)
	return seq, subject, e.end(g, v) == nil && ok
}

// Count implements storage.Reader.
func (e *Engine) Count(filters []string, from uint64, lastOnly bool) uint64 {
	g, v := e.read()
	n := search.Count(v, filters, from, lastOnly)
	_ = e.end(g, v) // Err has it.
	return n
}

// SeqAtTime implements storage.Reader.
func (e *Engine) SeqAtTime(t int64) uint64 {
	g, v := e.read()
	seq := v.firstAt(t)
	_ = e.end(g, v) // Err has it.
	return seq
}

// NextExpiry implements storage.Reader.
func (e *Engine) NextExpiry() (uint64, int64, bool) {
	g, v := e.read()
	seq, at, ok := v.nextExpiry(0, 0)
	return seq, at, e.end(g, v) == nil && ok
}

// nextExpiry finds the first to expire at or after a time, at which sequences from seq on count.
func (v *view) nextExpiry(from int64, fromSeq uint64) (seq uint64, at int64, ok bool) {
	if !v.seek(v.expiry(from, fromSeq), v.kind(kindExpiry)) {
		return 0, 0, false
	}
	key := v.point.Key()
	return lastSeqOf(key), int64(lastSeqOf(key[:len(key)-8])), true
}

// Aux implements storage.Reader.
func (e *Engine) Aux(key string) ([]byte, bool) {
	g, v := e.read()
	value := v.get(v.text(kindAux, key))
	return value, e.end(g, v) == nil && value != nil
}

// AuxRange implements storage.Reader.
func (e *Engine) AuxRange(prefix string, fn func(string, []byte) bool) {
	g, v := e.read()
	defer e.end(g, v)
	v.auxRange(prefix, fn)
}

func (v *view) auxRange(prefix string, fn func(string, []byte) bool) {
	from := v.text(kindAux, prefix)
	for ok := v.seek(from, from); ok; ok = v.next(from) {
		value, err := v.point.ValueAndErr()
		if v.fail(err); err != nil {
			return
		}
		if !fn(string(v.point.Key()[9:]), append([]byte{}, value...)) {
			return
		}
	}
}

// Durable implements storage.Engine. It reads the position anew after a flush.
func (e *Engine) Durable() storage.Applied {
	e.durable.Lock()
	defer e.durable.Unlock()
	flushes := e.db.flushes.Load()
	if e.durable.flushes == flushes || e.closed.Load() {
		return e.durable.applied
	}
	g, v := e.read()
	st, err := e.db.durableState(v.keyed)
	v.fail(err)
	if e.end(g, v) != nil {
		return e.durable.applied
	}
	e.durable.flushes = flushes
	if st != nil && st.applied.Index >= e.durable.applied.Index {
		e.durable.applied = st.applied
	}
	return e.durable.applied
}

// Dirty implements storage.Engine: bytes committed since the last Checkpoint.
func (e *Engine) Dirty() int64 { return e.dirty.Load() }

// Checkpoint implements storage.Engine: it flushes the database, unless all that was committed is
// on disk already, as after the checkpoint of another engine.
func (e *Engine) Checkpoint() error {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	e.change.Lock()
	applied, dirty, erased := e.Applied(), e.dirty.Load(), e.erased
	e.erased = false
	e.change.Unlock()
	err := e.checkpoint(applied)
	if err == nil && erased {
		err = e.dispose()
	}
	if err != nil {
		e.change.Lock()
		e.erased = e.erased || erased
		e.change.Unlock()
		return err
	}
	e.dirty.Add(-dirty)
	return e.db.collect()
}

func (e *Engine) checkpoint(applied storage.Applied) error {
	if d := e.Durable(); d.Index >= applied.Index {
		e.db.floor.raise(e.current.Load().keyed, d.Index) // Saved with the next one that flushes.
		return nil
	}
	if err := e.db.flush(); err != nil {
		return err
	}
	d := e.Durable()
	if d.Index < applied.Index {
		return errors.Join(e.Err(), fmt.Errorf("storage: %s: a flush left position %d behind %d", e.name, d.Index, applied.Index))
	}
	e.db.floor.raise(e.current.Load().keyed, d.Index)
	return e.db.saveFloor()
}

// dispose gets rid of the bytes of erased messages: their tombstones are compacted with all that
// lies below them, and the files that held them are removed.
func (e *Engine) dispose() error {
	g, v := e.read()
	var seqs []uint64
	prefix := v.kind(kindErased)
	for ok := v.seek(prefix, prefix); ok; ok = v.next(prefix) {
		seqs = append(seqs, lastSeqOf(v.point.Key()))
	}
	if err := e.end(g, v); err != nil {
		return err
	}
	b := e.db.NewBatch()
	defer b.Close()
	for _, seq := range seqs {
		key := g.seq(kindMessage, seq)
		if err := e.db.Compact(context.Background(), key, g.seq(kindMessage, seq+1), false); err != nil {
			return e.db.explain(err)
		}
		if err := b.Delete(g.seq(kindErased, seq), nil); err != nil {
			return err
		}
	}
	return e.db.apply(b)
}

// Reclaimable implements storage.Engine. The database gives back space when it compacts.
func (e *Engine) Reclaimable() int64 { return 0 }

// Compact implements storage.Engine. The database does that by itself.
func (e *Engine) Compact() (more bool, err error) { return false, nil }

// squeezeBytes is what is not worth a compaction.
const squeezeBytes = 1 << 20

// Squeeze implements storage.Squeezer. The database compacts where its levels are out of proportion, and
// a purge of everything need not be.
func (e *Engine) Squeeze() error {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	g := e.current.Load()
	lower, upper := g.all()
	taken, err := e.db.EstimateDiskUsage(lower, upper)
	if err != nil {
		return e.db.explain(err)
	}
	if taken < 2*g.st.Bytes+squeezeBytes {
		return nil
	}
	return e.db.explain(e.db.Compact(context.Background(), lower, upper, false))
}

// WriteSnapshot implements storage.Engine.
func (e *Engine) WriteSnapshot(w io.Writer) (storage.Applied, error) {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return storage.Applied{}, errClosed
	}
	g, v := e.read()
	st := v.state()
	err := v.writeSnapshot(w, st)
	return st.applied, errors.Join(err, e.end(g, v))
}

func (v *view) writeSnapshot(w io.Writer, st *state) error {
	if v.err != nil {
		return v.err
	}
	sw, err := storage.NewSnapshotWriter(w, storage.SnapshotState{
		Applied:  st.applied,
		LastSeq:  st.LastSeq,
		LastTime: st.LastTime,
		Msgs:     st.Msgs,
		Bytes:    st.Bytes,
	})
	if err != nil {
		return err
	}
	if err := v.walk(sw.Message, sw.Aux); err != nil {
		return err
	}
	return sw.Close()
}

// walk calls message for all messages and then aux for all auxiliary records, until one fails.
func (v *view) walk(message func(*storage.Message) error, aux func(string, []byte) error) (err error) {
	c := &seqCursor{v: v, it: v.over(kindMessage)}
	for more := c.Seek(0); more; more = c.Next() {
		m, ok := decodeMessage(c.Seq(), c.value())
		if !ok {
			v.damaged(c.it.Key(), "a message")
			return v.err
		}
		if err := message(&m); err != nil {
			return err
		}
	}
	if v.err != nil {
		return v.err
	}
	v.auxRange("", func(key string, value []byte) bool {
		err = aux(key, value)
		return err == nil
	})
	return errors.Join(err, v.err)
}

// InstallSnapshot implements storage.Engine. The new state is written under a new number; the name
// is then given that number, and the old keys go once nobody reads them.
func (e *Engine) InstallSnapshot(r io.Reader) error {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	fresh, err := e.db.newNumber()
	if err != nil {
		return err
	}
	st, err := e.fill(fresh, r)
	if err == nil {
		err = e.db.flush() // The name must not lead to what is not there.
	}
	if err != nil {
		return errors.Join(err, e.db.erase(fresh))
	}
	e.change.Lock()
	defer e.change.Unlock()
	if err := e.db.rename(e.name, fresh); err != nil {
		return err
	}
	// The name leads to the new state now: whatever fails, the engine must not go on with the old one.
	old := e.current.Load()
	e.current.Store(&generation{keyed: fresh, st: st, users: e.db.users(fresh)})
	old.users.release()
	e.durable.Lock()
	e.durable.applied = st.applied
	e.durable.Unlock()
	e.dirty.Store(0)
	e.erased = false
	e.err.Store(nil) // What could not be read is no longer a part of the state.
	e.db.floor.raise(fresh, st.applied.Index)
	return e.db.saveFloor()
}

const fillBytes = 1 << 20 // of a snapshot, written at once

func (e *Engine) fill(k keyed, r io.Reader) (*state, error) {
	sr, err := storage.NewSnapshotReader(r)
	if err != nil {
		return nil, err
	}
	s := sr.State()
	st := emptyState()
	for {
		t := e.db.begin(k, st)
		done, err := t.fill(sr, s)
		if err == nil {
			err = t.write(s.Applied)
		}
		st = t.st
		if err = errors.Join(err, t.release()); err != nil || done {
			return st, err
		}
	}
}

// fill takes a part of a snapshot into a change, and tells whether it was the last.
func (t *writing) fill(sr *storage.SnapshotReader, s storage.SnapshotState) (done bool, err error) {
	for t.batch.Len() < fillBytes {
		it, err := sr.Next()
		switch {
		case errors.Is(err, io.EOF):
			t.setLast(s.LastSeq, s.LastTime)
			return true, nil
		case err != nil:
			return false, err
		case it.Message == nil:
			t.SetAux(it.Key, it.Value)
		default:
			err = t.Append(*it.Message)
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// Close implements storage.Engine.
func (e *Engine) Close() error {
	e.work.Lock()
	defer e.work.Unlock()
	if !e.closed.Swap(true) {
		e.onClose()
	}
	return nil
}
