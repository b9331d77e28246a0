package lsm

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cleatkv/cleat/internal/storage"
)

var _ storage.Scrubber = (*Engine)(nil)

// Scrub implements storage.Scrubber: it reads whole tables, so perhaps more than limit. A table that several
// engines have keys in is read for the one with the first of them.
func (e *Engine) Scrub(limit int64) (read int64, done bool, err error) {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return 0, false, errClosed
	}
	g, v := e.read()
	defer func() { err = errors.Join(err, e.end(g, v)) }()
	tables, err := e.db.ownTables(g.keyed)
	if err != nil {
		v.fail(err)
		return 0, false, nil
	}
	for _, t := range tables {
		number := uint64(t.BackingSSTNum)
		if number <= e.scrubbed {
			continue
		}
		if read >= limit {
			return read, false, nil
		}
		read += int64(t.Size)
		e.scrubbed = number
		if err := e.db.verifyNumbered(number); err != nil && !errors.Is(err, errMissing) { // It may have been compacted.
			v.fail(err)
			return read, false, nil
		}
	}
	e.scrubbed = 0
	return read, true, nil
}

// ownTables lists the tables whose first key is one of k, by number.
func (d *database) ownTables(k keyed) ([]pebble.SSTableInfo, error) {
	lower, upper := k.all()
	levels, err := d.SSTables(pebble.WithKeyRangeFilter(lower, upper))
	if err != nil {
		return nil, d.explain(err)
	}
	var own []pebble.SSTableInfo
	for _, level := range levels {
		for _, t := range level {
			if bytes.HasPrefix(t.Smallest.UserKey, lower) {
				own = append(own, t)
			}
		}
	}
	slices.SortFunc(own, func(a, b pebble.SSTableInfo) int { return cmp.Compare(a.BackingSSTNum, b.BackingSSTNum) })
	return own, nil
}
