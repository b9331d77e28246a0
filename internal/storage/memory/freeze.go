package memory

import (
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// frozen is a view: it never changes, and goes when nobody has it any more.
type frozen struct{ *view }

// Freeze implements storage.Engine.
func (e *Engine) Freeze() storage.Frozen { return frozen{e.View()} }

// Scan implements storage.Frozen.
func (f frozen) Scan(filters []string, from uint64, _ int, fn func(m *storage.Message) bool) error {
	return f.scan(filters, from, fn)
}

// Walk implements storage.Frozen.
func (f frozen) Walk(message func(*storage.Message) error, aux func(string, []byte) error) (err error) {
	f.Ascend(0, func(en *index.Entry) bool {
		m := f.message(en)
		err = message(&m)
		return err == nil
	})
	if err != nil {
		return err
	}
	f.AuxRange("", func(key string, value []byte) bool {
		err = aux(key, value)
		return err == nil
	})
	return err
}

// Last implements storage.Frozen.
func (f frozen) Last() (uint64, int64) {
	s := f.State()
	return s.LastSeq, s.LastTime
}

// Release implements storage.Frozen.
func (f frozen) Release() {}
