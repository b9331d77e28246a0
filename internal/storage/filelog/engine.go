// Package filelog is the storage engine for streams whose keys fit in memory: messages in
// append-only block files, found through an index in memory (package index).
//
// The write path never syncs and mostly does not even write: Append encodes into a chunk of memory,
// and a Commit hands what has gathered to the file system once in a while. A Checkpoint syncs the
// blocks, writes what changed in the index since the last one behind the index file, and switches
// to the result by renaming a new manifest over the old. A crash comes back to the last
// checkpoint, from where the Raft log is replayed; what was written after it is ignored and
// removed. Now and then the index file is written anew.
//
// Readers take the current view by an atomic load and hold no lock but a short one on a file; a change
// in place, of a view that nobody has taken, they wait for. The newest bytes stay in memory for them, so that who follows the end of a stream reads no file.
//
// There are two locks. work is held by background work, which takes its time; change is held by
// an open Tx, and by background work for moments, to take over or to publish. Under work one may
// take change, never the other way round.
//
// Every record and file carries checksums that cover its place. What does not check is reported
// as *storage.CorruptError, and nothing is repaired or removed.
package filelog

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

var errClosed = errors.New("storage: engine is closed")

// Engine keeps one stream in the files of a directory.
type Engine struct {
	index.Current[*view]

	dir     *dir
	opts    storage.Options
	tuning  tuning
	report  func(string)
	onClose func()

	durable atomic.Pointer[storage.Applied]
	dirty   atomic.Int64
	closed  atomic.Bool
	damage  atomic.Pointer[storage.CorruptError] // the first that a read met

	// work is held by Checkpoint, Compact, snapshots, Verify and Close, each from begin to end.
	// It guards what follows.
	work     sync.Mutex
	manifest *manifest // of the last checkpoint
	saved    uint64    // version of the view it saved
	index    *indexFile
	victim   *compaction // under way, or nil
	renew    bool        // the index file is damaged; the next checkpoint writes another
	scrubbed scrubbing   // where Scrub goes on
	moving   *block      // takes what compaction moves; set under change too

	// change is held from Begin to Commit or Discard. It guards what follows.
	change  sync.Mutex
	active  *block // takes what is appended; nil before the first message
	limit   int64  // at which the active block is full
	since   changes
	scratch []byte           // to compress in; nil if records are not compressed
	copies  map[uint64]place // where moved messages were, while that file still exists
}

var (
	_ storage.Engine   = (*Engine)(nil)
	_ storage.InPlacer = (*Engine)(nil)
)

// tuning holds what tests make smaller.
type tuning struct {
	blockBytesMin int64
	blockBytesMax int64
	baseBytesMin  int64 // deltas of up to this size do not make the index file be written anew
	compactBytes  int64 // looked at in one call of Compact, about
}

var defaultTuning = tuning{
	blockBytesMin: 4 << 20,
	blockBytesMax: 128 << 20,
	baseBytesMin:  1 << 20,
	compactBytes:  16 << 20,
}

// fit makes blocks small on a small disk, and with them what compaction takes before it gives back.
func (t *tuning) fit(diskBytes int64) {
	t.blockBytesMin = min(t.blockBytesMin, max(diskBytes/32, 256<<10))
	t.compactBytes = min(t.compactBytes, max(diskBytes/8, 1<<20))
}

// view is one state of the engine. It never changes once published.
type view struct {
	*index.Index
	tail    tail
	blocks  []*block // by ascending number
	version uint64   // counts the changes of state
}

// changes is what happened since the last checkpoint to what it saved.
type changes struct {
	upTo    uint64   // the last sequence then; what is younger needs no listing
	removed []uint64 // sequences
	moved   []uint64
	aux     map[string]struct{}
	all     bool // too much to list
	erase   []place
}

// removedMax bounds the list of removed sequences; beyond it the index is saved as a whole.
const removedMax = 4 << 20

func newEngine(d *dir, opts storage.Options, t tuning) *Engine {
	e := &Engine{dir: d, opts: opts, tuning: t, copies: make(map[uint64]place), report: func(string) {}, onClose: func() {}}
	if opts.Compress {
		e.scratch = make([]byte, 1<<10)
	}
	e.Publish(&view{Index: index.New()})
	e.durable.Store(&storage.Applied{})
	return e
}

// block returns the block with that number, or nil.
func (v *view) block(number uint32) *block {
	i, ok := slices.BinarySearchFunc(v.blocks, number, func(b *block, n uint32) int {
		return int(int64(b.number) - int64(n))
	})
	if !ok {
		return nil
	}
	return v.blocks[i]
}

// with returns the blocks and one more, in a new slice.
func (v *view) with(b *block) []*block {
	i, _ := slices.BinarySearchFunc(v.blocks, b.number, func(b *block, n uint32) int {
		return int(int64(b.number) - int64(n))
	})
	return slices.Insert(slices.Clone(v.blocks), i, b)
}

// Load implements storage.Reader. It returns errGone if the view is too old.
func (v *view) Load(seq uint64) (storage.Message, error) {
	en, ok := v.Get(seq)
	if !ok {
		return storage.Message{}, storage.ErrNotFound
	}
	return v.read(&en)
}

// read reads the message of an entry and checks that it is the right one.
func (v *view) read(en *index.Entry) (storage.Message, error) {
	b := v.block(en.Loc.Block)
	if b == nil {
		return storage.Message{}, errGone
	}
	rec := v.tail.find(en.Loc)
	if rec == nil {
		rec = make([]byte, en.Loc.Len)
		if err := b.read(rec, int64(en.Loc.Offset)); err != nil {
			return storage.Message{}, err
		}
	}
	return b.message(rec, en)
}

// message decodes a record of the block, which is to be that of the entry.
func (b *block) message(rec []byte, en *index.Entry) (storage.Message, error) {
	if wrong := checkRecord(rec, b.number, en.Loc.Offset); wrong != "" {
		return storage.Message{}, b.corrupt(int64(en.Loc.Offset), wrong)
	}
	m, ok := decodeRecord(rec)
	switch {
	case !ok:
		return storage.Message{}, b.corrupt(int64(en.Loc.Offset), "the record does not decode")
	case m.Seq != en.Seq || m.Subject != en.Subject || m.Time != en.Time || m.Expires != en.Expires:
		return storage.Message{}, b.corrupt(int64(en.Loc.Offset), "the record is another message's")
	}
	return m, nil
}

// Load implements storage.Reader.
func (e *Engine) Load(seq uint64) (storage.Message, error) {
	for {
		m, err := e.View().Load(seq)
		if err != errGone {
			return m, e.noted(err)
		}
		// The message was moved, and its old file given up, after we took the view: there is a
		// newer one.
		if e.closed.Load() {
			return m, errClosed
		}
	}
}

// Err implements storage.Reader. What an answer is made of lies in memory, but for the messages: an
// engine that has met a damaged one is not to go on as if nothing were.
func (e *Engine) Err() error {
	if corrupt := e.damage.Load(); corrupt != nil {
		return corrupt
	}
	return e.Current.Err()
}

// noted remembers damage that a read met.
func (e *Engine) noted(err error) error {
	var corrupt *storage.CorruptError
	if err != nil && errors.As(err, &corrupt) {
		e.damage.CompareAndSwap(nil, corrupt)
	}
	return err
}

// Durable implements storage.Engine: the position of the last checkpoint.
func (e *Engine) Durable() storage.Applied { return *e.durable.Load() }

// Dirty implements storage.Engine: bytes appended since the last checkpoint.
func (e *Engine) Dirty() int64 { return e.dirty.Load() }

// Close implements storage.Engine.
func (e *Engine) Close() error {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Swap(true) {
		return nil
	}
	for _, b := range e.View().blocks {
		b.release()
	}
	e.onClose()
	return nil
}

// blockBytes is the size at which a block is full: the more there is, the larger, so that neither
// files nor wasted space get many.
func (e *Engine) blockBytes(v *view) int64 {
	total := int64(0)
	for _, b := range v.blocks {
		total += b.size
	}
	return min(max(total/32, e.tuning.blockBytesMin), e.tuning.blockBytesMax)
}
