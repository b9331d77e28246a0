package lsm

import "github.com/cleatkv/cleat/internal/storage"

// frozen is a read that goes on for as long as it is wanted: its iterators keep the tables.
type frozen struct {
	e  *Engine
	g  *generation
	v  *view
	st *state
}

// Freeze implements storage.Engine.
func (e *Engine) Freeze() storage.Frozen {
	g, v := e.read()
	return &frozen{e: e, g: g, v: v, st: v.state()}
}

// Walk implements storage.Frozen.
func (f *frozen) Walk(message func(*storage.Message) error, aux func(string, []byte) error) error {
	if f.v.err != nil {
		return f.v.err
	}
	return f.v.walk(message, aux)
}

// Applied implements storage.Frozen.
func (f *frozen) Applied() storage.Applied { return f.st.applied }

// Last implements storage.Frozen.
func (f *frozen) Last() (uint64, int64) { return f.st.LastSeq, f.st.LastTime }

// Release implements storage.Frozen.
func (f *frozen) Release() { _ = f.e.end(f.g, f.v) } // Engine.Err has the error.
