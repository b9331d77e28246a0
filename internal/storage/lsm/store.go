package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// Store is one database with an engine for each name.
type Store struct {
	db *database

	mu struct {
		sync.Mutex
		open map[string]bool
	}
}

var _ storage.Store = (*Store)(nil)

// database is what the engines share.
type database struct {
	*pebble.DB
	fs      vfs.FS
	dir     string
	cache   *pebble.Cache
	floor   *floor
	flushes atomic.Uint64 // finished
	damaged atomic.Pointer[string]
	end     *ending

	mu struct {
		sync.Mutex
		last    keyed // number given out last
		garbage []keyed
	}
	saving sync.Mutex // held while the floor is saved
}

// options are what a server may set.
type options struct {
	cacheBytes    int64
	memTableBytes uint64
	fatal         func(error)
	report        func(string)
}

// Option changes how a store works.
type Option func(*options)

// WithCache sets the size of the block cache.
func WithCache(bytes int64) Option { return func(o *options) { o.cacheBytes = bytes } }

// WithMemTable sets the size at which what was committed is flushed to disk.
func WithMemTable(bytes uint64) Option { return func(o *options) { o.memTableBytes = bytes } }

// WithFatal sets what is told, once, that the database cannot go on: its manifest could not be written.
// From then on it writes nothing, and refuses what needs that. It must not block.
func WithFatal(fn func(error)) Option { return func(o *options) { o.fatal = fn } }

// WithReport sets what is told of errors in the background, such as of a flush that will be tried
// again. Without it they go to the default log.
func WithReport(fn func(string)) Option { return func(o *options) { o.report = fn } }

// format is raised only once no server runs a release that does not know it.
const format = pebble.FormatValueSeparation

func (d *database) options(o options) *pebble.Options {
	opts := &pebble.Options{
		FS:                          endingFS{namesFirst{d.fs}, d.end},
		Cache:                       d.cache,
		DisableWAL:                  true, // The Raft log is the redo log.
		FormatMajorVersion:          format,
		MemTableSize:                o.memTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		Logger:                      logger{end: d.end, report: o.report},
		EventListener: &pebble.EventListener{
			FlushEnd: func(info pebble.FlushInfo) {
				if info.Err == nil && d.end.reason() == nil {
					d.flushes.Add(1)
				}
			},
			DataCorruption: func(info pebble.DataCorruptionInfo) { d.damaged.Store(&info.Path) },
		},
	}
	for i := range opts.Levels {
		l := &opts.Levels[i]
		l.BlockSize = 32 << 10
		l.IndexBlockSize = 256 << 10
		// In the last level, too: each put of a new key looks for one that is nowhere.
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.FilterType = pebble.TableFilter
	}
	return opts
}

// OpenStore opens the database in dir, which it makes if need be, and removes what belongs to no
// engine: what a crash left of an InstallSnapshot or a Drop.
func OpenStore(fs vfs.FS, dir string, opts ...Option) (*Store, error) {
	o := options{
		cacheBytes:    160 << 20, // Memtables, two of them while one is flushed, take their part of it.
		memTableBytes: 32 << 20,
		fatal:         func(err error) { slog.Error(err.Error()) },
		report:        func(text string) { slog.Error(text) },
	}
	for _, opt := range opts {
		opt(&o)
	}
	if err := syncParents(fs, dir); err != nil {
		return nil, err
	}
	d := &database{fs: fs, dir: dir, cache: pebble.NewCache(o.cacheBytes), floor: newFloor(fs, dir), end: newEnding(o.fatal)}
	defer d.cache.Unref() // The database holds it from here on.
	if err := d.check(o); err != nil {
		return nil, err
	}
	db, err := pebble.Open(dir, d.options(o))
	if err != nil {
		return nil, d.explainOpen(err)
	}
	d.DB = db
	s := &Store{db: d}
	s.mu.open = make(map[string]bool)
	if err := errors.Join(d.clean(), d.end.reason()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// check holds the database against the floor, without changing a file.
func (d *database) check(o options) error {
	ok, err := d.floor.load()
	if err != nil {
		return err
	}
	desc, err := pebble.Peek(d.dir, d.fs)
	if err != nil {
		return d.explainOpen(err)
	}
	if !desc.Exists {
		if !d.floor.empty() {
			return &storage.CorruptError{Path: d.dir, Detail: "there is no database, but there was one"}
		}
		return d.floor.save()
	}
	if !ok {
		return &storage.CorruptError{Path: d.floor.path(), Detail: "the file is missing"}
	}
	opts := d.options(o)
	opts.ReadOnly = true
	db, err := pebble.Open(d.dir, opts)
	if err != nil {
		return d.explainOpen(err)
	}
	reading := &database{DB: db, fs: d.fs, dir: d.dir, end: d.end}
	return d.explain(errors.Join(d.floor.check(reading), db.Close()))
}

// saveFloor saves the floor.
func (d *database) saveFloor() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	return d.floor.save()
}

// syncParents makes the directories above dir, durably: the database sees to its own.
func syncParents(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := syncParents(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("storage: make directory %s: %w", dir, err)
	}
	if err := syncDir(fs, parent); err != nil {
		return fmt.Errorf("storage: sync directory %s: %w", parent, err)
	}
	return nil
}

// names returns the engines with their numbers.
func (d *database) names() (map[string]keyed, error) {
	v := &view{db: d, r: d.DB}
	names := make(map[string]keyed)
	prefix := v.kind(kindName)
	for ok := v.seek(prefix, prefix); ok; ok = v.next(prefix) {
		value, err := v.point.ValueAndErr()
		v.fail(err)
		if len(value) != 8 {
			v.damaged(v.point.Key(), "the number of an engine")
			break
		}
		names[string(v.point.Key()[9:])] = keyed(binary.BigEndian.Uint64(value))
	}
	return names, v.close()
}

// clean removes keys of numbers that no name has, and finds out the number to go on with.
func (d *database) clean() error {
	names, err := d.names()
	if err != nil {
		return err
	}
	used := make(map[keyed]bool)
	for _, k := range names { // order: a set
		used[k] = true
	}
	v := &view{db: d, r: d.DB}
	if last := v.get(v.kind(kindLast)); len(last) == 8 {
		d.mu.last = keyed(binary.BigEndian.Uint64(last))
	}
	if err := v.close(); err != nil {
		return err
	}
	for k := keyed(1); ; k++ {
		next, err := d.numberFrom(k)
		if err != nil || next == 0 {
			return err
		}
		k = next
		d.mu.last = max(d.mu.last, k)
		if !used[k] {
			if err := d.discard(k); err != nil {
				return err
			}
		}
	}
}

// numberFrom returns the least number at or above k that has keys, or 0.
func (d *database) numberFrom(k keyed) (keyed, error) {
	it, err := d.NewIter(&pebble.IterOptions{})
	if err != nil {
		return 0, d.explain(err)
	}
	lower, _ := k.all()
	next := keyed(0)
	if it.SeekGE(lower) && len(it.Key()) >= 8 {
		next = keyed(binary.BigEndian.Uint64(it.Key()))
	}
	return next, d.explain(errors.Join(it.Error(), it.Close()))
}

// newNumber gives out a number.
func (d *database) newNumber() (keyed, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.last++
	b := d.NewBatch()
	defer b.Close()
	value := binary.BigEndian.AppendUint64(nil, uint64(d.mu.last))
	if err := b.Set(keyed(0).kind(kindLast), value, nil); err != nil {
		return 0, err
	}
	return d.mu.last, d.apply(b)
}

// rename makes a number that of a name, durably.
func (d *database) rename(name string, k keyed) error {
	b := d.NewBatch()
	defer b.Close()
	value := binary.BigEndian.AppendUint64(nil, uint64(k))
	if err := b.Set(keyed(0).text(kindName, name), value, nil); err != nil {
		return err
	}
	if err := d.apply(b); err != nil {
		return err
	}
	return d.flush()
}

func (d *database) apply(b *pebble.Batch) error {
	if err := d.end.reason(); err != nil {
		return err
	}
	return d.explain(d.Apply(b, pebble.NoSync))
}

// flush makes everything committed durable. A flush that fails is tried again until it succeeds or
// the database ends.
func (d *database) flush() error {
	if err := d.end.reason(); err != nil {
		return err
	}
	done, err := d.AsyncFlush()
	if err != nil {
		return d.explain(err)
	}
	select {
	case <-done:
	case <-d.end.came:
	}
	return d.end.reason()
}

// erase removes all keys of a number, durably. Pebble's Excise would do it at once, but takes a block
// that it cannot read for the end of a table, and then drops what other engines have in it.
func (d *database) erase(k keyed) error {
	lower, upper := k.all()
	b := d.NewBatch()
	defer b.Close()
	if err := b.DeleteRange(lower, upper, nil); err != nil {
		return err
	}
	if err := d.apply(b); err != nil {
		return err
	}
	return d.flush()
}

// discard removes all keys of an engine that is no more.
func (d *database) discard(k keyed) error {
	d.floor.remove(k)
	if err := d.saveFloor(); err != nil {
		return err
	}
	return d.erase(k)
}

// users returns the count of those who read under a number. When there are none left, its keys
// are garbage.
func (d *database) users(k keyed) *users {
	return newUsers(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.garbage = append(d.mu.garbage, k)
	})
}

// collect removes the garbage. What it does not come to is removed when the store is next opened.
func (d *database) collect() error {
	d.mu.Lock()
	garbage := d.mu.garbage
	d.mu.garbage = nil
	d.mu.Unlock()
	for _, k := range garbage {
		if err := d.discard(k); err != nil {
			return err
		}
	}
	return nil
}

// durableState reads the state of an engine as it is on disk; nil if there is none.
func (d *database) durableState(k keyed) (*state, error) {
	if err := d.end.reason(); err != nil {
		return nil, err
	}
	key := k.kind(kindState)
	it, err := d.NewIter(&pebble.IterOptions{
		LowerBound:                key,
		UpperBound:                k.kind(kindState + 1),
		OnlyReadGuaranteedDurable: true,
	})
	if err != nil {
		return nil, err
	}
	var st *state
	ok := true
	if it.First() && bytes.Equal(it.Key(), key) {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			st, ok = decodeState(value)
		}
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, err
	}
	if !ok {
		return nil, &storage.CorruptError{Path: d.dir, Detail: "the state of an engine does not decode"}
	}
	return st, nil
}

// explain gives an error of the database its place and, if it is damage, its type.
func (d *database) explain(err error) error {
	var corrupt *storage.CorruptError
	if err == nil || errors.As(err, &corrupt) {
		return err
	}
	if pebble.IsCorruptionError(err) {
		return &storage.CorruptError{Path: d.damagedFile(), Detail: err.Error()}
	}
	return fmt.Errorf("storage: %s: %w", d.dir, err)
}

// explainOpen does the same for an error of opening the database, where some damage comes without
// being called so: a table that the manifest names is missing, or has another size.
func (d *database) explainOpen(err error) error {
	if oserror.IsNotExist(err) || strings.Contains(err.Error(), "object size mismatch") {
		return &storage.CorruptError{Path: d.dir, Detail: err.Error()}
	}
	return d.explain(err)
}

// damagedFile is the file in which damage was last found, or the directory.
func (d *database) damagedFile() string {
	if path := d.damaged.Load(); path != nil {
		return *path
	}
	return d.dir
}

// Open implements storage.Store.
func (s *Store) Open(name string, _ storage.Options) (storage.Engine, error) {
	if err := s.claim(name); err != nil {
		return nil, err
	}
	e, err := s.load(name)
	if err != nil {
		s.unclaim(name)
		return nil, err
	}
	e.onClose = func() { s.unclaim(name) }
	return e, nil
}

func (s *Store) load(name string) (*Engine, error) {
	d := s.db
	v := &view{db: d, r: d.DB}
	value := v.get(v.text(kindName, name))
	if err := v.close(); err != nil {
		return nil, err
	}
	var k keyed
	if len(value) == 8 {
		k = keyed(binary.BigEndian.Uint64(value))
	} else {
		var err error
		if k, err = d.newNumber(); err != nil {
			return nil, err
		}
		if err := d.rename(name, k); err != nil {
			return nil, err
		}
	}
	v = &view{keyed: k, db: d, r: d.DB}
	st := v.state()
	prefix := v.kind(kindErased)
	erased := v.seek(prefix, prefix)
	if err := v.close(); err != nil {
		return nil, err
	}
	e := &Engine{db: d, name: name, erased: erased}
	e.current.Store(&generation{keyed: k, st: st, users: d.users(k)})
	e.durable.flushes = ^uint64(0)
	return e, nil
}

func (s *Store) claim(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open[name] {
		return fmt.Errorf("storage: engine %s of %s is open", name, s.db.dir)
	}
	s.mu.open[name] = true
	return nil
}

func (s *Store) unclaim(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.open, name)
}

// Drop implements storage.Store. The name goes first, durably, but after the floor; should a crash
// prevent the rest, OpenStore removes keys that no name leads to.
func (s *Store) Drop(name string) error {
	if err := s.claim(name); err != nil {
		return err
	}
	defer s.unclaim(name)
	names, err := s.db.names()
	if err != nil {
		return err
	}
	k, ok := names[name]
	if !ok {
		return nil
	}
	s.db.floor.remove(k)
	if err := s.db.saveFloor(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.Delete(keyed(0).text(kindName, name), nil); err != nil {
		return err
	}
	if err := s.db.apply(b); err != nil {
		return err
	}
	if err := s.db.flush(); err != nil {
		return err
	}
	return s.db.erase(k)
}

// Names implements storage.Store.
func (s *Store) Names() ([]string, error) {
	byName, err := s.db.names()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(byName))
	for name := range byName { // order: sorted below
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Close implements storage.Store. What was committed since the last flush is left to the Raft log.
func (s *Store) Close() error {
	return s.db.explain(s.db.Close())
}

// logger passes what the database has to say to the server's log.
type logger struct {
	end    *ending
	report func(string)
}

func (l logger) Infof(format string, args ...any) {}

func (l logger) Errorf(format string, args ...any) {
	if l.end.reason() == nil { // What it does after its end tells nobody anything.
		l.report("storage: " + fmt.Sprintf(format, args...))
	}
}

// Fatalf is called when something contradicts what the code relies on: nothing after that can be
// trusted.
func (l logger) Fatalf(format string, args ...any) {
	panic("storage: " + fmt.Sprintf(format, args...))
}
