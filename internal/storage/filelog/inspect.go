package filelog

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// Inspect describes the files of an engine that no server has open, and checks all of them without
// changing any. It goes on after damage as far as it can, and returns what it found of it.
func Inspect(fs vfs.FS, root, name string, w io.Writer) (damage []*storage.CorruptError, err error) {
	i := inspection{d: newDir(fs, root, name), w: w}
	err = i.run()
	return i.damage, err
}

type inspection struct {
	d      *dir
	w      io.Writer
	m      *manifest
	damage []*storage.CorruptError
}

// note keeps damage, and returns any other error.
func (i *inspection) note(err error) error {
	var corrupt *storage.CorruptError
	if !errors.As(err, &corrupt) {
		return err
	}
	fmt.Fprintf(i.w, "  DAMAGED at offset %d: %s\n", corrupt.Offset, corrupt.Detail)
	i.damage = append(i.damage, corrupt)
	return nil
}

func (i *inspection) run() (err error) {
	fmt.Fprintf(i.w, "%s\n", manifestName)
	if i.m, err = i.d.readManifest(); err != nil {
		return i.note(err)
	}
	if i.m == nil {
		return i.note(&storage.CorruptError{Path: i.d.path(manifestName), Detail: "the file is missing"})
	}
	m := i.m
	if m.dropped {
		fmt.Fprintf(i.w, "  the engine was dropped\n")
		return nil
	}
	fmt.Fprintf(i.w, "  applied index %d, term %d; last sequence %d; %d messages, %d bytes; %d erasures\n",
		m.applied.Index, m.applied.Term, m.lastSeq, m.msgs, m.bytes, len(m.erasures))
	idx, err := i.index()
	if err != nil {
		return err
	}
	found := uint64(0)
	for _, mb := range m.blocks {
		n, err := i.block(mb, idx)
		if err != nil {
			return err
		}
		found += n
	}
	if idx != nil && len(i.damage) == 0 && found != m.msgs {
		if err := i.note(&storage.CorruptError{Path: i.d.root, Detail: fmt.Sprintf("%d messages are in the blocks, of %d", found, m.msgs)}); err != nil {
			return err
		}
	}
	return i.leftovers()
}

// index loads the index; nil if it is damaged.
func (i *inspection) index() (*index.Index, error) {
	l := index.NewLoader()
	if i.m.index != 0 {
		fmt.Fprintf(i.w, "%s\n  %d bytes, of which %d are changes\n", indexName(i.m.index), i.m.indexLen, i.m.indexLen-i.m.baseLen)
		if err := readIndexFile(i.d, i.m.index, i.m.indexLen, l); err != nil {
			return nil, i.note(err)
		}
	}
	idx, uses := l.Index()
	if st := idx.State(); st.Msgs != i.m.msgs || st.Bytes != i.m.bytes {
		return nil, i.note(&storage.CorruptError{Path: i.d.path(indexName(i.m.index)), Detail: fmt.Sprintf("%d messages of %d bytes", st.Msgs, st.Bytes)})
	}
	for _, mb := range i.m.blocks {
		if uses[mb.number] != mb.live {
			return nil, i.note(&storage.CorruptError{Path: i.d.path(indexName(i.m.index)), Detail: fmt.Sprintf("%d bytes live in block %d", uses[mb.number], mb.number)})
		}
	}
	return idx, nil
}

// block checks a block, and returns how many of its records are live.
func (i *inspection) block(mb manifestBlock, idx *index.Index) (live uint64, err error) {
	b := newBlock(i.d, mb.number)
	defer b.release()
	b.size = mb.size
	b.written.Store(mb.size)
	fmt.Fprintf(i.w, "%s\n  %d bytes, of which %d are live\n", blockName(mb.number), mb.size, mb.live)
	if err := b.checkHeader(); err != nil {
		return 0, i.note(err)
	}
	records, erased := 0, 0
	v := view{Index: idx}
	var wrong error
	_, err = b.scan(blockHeaderBytes, b.size, func(at uint32, rec []byte) bool {
		records++
		if rec[4] == kindErased {
			erased++
		}
		if idx == nil {
			return true
		}
		en, ok := v.Get(recordSeq(rec))
		if !ok || en.Loc != (index.Loc{Block: b.number, Offset: at, Len: uint32(len(rec))}) {
			return true
		}
		live++
		_, wrong = b.message(rec, &en)
		return wrong == nil
	})
	fmt.Fprintf(i.w, "  %d records, %d live, %d erased\n", records, live, erased)
	return live, i.note(errors.Join(err, wrong))
}

// leftovers lists the files that the manifest does not name.
func (i *inspection) leftovers() error {
	names, err := i.d.list()
	if err != nil {
		return err
	}
	named := func(name string) bool {
		return name == manifestName || name == indexName(i.m.index) ||
			slices.ContainsFunc(i.m.blocks, func(mb manifestBlock) bool { return name == blockName(mb.number) })
	}
	for _, name := range names {
		if !named(name) {
			fmt.Fprintf(i.w, "%s\n  left from after the checkpoint\n", name)
		}
	}
	return nil
}
