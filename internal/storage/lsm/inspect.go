package lsm

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// Inspect describes the engines of a database that no server has open, and checks all that they hold
// without changing a file. Damage that belongs to no engine, or keeps the database from being opened, is
// returned apart. aux are the auxiliary records to return of each.
func Inspect(fs vfs.FS, dir string, aux ...string) (engines []*storage.Inspection, damage []*storage.CorruptError, err error) {
	d := &database{fs: fs, dir: dir, cache: pebble.NewCache(8 << 20), floor: newFloor(fs, dir), end: newEnding(func(error) {})}
	defer d.cache.Unref()
	note := func(err error) error {
		var corrupt *storage.CorruptError
		if errors.As(err, &corrupt) {
			damage = append(damage, corrupt)
			return nil
		}
		return err
	}
	if desc, err := pebble.Peek(dir, fs); err != nil || !desc.Exists {
		if err == nil {
			err = &storage.CorruptError{Path: dir, Detail: "there is no database"}
		}
		return nil, damage, note(d.explainOpen(err))
	}
	ok, err := d.floor.load()
	if err == nil && !ok {
		err = &storage.CorruptError{Path: d.floor.path(), Detail: "the file is missing"}
	}
	if err = note(err); err != nil {
		return nil, damage, err
	}
	opts := d.options(options{memTableBytes: 1 << 20, report: func(string) {}})
	opts.ReadOnly = true
	if d.DB, err = pebble.Open(dir, opts); err != nil {
		return nil, damage, note(d.explainOpen(err))
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if ok {
		if err := note(d.explain(d.floor.check(d))); err != nil {
			return nil, damage, err
		}
	}
	names, err := d.names()
	if err = note(err); err != nil {
		return nil, damage, err
	}
	all := slices.Collect(maps.Values(names)) // order: each number is looked for
	if err := d.verifyShared(all, note); err != nil {
		return nil, damage, err
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		i, err := d.inspect(name, names[name], aux)
		if err != nil {
			return nil, damage, err
		}
		engines = append(engines, i)
	}
	return engines, damage, nil
}

// verifyShared verifies the tables that have keys of none of the engines.
func (d *database) verifyShared(engines []keyed, note func(error) error) error {
	own := make(map[uint64]bool)
	for _, k := range engines {
		tables, err := d.tables(k)
		if err = note(err); err != nil {
			return err
		}
		for _, number := range tables {
			own[number] = true
		}
	}
	levels, err := d.SSTables()
	if err != nil {
		return note(d.explain(err))
	}
	for _, level := range levels {
		for _, t := range level {
			if number := uint64(t.BackingSSTNum); !own[number] {
				own[number] = true
				if err := note(d.verifyNumbered(number)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (d *database) inspect(name string, k keyed, aux []string) (*storage.Inspection, error) {
	i := &storage.Inspection{Name: name, Aux: make(map[string][]byte)}
	for _, check := range []func(v *view){
		func(v *view) { i.State, i.Applied = v.state().State, v.state().applied },
		func(v *view) { v.fail(d.verifyTables(k)) },
		func(v *view) { v.verify() },
		func(v *view) { v.fail(d.listTables(k, i)) },
		func(v *view) {
			for _, key := range aux {
				if value := v.get(v.text(kindAux, key)); value != nil {
					i.Aux[key] = value
				}
			}
		},
	} {
		v := &view{keyed: k, db: d, r: d.DB}
		check(v)
		var corrupt *storage.CorruptError
		if err := v.close(); errors.As(err, &corrupt) {
			i.Damage = append(i.Damage, corrupt)
		} else if err != nil {
			return nil, err
		}
	}
	return i, nil
}

// listTables lists the files that have keys of the engine, which may have those of others too.
func (d *database) listTables(k keyed, i *storage.Inspection) error {
	tables, err := d.tables(k)
	if err != nil {
		return err
	}
	for _, number := range tables {
		name := fmt.Sprintf("%06d.sst", number)
		f := storage.InspectedFile{Name: name}
		if info, err := d.fs.Stat(d.fs.PathJoin(d.dir, name)); err == nil {
			f.Bytes = info.Size()
		}
		i.Files = append(i.Files, f)
	}
	return nil
}
