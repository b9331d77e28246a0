// Package memory is the storage engine that keeps everything in RAM: an index (package index) and
// the messages' bytes in chunks of a log, so that the garbage collector has few objects to look at.
//
// Nothing survives Close or the process: an engine always opens empty, with Applied zero. So that
// the Raft log can be truncated all the same, Durable is what was applied when Checkpoint was last
// called; the owner must know that after a restart the log may begin later than an empty engine
// can be brought up from, and then get a snapshot from another replica or, being the only one,
// begin anew at the log's position by committing an empty change there.
//
// Readers take the current view by an atomic load and need no lock, unless they come while a view that
// nobody has taken is changed in place. A change is made to the index or a clone of it, and to free
// room in the newest chunk, which no published index points to.
package memory

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// Store opens memory engines.
type Store struct {
	mu struct {
		sync.Mutex
		engines map[string]*Engine // those open
	}
}

var _ storage.Store = (*Store)(nil)

// NewStore returns an empty store.
func NewStore() *Store {
	s := &Store{}
	s.mu.engines = make(map[string]*Engine)
	return s
}

// Open implements storage.Store. The engine is empty.
func (s *Store) Open(name string, _ storage.Options) (storage.Engine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.engines[name] != nil {
		return nil, fmt.Errorf("storage: memory engine %s is open already", name)
	}
	e := New()
	e.onClose = func() { s.forget(name) }
	s.mu.engines[name] = e
	return e, nil
}

func (s *Store) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.engines, name)
}

// Drop implements storage.Store. What is not open does not exist.
func (s *Store) Drop(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.engines[name] != nil {
		return fmt.Errorf("storage: memory engine %s is open", name)
	}
	return nil
}

// Names implements storage.Store: the engines that are open.
func (s *Store) Names() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.mu.engines))
	for name := range s.mu.engines {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Close implements storage.Store.
func (s *Store) Close() error { return nil }

// Engine keeps one stream in memory.
type Engine struct {
	index.Current[*view]

	durable atomic.Pointer[storage.Applied]
	dirty   atomic.Int64
	onClose func()

	// change is held from Begin to Commit or Discard, and by Compact and InstallSnapshot while
	// they publish. It guards what follows.
	change sync.Mutex
	live   map[uint32]int64 // bytes in use, for each chunk of the view
	fill   uint32           // bytes used in the newest chunk, live or not
	number uint32           // of the newest chunk
}

var (
	_ storage.Engine   = (*Engine)(nil)
	_ storage.InPlacer = (*Engine)(nil)
)

// view is one state of the engine. It never changes once published.
type view struct {
	*index.Index
	chunks []*chunk // by ascending number
}

// New returns an empty engine.
func New() *Engine {
	e := &Engine{live: make(map[uint32]int64), onClose: func() {}}
	e.Publish(&view{Index: index.New()})
	e.durable.Store(&storage.Applied{})
	return e
}

// Load implements storage.Reader.
func (v *view) Load(seq uint64) (storage.Message, error) {
	en, ok := v.Get(seq)
	if !ok {
		return storage.Message{}, storage.ErrNotFound
	}
	return v.message(&en), nil
}

func (v *view) message(en *index.Entry) storage.Message {
	m := storage.Message{Seq: en.Seq, Time: en.Time, Expires: en.Expires, Subject: en.Subject}
	r := decodeRecord(v.chunk(en.Loc.Block).bytes(en.Loc))
	m.Header, m.Data = r.header, r.data
	return m
}

// chunk returns the chunk with that number, which the view has.
func (v *view) chunk(number uint32) *chunk {
	i, _ := slices.BinarySearchFunc(v.chunks, number, func(c *chunk, n uint32) int {
		return int(int64(c.number) - int64(n))
	})
	return v.chunks[i]
}

// Checkpoint implements storage.Engine: it only moves Durable.
func (e *Engine) Checkpoint() error {
	e.dirty.Store(0)
	applied := e.Applied()
	e.durable.Store(&applied)
	return nil
}

// Durable implements storage.Engine; see the package comment.
func (e *Engine) Durable() storage.Applied { return *e.durable.Load() }

// Dirty implements storage.Engine: bytes appended since the last Checkpoint.
func (e *Engine) Dirty() int64 { return e.dirty.Load() }

// Verify implements storage.Engine. There is nothing to check in memory that the index does not
// answer for.
func (e *Engine) Verify() error { return nil }

// Close implements storage.Engine.
func (e *Engine) Close() error {
	e.onClose()
	return nil
}

// WriteSnapshot implements storage.Engine.
func (e *Engine) WriteSnapshot(w io.Writer) (storage.Applied, error) {
	if err := e.Err(); err != nil {
		return storage.Applied{}, err
	}
	v := e.View()
	load := func(en *index.Entry) (storage.Message, error) { return v.message(en), nil }
	return v.Applied(), v.WriteSnapshot(w, load)
}

// InstallSnapshot implements storage.Engine.
func (e *Engine) InstallSnapshot(r io.Reader) error {
	sr, err := storage.NewSnapshotReader(r)
	if err != nil {
		return err
	}
	fresh := New()
	tx := fresh.begin()
	for {
		it, err := sr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if it.Message == nil {
			tx.SetAux(it.Key, it.Value)
		} else if err := tx.Append(*it.Message); err != nil {
			return err
		}
	}
	s := sr.State()
	tx.SetLast(s.LastSeq, s.LastTime)
	if err := tx.Commit(s.Applied); err != nil {
		return err
	}
	e.change.Lock()
	defer e.change.Unlock()
	e.live, e.fill, e.number = fresh.live, fresh.fill, fresh.number
	e.dirty.Store(0)
	e.durable.Store(&s.Applied)
	e.Publish(fresh.View())
	e.Whole()
	return nil
}
