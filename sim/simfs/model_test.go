package simfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// model is the plain idea of the file system: whole contents and whole directories, copied wherever
// that is simplest.
type model struct {
	names map[string]*modelFile          // by path
	disk  map[string]*modelFile          // what is durable
	bound map[string]map[*modelFile]bool // every file that a path may have after a crash
	nil   map[string]bool                // paths that may be missing after a crash
}

type modelFile struct {
	now, disk []byte
	writes    []modelWrite
}

type modelWrite struct {
	at   int
	data []byte
}

func newModel() *model { return (&model{}).restart(map[string]*modelFile{}) }

// restart makes names durable and current.
func (m *model) restart(names map[string]*modelFile) *model {
	m.names, m.disk = maps.Clone(names), maps.Clone(names)
	m.bound, m.nil = map[string]map[*modelFile]bool{}, map[string]bool{}
	for path, f := range names {
		m.bound[path] = map[*modelFile]bool{f: true}
	}
	return m
}

func (m *model) set(path string, f *modelFile) {
	if m.bound[path] == nil {
		m.bound[path] = map[*modelFile]bool{}
		m.nil[path] = true
	}
	if f == nil {
		delete(m.names, path)
		m.nil[path] = true
		return
	}
	m.names[path] = f
	m.bound[path][f] = true
}

// syncDir makes the names of a directory durable.
func (m *model) syncDir(dir string) {
	for _, path := range modelPaths {
		if path[:1] != dir {
			continue
		}
		delete(m.disk, path)
		delete(m.nil, path)
		delete(m.bound, path)
		if f := m.names[path]; f != nil {
			m.disk[path] = f
			m.bound[path] = map[*modelFile]bool{f: true}
		}
	}
}

func (f *modelFile) write(at int, data []byte) {
	f.now = grow(f.now, at+len(data))
	copy(f.now[at:], data)
	f.writes = append(f.writes, modelWrite{at, slices.Clone(data)})
}

func (f *modelFile) sync() {
	f.disk = grow(f.disk, len(f.now))
	for _, w := range f.writes {
		copy(f.disk[w.at:], w.data)
	}
	f.writes = nil
}

func grow(b []byte, n int) []byte {
	if len(b) < n {
		b = append(b, make([]byte, n-len(b))...)
	}
	return b
}

// allows tells whether a crash may leave content: each sector as it was after some of the writes.
func (f *modelFile) allows(content []byte) error {
	if len(content) < len(f.disk) || len(content) > len(f.now) {
		return fmt.Errorf("size %d is not between %d and %d", len(content), len(f.disk), len(f.now))
	}
	for s := 0; s < len(content); s += SectorSize {
		end := min(s+SectorSize, len(content))
		version := grow(slices.Clone(f.disk), len(f.now))
		ok := bytes.Equal(version[s:end], content[s:end])
		for _, w := range f.writes {
			copy(version[w.at:], w.data)
			ok = ok || bytes.Equal(version[s:end], content[s:end])
		}
		if !ok {
			return fmt.Errorf("sector at %d is nothing that was ever written", s)
		}
	}
	return nil
}

var modelPaths = []string{"a/0", "a/1", "a/2", "b/0", "b/1"}

// check compares what can be read with the model's current state.
func (m *model) check(t *testing.T, f *FS) {
	t.Helper()
	for _, path := range modelPaths {
		content, err := readAll(f, path)
		want := m.names[path]
		switch {
		case want == nil && !errors.Is(err, fs.ErrNotExist):
			t.Fatalf("%s should not exist: %v", path, err)
		case want != nil && err != nil:
			t.Fatal(err)
		case want != nil && !bytes.Equal(content, want.now):
			t.Fatalf("%s differs: %d bytes, want %d", path, len(content), len(want.now))
		}
	}
	for _, dir := range []string{"a", "b"} {
		var want []string
		for path := range m.names {
			if path[:1] == dir {
				want = append(want, path[2:])
			}
		}
		slices.Sort(want)
		if got, err := f.List(dir); err != nil || !slices.Equal(got, want) {
			t.Fatalf("list %s: %v, %v, want %v", dir, got, err, want)
		}
	}
}

// crash checks what a crash left, and goes on from there.
func (m *model) crash(t *testing.T, f *FS, o Outcome) {
	t.Helper()
	switch o {
	case Nothing:
		for _, file := range m.disk {
			file.now, file.writes = slices.Clone(file.disk), nil
		}
		m.restart(m.disk)
	case Everything:
		for _, file := range m.names {
			file.sync()
			file.now = slices.Clone(file.disk)
		}
		m.restart(m.names)
	default:
		m.adopt(t, f, o)
	}
	m.check(t, f)
}

// adopt checks that what is there is allowed and takes it over.
func (m *model) adopt(t *testing.T, f *FS, o Outcome) {
	t.Helper()
	found := map[string]*modelFile{}
	for _, path := range modelPaths {
		content, err := readAll(f, path)
		if errors.Is(err, fs.ErrNotExist) {
			if m.bound[path] != nil && !m.nil[path] {
				t.Fatalf("%v: %s is gone, its name was durable", o, path)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var why error
		ok := false
		for file := range m.bound[path] {
			err := file.allows(content)
			ok, why = ok || err == nil, err
		}
		if !ok && o != Torn {
			t.Fatalf("%v: %s: %v", o, path, why)
		}
		found[path] = &modelFile{now: content, disk: slices.Clone(content)}
	}
	m.restart(found)
}

func readAll(f *FS, path string) ([]byte, error) {
	h, err := f.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	info, err := h.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size())
	if len(b) == 0 {
		return b, nil
	}
	_, err = h.ReadAt(b, 0)
	return b, err
}

// step does one random operation on both.
func (m *model) step(t *testing.T, f *FS, r *rand.Rand) {
	t.Helper()
	path := modelPaths[r.IntN(len(modelPaths))]
	other := modelPaths[r.IntN(len(modelPaths))]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	switch n := r.IntN(20); {
	case n < 2:
		h, err := f.Create(path, "test")
		must(err)
		must(h.Close())
		m.set(path, nil) // First the old file goes, then a new one comes.
		m.set(path, &modelFile{})
	case n < 10:
		h, err := f.OpenReadWrite(path, "test")
		must(err)
		if m.names[path] == nil {
			m.set(path, &modelFile{})
		}
		data := make([]byte, 1+r.IntN(3*SectorSize))
		if r.IntN(3) > 0 {
			for i := range data {
				data[i] = byte(r.Uint32())
			}
		}
		at := r.IntN(8 * SectorSize)
		if r.IntN(2) == 0 {
			at = at / SectorSize * SectorSize
		}
		_, err = h.WriteAt(data, int64(at))
		must(err)
		m.names[path].write(at, data)
		must(h.Close())
	case n < 13:
		if m.names[path] == nil {
			return
		}
		h, err := f.Open(path)
		must(err)
		must(h.SyncData())
		must(h.Close())
		m.names[path].sync()
	case n < 15:
		h, err := f.OpenDir(path[:1])
		must(err)
		must(h.Sync())
		must(h.Close())
		m.syncDir(path[:1])
	case n < 17:
		if file := m.names[path]; file != nil && path != other && path[:1] == other[:1] {
			must(f.Rename(path, other))
			m.set(path, nil)
			m.set(other, file)
		}
	case n < 18:
		if m.names[path] != nil {
			must(f.Remove(path))
			m.set(path, nil)
		}
	default:
		m.check(t, f)
	}
}

func TestSimFSModel(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			f, m := New(seed, Strict), newModel()
			for _, dir := range []string{"a", "b"} {
				if err := f.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			root, err := f.OpenDir("/")
			if err != nil {
				t.Fatal(err)
			}
			if err := root.Sync(); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				for range r.IntN(60) {
					m.step(t, f, r)
				}
				m.check(t, f)
				o := Outcome(r.IntN(int(outcomes)))
				if r.IntN(2) == 0 {
					// A clone crashes like the original, which stays as it is.
					c := f.CrashClone(o, seed)
					m.check(t, f)
					copied := *m
					copied.deep().crash(t, c, o)
					m.check(t, f)
					continue
				}
				f.Crash(o)
				m.crash(t, f, o)
			}
		})
	}
}

// deep copies the model.
func (m *model) deep() *model {
	files := map[*modelFile]*modelFile{}
	file := func(f *modelFile) *modelFile {
		if files[f] == nil {
			files[f] = &modelFile{slices.Clone(f.now), slices.Clone(f.disk), slices.Clone(f.writes)}
		}
		return files[f]
	}
	c := newModel()
	for p, f := range m.names {
		c.names[p] = file(f)
	}
	for p, f := range m.disk {
		c.disk[p] = file(f)
	}
	for p, fs := range m.bound {
		c.bound[p] = map[*modelFile]bool{}
		for f := range fs {
			c.bound[p][file(f)] = true
		}
	}
	c.nil = maps.Clone(m.nil)
	return c
}

// TestSimFSReproducible runs the same operations twice and compares what crashes leave.
func TestSimFSReproducible(t *testing.T) {
	run := func(seed uint64) string {
		r := rand.New(rand.NewPCG(seed, 2))
		f, m := New(seed, Strict), newModel()
		_ = f.MkdirAll("a", 0o755)
		_ = f.MkdirAll("b", 0o755)
		var trace bytes.Buffer
		for i := range 200 {
			m.step(t, f, r)
			if i%20 == 19 {
				c := f.CrashClone(Subset, uint64(i))
				for _, path := range modelPaths {
					b, err := readAll(c, path)
					fmt.Fprintf(&trace, "%s %x %v\n", path, b, err)
				}
			}
		}
		return trace.String()
	}
	distinct := map[string]bool{}
	for seed := range uint64(5) {
		a := run(seed)
		if a != run(seed) {
			t.Fatalf("seed %d: two runs differ", seed)
		}
		distinct[a] = true
	}
	if len(distinct) != 5 {
		t.Fatalf("%d different runs of 5 seeds", len(distinct))
	}
}

var _ vfs.File = (*file)(nil)
