package filelog

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// Inspect describes the files of an engine that no server has open, and checks all of them without
// changing any. It goes on after damage as far as it can. aux are the auxiliary records to return.
func Inspect(fs vfs.FS, root, name string, h History, aux ...string) (*storage.Inspection, error) {
	i, err := inspect(fs, root, name, h)
	if err != nil {
		return nil, err
	}
	i.out.Aux = make(map[string][]byte)
	for _, key := range aux {
		if i.idx == nil {
			break
		}
		if value, ok := i.idx.Aux(key); ok {
			i.out.Aux[key] = value
		}
	}
	return &i.out, nil
}

func inspect(fs vfs.FS, root, name string, h History) (*inspection, error) {
	i := &inspection{d: newDir(fs, root, name), out: storage.Inspection{Name: name}}
	err := i.run()
	if err == nil && i.idx == nil && i.m != nil && !i.m.dropped {
		err = i.rebuild(h)
	}
	return i, err
}

type inspection struct {
	d   *dir
	m   *manifest
	idx *index.Index // nil if it is damaged, and can not be made anew
	out storage.Inspection
}

// note keeps damage, and returns any other error.
func (i *inspection) note(err error) error {
	var corrupt *storage.CorruptError
	if !errors.As(err, &corrupt) {
		return err
	}
	i.out.Damage = append(i.out.Damage, corrupt)
	return nil
}

func (i *inspection) noted(path, format string, args ...any) {
	_ = i.note(&storage.CorruptError{Path: path, Detail: fmt.Sprintf(format, args...)})
}

func (i *inspection) run() (err error) {
	if i.m, err = i.d.readManifest(); err != nil {
		return i.note(err)
	}
	m := i.m
	if m == nil {
		i.noted(i.d.path(manifestName), "the file is missing")
		return nil
	}
	if i.out.Dropped = m.dropped; m.dropped {
		return nil
	}
	i.out.Applied = m.applied
	i.out.State = storage.State{Msgs: m.msgs, Bytes: m.bytes, LastSeq: m.lastSeq, LastTime: m.lastTime}
	if err := i.index(); err != nil {
		return err
	}
	found := uint64(0)
	for _, mb := range m.blocks {
		n, err := i.block(mb)
		if err != nil {
			return err
		}
		found += n
	}
	if i.idx != nil && len(i.out.Damage) == 0 && found != m.msgs {
		i.noted(i.d.root, "%d messages are in the blocks, of %d", found, m.msgs)
	}
	return i.leftovers()
}

// index loads the index.
func (i *inspection) index() error {
	l := index.NewLoader()
	path := i.d.path(manifestName)
	if i.m.index != 0 {
		path = i.d.path(indexName(i.m.index))
		i.out.Files = append(i.out.Files, storage.InspectedFile{Name: indexName(i.m.index), Bytes: i.m.indexLen})
		if err := readIndexFile(i.d, i.m.index, i.m.indexLen, l); err != nil {
			return i.note(err)
		}
	}
	idx, uses := l.Index()
	if st := idx.State(); st.Msgs != i.m.msgs || st.Bytes != i.m.bytes {
		i.noted(path, "%d messages of %d bytes, where the manifest says %d of %d", st.Msgs, st.Bytes, i.m.msgs, i.m.bytes)
		return nil
	}
	for _, mb := range i.m.blocks {
		if uses[mb.number] != mb.live {
			i.noted(path, "%d bytes live in block %d, where the manifest says %d", uses[mb.number], mb.number, mb.live)
			return nil
		}
	}
	idx.SetLast(i.m.lastSeq, i.m.lastTime)
	idx.SetApplied(i.m.applied)
	idx.Freeze()
	i.idx, i.out.State = idx, idx.State()
	return nil
}

// block checks a block, and returns how many of its records are live.
func (i *inspection) block(mb manifestBlock) (live uint64, err error) {
	b := i.open(mb)
	defer b.release()
	f := storage.InspectedFile{Name: blockName(mb.number), Bytes: mb.size, LiveBytes: mb.live}
	before := len(i.out.Damage)
	if err = b.checkHeader(); err == nil {
		err = i.records(b, &f)
	}
	if err = i.note(err); err != nil {
		return 0, err
	}
	i.out.Files = append(i.out.Files, f)
	if len(i.out.Damage) > before {
		err = i.listLost(b)
	}
	return uint64(f.LiveRecords), err
}

func (i *inspection) open(mb manifestBlock) *block {
	b := newBlock(i.d, mb.number)
	b.size = mb.size
	b.written.Store(mb.size)
	return b
}

// records counts the records of a block up to the first that is wrong.
func (i *inspection) records(b *block, f *storage.InspectedFile) error {
	var wrong error
	_, err := b.scan(blockHeaderBytes, b.size, func(at uint32, rec []byte) bool {
		f.Records++
		if rec[4] == kindErased {
			f.Erased++
		}
		if i.idx == nil {
			return true
		}
		en, ok := i.idx.Get(recordSeq(rec))
		if !ok || en.Loc != (index.Loc{Block: b.number, Offset: at, Len: uint32(len(rec))}) {
			return true
		}
		f.LiveRecords++
		_, wrong = b.message(rec, &en)
		return wrong == nil
	})
	return errors.Join(err, wrong)
}

// listLost finds the messages of a damaged block that can not be read.
func (i *inspection) listLost(b *block) (err error) {
	if i.idx == nil {
		return nil
	}
	v := view{Index: i.idx, blocks: []*block{b}}
	i.idx.Match(nil, 0, func(en *index.Entry) bool {
		if en.Loc.Block != b.number {
			return true
		}
		var corrupt *storage.CorruptError
		if _, err = v.read(en); errors.As(err, &corrupt) {
			i.out.Lost = append(i.out.Lost, storage.LostMessage{Seq: en.Seq, Subject: strings.Clone(en.Subject)})
			err = nil
		}
		return err == nil
	})
	return err
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
			i.out.Left = append(i.out.Left, name)
		}
	}
	return nil
}
