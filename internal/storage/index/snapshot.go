package index

import (
	"io"

	"github.com/cleatkv/cleat/internal/storage"
)

// WriteSnapshot writes everything as a snapshot stream; load gets a message's body.
func (x *Index) WriteSnapshot(w io.Writer, load func(*Entry) (storage.Message, error)) error {
	s := x.State()
	sw, err := storage.NewSnapshotWriter(w, storage.SnapshotState{
		Applied:  x.applied,
		LastSeq:  s.LastSeq,
		LastTime: s.LastTime,
		Msgs:     s.Msgs,
		Bytes:    s.Bytes,
	})
	if err != nil {
		return err
	}
	x.Ascend(0, func(e *Entry) bool {
		var m storage.Message
		if m, err = load(e); err == nil {
			err = sw.Message(&m)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	x.AuxRange("", func(key string, value []byte) bool {
		err = sw.Aux(key, value)
		return err == nil
	})
	if err != nil {
		return err
	}
	return sw.Close()
}
