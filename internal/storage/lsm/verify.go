package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// Verify implements storage.Engine: it reads every block of every table that has keys of the
// engine from the files, past the cache, and then all messages and subjects, and compares what
// they come to with the summary.
func (e *Engine) Verify() error {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return errClosed
	}
	g, v := e.read()
	v.fail(e.db.verifyTables(g.keyed))
	v.verify()
	return e.end(g, v)
}

func (d *database) verifyTables(k keyed) error {
	tables, err := d.tables(k)
	if err != nil {
		return err
	}
	for _, number := range tables {
		err := d.verifyNumbered(number)
		if errors.Is(err, errMissing) {
			// A compaction may have replaced it. If not, it is missed.
			left, err2 := d.tables(k)
			if err2 != nil {
				return err2
			}
			if !slices.Contains(left, number) {
				continue
			}
			return &storage.CorruptError{Path: d.tablePath(number), Detail: "the file is missing"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errMissing = errors.New("storage: the table is not there")

func (d *database) tablePath(number uint64) string {
	return d.fs.PathJoin(d.dir, fmt.Sprintf("%06d.sst", number))
}

// verifyNumbered verifies a table.
func (d *database) verifyNumbered(number uint64) error {
	path := d.tablePath(number)
	switch err := d.verifyTable(path); {
	case err == nil:
		return nil
	case oserror.IsNotExist(err):
		return fmt.Errorf("%w: %s", errMissing, path)
	case pebble.IsCorruptionError(err):
		return &storage.CorruptError{Path: path, Detail: err.Error()}
	default:
		return fmt.Errorf("storage: verify %s: %w", path, err)
	}
}

// tables returns the numbers of the files that have keys of k.
func (d *database) tables(k keyed) ([]uint64, error) {
	lower, upper := k.all()
	levels, err := d.SSTables(pebble.WithKeyRangeFilter(lower, upper))
	if err != nil {
		return nil, d.explain(err)
	}
	var numbers []uint64
	for _, level := range levels {
		for _, t := range level {
			numbers = append(numbers, uint64(t.BackingSSTNum))
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

func (d *database) verifyTable(path string) error {
	f, err := d.fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{})
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

// verify compares the summary with what is there.
func (v *view) verify() {
	want := *v.state()
	found := *emptyState()
	found.LastSeq, found.LastTime, found.FirstSeq = want.LastSeq, want.LastTime, want.LastSeq+1
	c := &seqCursor{v: v, it: v.over(kindMessage)}
	for more := c.Seek(0); more && v.err == nil; more = c.Next() {
		m, ok := decodeMessage(c.Seq(), c.value())
		if !ok {
			v.damaged(c.it.Key(), "a message")
			return
		}
		if found.Msgs == 0 {
			found.FirstSeq, found.FirstTime = m.Seq, m.Time
		}
		found.Msgs++
		found.Bytes += m.Size()
	}
	msgs := uint64(0)
	s := &subjectCursor{v: v, it: v.over(kindSubject)}
	for more := s.Seek(""); more && v.err == nil; more = s.Next() {
		found.Subjects++
		msgs += s.State().Msgs
	}
	if found.State != want.State || msgs != want.Msgs {
		v.fail(&storage.CorruptError{
			Path:   v.db.dir,
			Detail: fmt.Sprintf("engine %d holds %+v with %d messages in subjects, where its summary says %+v", v.keyed, found.State, msgs, want.State),
		})
	}
}
