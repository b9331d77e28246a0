package filelog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// open brings the engine to the state of its last checkpoint, or makes a new one.
func (e *Engine) open() error {
	d := e.dir
	if err := makeDir(d.fs, d.root); err != nil {
		return err
	}
	m, err := d.readManifest()
	if err != nil {
		return err
	}
	if m == nil {
		return e.create()
	}
	if m.dropped {
		return fmt.Errorf("storage: engine %s was dropped", d.root)
	}
	if err := e.load(m); err != nil {
		for _, b := range e.View().blocks {
			b.release()
		}
		return err
	}
	return nil
}

// create makes the manifest of an empty engine. The first manifest precedes every other file, so
// files without one mean that it was lost.
func (e *Engine) create() error {
	names, err := e.dir.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !temporary(name) {
			return &storage.CorruptError{Path: e.dir.path(manifestName), Detail: "the file is missing, while there is " + name}
		}
	}
	e.manifest = &manifest{}
	return e.dir.writeManifest(e.manifest)
}

// load reads what the manifest names, and checks that it fits together. Only when all is well
// does it change anything: erasures that a crash prevented are done, and files that the manifest
// does not name are removed.
func (e *Engine) load(m *manifest) error {
	if err := e.loadBlocks(m); err != nil {
		return err
	}
	if err := e.loadIndex(m); err != nil {
		return err
	}
	if err := e.eraseAgain(m); err != nil {
		return err
	}
	if err := e.removeLeftovers(m); err != nil {
		return err
	}
	e.manifest = m
	e.since.upTo = m.lastSeq
	applied := m.applied
	e.durable.Store(&applied)
	return nil
}

func (e *Engine) loadBlocks(m *manifest) error {
	v := e.View()
	for _, mb := range m.blocks {
		b := newBlock(e.dir, mb.number)
		b.size, b.live = mb.size, mb.live
		b.written.Store(mb.size)
		b.durable.Store(mb.size)
		v.blocks = append(v.blocks, b)
		info, err := e.dir.fs.Stat(b.path())
		if isNotExist(err) {
			return b.corrupt(0, "the file is missing")
		}
		if err != nil {
			return fmt.Errorf("storage: stat %s: %w", b.path(), err)
		}
		if info.Size() < mb.size {
			return b.corrupt(info.Size(), fmt.Sprintf("the file ends too early, before %d", mb.size))
		}
		if err := b.checkHeader(); err != nil {
			return err
		}
		b.close() // There may be thousands, of which few are ever read.
	}
	return nil
}

func (b *block) checkHeader() error {
	head := make([]byte, blockHeaderBytes)
	if err := b.read(head, 0); err != nil {
		return err
	}
	if wrong := checkBlockHeader(head, b.number, b.dir.id); wrong != "" {
		return b.corrupt(0, wrong)
	}
	return nil
}

func (e *Engine) loadIndex(m *manifest) error {
	v := e.View()
	path := e.dir.path(manifestName)
	l := index.NewLoader()
	if m.index != 0 {
		path = e.dir.path(indexName(m.index))
		if err := readIndexFile(e.dir, m.index, m.indexLen, l); err != nil {
			return err
		}
		e.index = &indexFile{dir: e.dir, number: m.index, size: m.indexLen, end: m.indexLen, base: m.baseLen}
	}
	idx, uses := l.Index()
	idx.SetLast(m.lastSeq, m.lastTime)
	idx.SetApplied(m.applied)
	if st := idx.State(); st.Msgs != m.msgs || st.Bytes != m.bytes {
		return &storage.CorruptError{Path: path, Detail: fmt.Sprintf("%d messages of %d bytes, where the manifest says %d of %d",
			st.Msgs, st.Bytes, m.msgs, m.bytes)}
	}
	for _, b := range v.blocks {
		if uses[b.number] != b.live {
			return &storage.CorruptError{Path: path, Detail: fmt.Sprintf("%d bytes live in block %d, where the manifest says %d",
				uses[b.number], b.number, b.live)}
		}
		delete(uses, b.number)
	}
	for number := range uses { // order: one is enough to report
		return &storage.CorruptError{Path: path, Detail: fmt.Sprintf("messages in block %d, which the manifest does not name", number)}
	}
	idx.Freeze()
	v.Index = idx
	return nil
}

// eraseAgain does the erasures of the last checkpoint once more.
func (e *Engine) eraseAgain(m *manifest) error {
	v := e.View()
	byBlock := make(map[uint32][]place)
	for _, p := range m.erasures {
		byBlock[p.block] = append(byBlock[p.block], p)
	}
	for _, number := range slices.Sorted(maps.Keys(byBlock)) {
		b := v.block(number)
		if b == nil {
			b = newBlock(e.dir, number) // Its file is about to be removed, if it is still there.
			if _, err := e.dir.fs.Stat(b.path()); isNotExist(err) {
				continue
			}
		}
		if err := b.erase(byBlock[number]); err != nil {
			return err
		}
	}
	return nil
}

// removeLeftovers removes the files that the manifest does not name, and sees to it that no number
// of one is given out again.
func (e *Engine) removeLeftovers(m *manifest) error {
	names, err := e.dir.list()
	if err != nil {
		return err
	}
	keep := map[string]bool{manifestName: true, indexName(m.index): true}
	for _, mb := range m.blocks {
		keep[blockName(mb.number)] = true
	}
	last := m.next
	for _, name := range names {
		if n, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 32); err == nil {
			last = max(last, uint32(n))
		}
		if keep[name] || !ours(name) {
			continue
		}
		if err := e.dir.remove(name); err != nil {
			return err
		}
	}
	e.dir.last.Store(last)
	return nil
}

// ours tells whether a file could be one that an engine made.
func ours(name string) bool {
	return temporary(name) || strings.HasPrefix(name, "block-") || strings.HasPrefix(name, "index-")
}
