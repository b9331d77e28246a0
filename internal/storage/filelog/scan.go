package filelog

import (
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// Bounds of what a scan reads at once.
const (
	scanRecordsMax  = 64
	scanReadMax     = 256 << 10
	scanSkipMax     = 2 << 10 // bytes between two wanted records that are read rather than skipped
	scanRecordBytes = 256     // of the arena that holds the subjects of a batch, to begin with
)

// Scan implements storage.Scanner.
func (e *Engine) Scan(filters []string, from uint64, want int, fn func(m *storage.Message) bool) error {
	for {
		done := false
		err := e.View().scan(filters, from, want, func(m *storage.Message) bool {
			from = m.Seq + 1
			want--
			done = !fn(m)
			return !done
		})
		if err != errGone || done {
			return e.noted(err)
		}
		if e.closed.Load() {
			return errClosed
		}
	}
}

// batch is entries to be read, with their subjects in one place.
type batch struct {
	entries  [scanRecordsMax]index.Entry
	subjects []byte
	ends     [scanRecordsMax]int
	n        int
	bytes    int
}

func (b *batch) add(e *index.Entry) {
	b.entries[b.n] = *e
	b.subjects = append(b.subjects, e.Subject...)
	b.ends[b.n] = len(b.subjects)
	b.n++
	b.bytes += int(e.Loc.Len)
}

func (b *batch) full(want int) bool {
	return b.n == scanRecordsMax || b.n >= want || b.bytes >= scanReadMax
}

func (b *batch) reset() { b.n, b.bytes, b.subjects = 0, 0, b.subjects[:0] }

// subject is the subject of the i-th entry. It is good until the batch is used again.
func (b *batch) subject(i int) []byte {
	begin := 0
	if i > 0 {
		begin = b.ends[i-1]
	}
	return b.subjects[begin:b.ends[i]]
}

func (v *view) scan(filters []string, from uint64, want int, fn func(m *storage.Message) bool) (err error) {
	b := &batch{subjects: make([]byte, 0, scanRecordBytes)}
	more := true
	v.Match(filters, from, func(e *index.Entry) bool {
		b.add(e)
		if b.full(want) {
			want -= b.n
			more, err = v.readBatch(b, fn)
			b.reset()
		}
		return more && err == nil
	})
	if more && err == nil {
		_, err = v.readBatch(b, fn)
	}
	return err
}

// readBatch reads the messages of a batch, neighbours together, and hands them on.
func (v *view) readBatch(b *batch, fn func(m *storage.Message) bool) (more bool, err error) {
	for i := 0; i < b.n; {
		n := v.run(b.entries[i:b.n])
		first, last := &b.entries[i].Loc, &b.entries[i+n-1].Loc
		block := v.block(first.Block)
		if block == nil {
			return false, errGone
		}
		span := v.tail.find(*first)
		if span == nil {
			span = make([]byte, last.Offset+last.Len-first.Offset)
			if err := block.read(span, int64(first.Offset)); err != nil {
				return false, err
			}
		}
		for end := i + n; i < end; i++ {
			e := &b.entries[i]
			e.Subject = string(b.subject(i))
			at := e.Loc.Offset - first.Offset
			m, err := block.message(span[at:at+e.Loc.Len:at+e.Loc.Len], e)
			if err != nil {
				return false, err
			}
			if !fn(&m) {
				return false, nil
			}
		}
	}
	return true, nil
}

// run is how many of the entries, from the first on, are worth reading at once.
func (v *view) run(entries []index.Entry) int {
	first := &entries[0].Loc
	if v.tail.find(*first) != nil {
		return 1 // In memory.
	}
	n := 1
	for end := first.Offset + first.Len; n < len(entries); n++ {
		l := &entries[n].Loc
		if l.Block != first.Block || l.Offset < end || l.Offset-end > scanSkipMax || l.Offset+l.Len-first.Offset > scanReadMax {
			break
		}
		if v.tail.find(*l) != nil {
			break
		}
		end = l.Offset + l.Len
	}
	return n
}
