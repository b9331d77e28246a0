package filelog

import (
	"math"

	"github.com/cleatkv/cleat/internal/storage"
)

// frozen is a view whose files are kept in place.
type frozen struct {
	*view
	kept []*block
}

// Freeze implements storage.Engine.
func (e *Engine) Freeze() storage.Frozen {
	for {
		f := &frozen{view: e.View()}
		if f.keep() || e.closed.Load() {
			return f
		}
		f.Release() // A file was given up just now: there is a newer view.
	}
}

func (f *frozen) keep() bool {
	f.kept = make([]*block, 0, len(f.blocks))
	for _, b := range f.blocks {
		if !b.retain() {
			return false
		}
		f.kept = append(f.kept, b)
	}
	return true
}

// Scan implements storage.Frozen.
func (f *frozen) Scan(filters []string, from uint64, want int, fn func(m *storage.Message) bool) error {
	return f.scan(filters, from, want, fn)
}

// Walk implements storage.Frozen. A record that does not read may have been erased since: what it says of
// that is not an error of the engine.
func (f *frozen) Walk(message func(*storage.Message) error, aux func(string, []byte) error) (err error) {
	stopped := f.scan(nil, 0, math.MaxInt, func(m *storage.Message) bool {
		err = message(m)
		return err == nil
	})
	if err != nil || stopped != nil {
		return firstOf(err, stopped)
	}
	f.AuxRange("", func(key string, value []byte) bool {
		err = aux(key, value)
		return err == nil
	})
	return err
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// Last implements storage.Frozen.
func (f *frozen) Last() (uint64, int64) {
	s := f.State()
	return s.LastSeq, s.LastTime
}

// Release implements storage.Frozen.
func (f *frozen) Release() {
	for _, b := range f.kept {
		b.release()
	}
	f.kept = nil
}
