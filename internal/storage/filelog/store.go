package filelog

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// Store opens engines, each in a directory of its name below one root.
type Store struct {
	fs     vfs.FS
	root   string
	tuning tuning
	report func(string)

	mu struct {
		sync.Mutex
		open map[string]bool
	}
}

var _ storage.Store = (*Store)(nil)

// Option changes how a store works.
type Option func(*Store)

// WithBlockBytes sets how large block files get: from least, for a small engine, to most.
func WithBlockBytes(least, most int64) Option {
	return func(s *Store) {
		s.tuning.blockBytesMin = least
		s.tuning.blockBytesMax = most
	}
}

// WithIndexDeltaBytes sets up to which size the changes behind the saved index never make it be
// saved anew.
func WithIndexDeltaBytes(n int64) Option {
	return func(s *Store) { s.tuning.baseBytesMin = n }
}

// WithCompactBytes sets how much one call of Compact looks at, about.
func WithCompactBytes(n int64) Option { return func(s *Store) { s.tuning.compactBytes = n } }

// WithReport sets what is told of damage that does no harm, for the operator. It must not block.
func WithReport(fn func(string)) Option { return func(s *Store) { s.report = fn } }

// OpenStore opens the store below root, which it makes if need be, and finishes drops that a crash
// interrupted.
func OpenStore(fs vfs.FS, root string, options ...Option) (*Store, error) {
	s := &Store{fs: fs, root: root, tuning: defaultTuning, report: func(string) {}}
	s.mu.open = make(map[string]bool)
	if err := makeDir(fs, root); err != nil {
		return nil, err
	}
	if du, err := fs.GetDiskUsage(root); err == nil {
		s.tuning.fit(int64(du.TotalBytes))
	}
	for _, o := range options {
		o(s)
	}
	names, err := s.list()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		d := newDir(fs, root, name)
		if m, err := d.readManifest(); err == nil && m != nil && m.dropped {
			if err := s.remove(d); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// list returns the names below the root, sorted.
func (s *Store) list() ([]string, error) {
	names, err := s.fs.List(s.root)
	if err != nil {
		return nil, fmt.Errorf("storage: list %s: %w", s.root, err)
	}
	slices.Sort(names)
	return names, nil
}

// Open implements storage.Store.
func (s *Store) Open(name string, opts storage.Options) (storage.Engine, error) {
	if err := s.claim(name); err != nil {
		return nil, err
	}
	e := newEngine(newDir(s.fs, s.root, name), opts, s.tuning)
	e.report = s.report
	e.onClose = func() { s.unclaim(name) }
	if err := e.open(); err != nil {
		s.unclaim(name)
		return nil, err
	}
	return e, nil
}

func (s *Store) claim(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.open[name] {
		return fmt.Errorf("storage: engine %s is open", s.fs.PathJoin(s.root, name))
	}
	s.mu.open[name] = true
	return nil
}

func (s *Store) unclaim(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.open, name)
}

// Drop implements storage.Store. What says first that the engine is gone is its manifest; the
// files follow, and if a crash prevents that, OpenStore sees to it.
func (s *Store) Drop(name string) error {
	if err := s.claim(name); err != nil {
		return err
	}
	defer s.unclaim(name)
	d := newDir(s.fs, s.root, name)
	if _, err := s.fs.Stat(d.root); isNotExist(err) {
		return nil
	}
	if err := d.writeManifest(&manifest{dropped: true}); err != nil {
		return err
	}
	return s.remove(d)
}

// remove removes the files of a dropped engine, the manifest last.
func (s *Store) remove(d *dir) error {
	names, err := d.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != manifestName {
			if err := d.remove(name); err != nil {
				return err
			}
		}
	}
	if err := d.sync(); err != nil {
		return err
	}
	if err := d.remove(manifestName); err != nil {
		return err
	}
	if err := s.fs.Remove(d.root); err != nil {
		return fmt.Errorf("storage: remove %s: %w", d.root, err)
	}
	return syncDir(s.fs, s.root)
}

// Names implements storage.Store: the directories that hold something.
func (s *Store) Names() ([]string, error) {
	all, err := s.list()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range all {
		d := newDir(s.fs, s.root, name)
		files, err := d.list()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(files, func(f string) bool { return !temporary(f) }) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Close implements storage.Store.
func (s *Store) Close() error { return nil }

// temporary tells whether a file is one that no manifest speaks of.
func temporary(name string) bool { return strings.HasSuffix(name, ".tmp") }
