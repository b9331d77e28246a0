package lsm

import "github.com/cleatkv/cleat/internal/storage"

// frozen is an engine that nobody changes: all its reads see one snapshot of the database, under the number
// that the engine had then.
type frozen struct {
	Engine
	g *generation
}

// Freeze implements storage.Engine.
func (e *Engine) Freeze() storage.Frozen {
	g, v := e.read()
	snapshot := e.db.NewSnapshot()
	v.r = snapshot
	f := &frozen{g: &generation{keyed: g.keyed, st: v.state(), users: g.users}}
	f.db, f.name, f.snapshot = e.db, e.name, snapshot
	f.current.Store(f.g)
	if err := v.close(); err != nil {
		f.err.Store(&err)
	}
	return f
}

// Walk implements storage.Frozen.
func (f *frozen) Walk(message func(*storage.Message) error, aux func(string, []byte) error) error {
	if err := f.Err(); err != nil {
		return err
	}
	g, v := f.read()
	err := v.walk(message, aux)
	if broken := f.end(g, v); err == nil {
		err = broken
	}
	return err
}

// Last implements storage.Frozen.
func (f *frozen) Last() (uint64, int64) { return f.g.st.LastSeq, f.g.st.LastTime }

// Release implements storage.Frozen.
func (f *frozen) Release() {
	_ = f.snapshot.Close() // It never fails.
	f.g.users.release()
}
