package filelog

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// ErrNoIndex says that it can not be told any more which of the messages in the blocks are there by right.
var ErrNoIndex = errors.New("storage: what says which messages are there is damaged")

// Salvage makes, below another root, an engine of the same name with all that can be read of one that no
// server has open, and tells what can not. The damaged one stays as it is; its index is rebuilt if need be.
func Salvage(fs vfs.FS, root, name, to string, h History) (lost []storage.LostMessage, err error) {
	i, err := inspect(fs, root, name, h)
	if err != nil {
		return nil, err
	}
	if i.idx == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoIndex, i.d.root)
	}
	store, err := OpenStore(fs, to)
	if err != nil {
		return nil, err
	}
	e, err := store.Open(name, storage.Options{})
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(i.snapshot(w)) }() // It ends with the pipe.
	err = e.InstallSnapshot(r)
	_ = r.CloseWithError(err)
	return i.out.Lost, errors.Join(err, e.Close(), store.Close())
}

// snapshot writes what can be read as a snapshot.
func (i *inspection) snapshot(w io.Writer) error {
	v := view{Index: i.idx.Clone()}
	for _, l := range i.out.Lost {
		if _, ok := v.Index.Remove(l.Seq); !ok {
			return fmt.Errorf("storage: message %d is lost twice", l.Seq)
		}
	}
	v.Freeze()
	for _, mb := range i.m.blocks {
		b := i.open(mb)
		defer b.release()
		v.blocks = append(v.blocks, b)
	}
	return v.WriteSnapshot(w, func(en *index.Entry) (storage.Message, error) { return v.read(en) })
}
