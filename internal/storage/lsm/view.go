package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/search"
)

// view reads one state of an engine for the length of one operation: all its iterators see the
// database as it was when the first was made. It collects the error that made an answer
// impossible; the answer is then worthless, and its receiver has to ask.
type view struct {
	keyed
	db    *database
	r     pebble.Reader // the database, or an open change
	st    *state        // if it is known without looking
	iters []*pebble.Iterator
	point *pebble.Iterator // over all keys, for look-ups
	err   error
}

var _ search.Source = (*view)(nil)

// fail remembers the first error.
func (v *view) fail(err error) {
	if err != nil && v.err == nil {
		v.err = v.db.explain(err)
	}
}

func (v *view) damaged(key []byte, what string) {
	v.fail(&storage.CorruptError{Path: v.db.dir, Detail: fmt.Sprintf("%s does not decode: key %x", what, key)})
}

// close ends the operation and returns the error it met.
func (v *view) close() error {
	for _, it := range v.iters {
		v.fail(it.Close())
	}
	v.iters = nil
	return v.err
}

// iter returns a new iterator within bounds; nil after an error.
func (v *view) iter(lower, upper []byte) *pebble.Iterator {
	if v.err != nil {
		return nil
	}
	opts := pebble.IterOptions{LowerBound: lower, UpperBound: upper}
	var it *pebble.Iterator
	var err error
	if len(v.iters) == 0 {
		it, err = v.r.NewIter(&opts)
	} else {
		it, err = v.iters[0].Clone(pebble.CloneOptions{IterOptions: &opts})
	}
	if err != nil {
		v.fail(err)
		return nil
	}
	v.iters = append(v.iters, it)
	return it
}

// over returns a new iterator over the keys of a kind; nil after an error.
func (v *view) over(kind byte) *pebble.Iterator { return v.iter(v.kind(kind), v.kind(kind+1)) }

// seek moves the look-up iterator to the first key at or above key, and tells whether that begins
// with prefix. It goes no further than the keys that do: what was removed of those that follow is
// in the way until the database has compacted it, and may be very much.
func (v *view) seek(key, prefix []byte) bool {
	return v.opened() && v.landed(v.point.SeekGEWithLimit(key, after(prefix)), prefix)
}

// next moves the look-up iterator on, as far as keys begin with prefix.
func (v *view) next(prefix []byte) bool {
	return v.landed(v.point.NextWithLimit(after(prefix)), prefix)
}

// seekBelow moves the look-up iterator to the last key below key, and tells whether that begins with prefix.
func (v *view) seekBelow(key, prefix []byte) bool {
	return v.opened() && v.landed(v.point.SeekLTWithLimit(key, prefix), prefix)
}

// opened makes the look-up iterator, unless there is one. It returns false after an error.
func (v *view) opened() bool {
	if v.point == nil {
		v.point = v.iter(v.all())
	}
	return v.point != nil
}

func (v *view) landed(at pebble.IterValidityState, prefix []byte) bool {
	if at == pebble.IterExhausted {
		v.fail(v.point.Error())
	}
	return at == pebble.IterValid && bytes.HasPrefix(v.point.Key(), prefix)
}

// after returns the first key above all that begin with prefix, which begins with a number and a kind.
func after(prefix []byte) []byte {
	limit := bytes.TrimRight(prefix, "\xff")
	limit = append(make([]byte, 0, len(limit)), limit...)
	limit[len(limit)-1]++
	return limit
}

// get returns a copy of a value, or nil if there is none. It sees the newest state, so an operation
// that gets may do nothing else that depends on the same state.
func (v *view) get(key []byte) []byte {
	value, closer, err := v.r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		v.fail(err)
		return nil
	}
	value = append([]byte{}, value...)
	v.fail(closer.Close())
	return value
}

// find returns a value as of the operation's state, or nil; it is good until the next find.
func (v *view) find(key []byte) []byte {
	if !v.opened() || !v.landed(v.point.SeekGEWithLimit(key, append(key, 0)), key) || len(v.point.Key()) != len(key) {
		return nil
	}
	value, err := v.point.ValueAndErr()
	v.fail(err)
	return value
}

// state returns the summary as of the operation's state.
func (v *view) state() *state {
	if v.st != nil {
		return v.st
	}
	v.st = emptyState()
	if value := v.find(v.kind(kindState)); value != nil {
		st, ok := decodeState(value)
		if !ok {
			v.damaged(v.kind(kindState), "the state")
			return v.st
		}
		v.st = st
	}
	return v.st
}

func (v *view) State() storage.State { return v.state().State }

// message loads a message; nil if it is not there.
func (v *view) message(seq uint64) *storage.Message {
	key := v.seq(kindMessage, seq)
	value := v.get(key)
	if value == nil {
		return nil
	}
	m, ok := decodeMessage(seq, value)
	if !ok {
		v.damaged(key, "a message")
		return nil
	}
	return &m
}

// Subject looks up a subject as of the operation's state.
func (v *view) Subject(subject string) (storage.SubjectState, bool) {
	key := v.text(kindSubject, subject)
	return v.subjectState(key, v.find(key))
}

// subject is Subject by a get.
func (v *view) subject(subject string) (storage.SubjectState, bool) {
	key := v.text(kindSubject, subject)
	return v.subjectState(key, v.get(key))
}

func (v *view) subjectState(key, value []byte) (storage.SubjectState, bool) {
	if value == nil {
		return storage.SubjectState{}, false
	}
	s, ok := decodeSubjectState(value)
	if !ok {
		v.damaged(key, "a subject's state")
	}
	return s, ok
}

// SubjectSeqs calls fn for the sequences of a subject.
func (v *view) SubjectSeqs(subject string, from uint64, fn func(uint64) bool) {
	if s, ok := v.Subject(subject); ok {
		v.seqsOf(subject, s, from, fn)
	}
}

// seqsOf is SubjectSeqs for a subject whose state is known.
func (v *view) seqsOf(subject string, s storage.SubjectState, from uint64, fn func(uint64) bool) {
	switch {
	case s.Last < from:
	case s.Msgs > 2:
		prefix := v.history(subject)
		for ok := v.seek(binary.BigEndian.AppendUint64(prefix, max(from, s.First)), prefix); ok && fn(lastSeqOf(v.point.Key())); {
			ok = v.next(prefix)
		}
	case s.First >= from && !fn(s.First):
	case s.Msgs == 2:
		fn(s.Last)
	}
}

// NextOf returns the oldest sequence of a subject at or above from.
func (v *view) NextOf(subject string, from uint64) (seq uint64, ok bool) {
	v.SubjectSeqs(subject, from, func(s uint64) bool {
		seq, ok = s, true
		return false
	})
	return seq, ok
}

// LastOf returns the newest sequence of a subject at or below upTo.
func (v *view) LastOf(subject string, upTo uint64) (uint64, bool) {
	s, ok := v.Subject(subject)
	switch {
	case !ok || s.First > upTo:
		return 0, false
	case s.Last <= upTo:
		return s.Last, true
	case s.Msgs == 2:
		return s.First, true
	}
	prefix := v.history(subject)
	seq := s.First
	if v.seekBelow(binary.BigEndian.AppendUint64(prefix, upTo+1), prefix) {
		seq = lastSeqOf(v.point.Key())
	}
	return seq, true
}

// Tail is about how many messages there are at or above from.
func (v *view) Tail(from uint64) uint64 {
	st := v.State()
	if from > st.LastSeq {
		return 0
	}
	return min(st.LastSeq-from+1, st.Msgs)
}

// firstAt returns the first sequence with a time at or after t, by halves of the sequences.
func (v *view) firstAt(t int64) uint64 {
	st := v.State()
	c := &seqCursor{v: v, it: v.over(kindMessage)}
	if st.Msgs == 0 || st.LastTime < t {
		return st.LastSeq + 1
	}
	span := int(st.LastSeq - st.FirstSeq + 1)
	n := sort.Search(span, func(i int) bool {
		return !c.Seek(st.FirstSeq+uint64(i)) || c.time() >= t
	})
	if !c.Seek(st.FirstSeq + uint64(n)) {
		return st.LastSeq + 1
	}
	return c.Seq()
}

// SeqCursor returns a cursor over the messages, which ends with the operation.
func (v *view) SeqCursor() search.SeqCursor {
	return &seqCursor{v: v, it: v.over(kindMessage)}
}

// SubjectCursor returns a cursor over the subjects, which ends with the operation.
func (v *view) SubjectCursor() search.SubjectCursor {
	return &subjectCursor{v: v, it: v.over(kindSubject)}
}

// seqCursor walks the messages. After an error it is at none.
type seqCursor struct {
	v  *view
	it *pebble.Iterator // nil after an error
}

func (c *seqCursor) at(ok bool) bool {
	if !ok {
		c.v.fail(c.it.Error())
	}
	return ok
}

func (c *seqCursor) Seek(seq uint64) bool {
	return c.it != nil && c.at(c.it.SeekGE(c.v.seq(kindMessage, seq)))
}

func (c *seqCursor) SeekBack(seq uint64) bool {
	if seq == 1<<64-1 {
		return c.it != nil && c.at(c.it.Last())
	}
	return c.it != nil && c.at(c.it.SeekLT(c.v.seq(kindMessage, seq+1)))
}

func (c *seqCursor) Next() bool  { return c.at(c.it.Next()) }
func (c *seqCursor) Prev() bool  { return c.at(c.it.Prev()) }
func (c *seqCursor) Seq() uint64 { return lastSeqOf(c.it.Key()) }

func (c *seqCursor) value() []byte {
	value, err := c.it.ValueAndErr()
	c.v.fail(err)
	return value
}

// Subject returns "" after an error.
func (c *seqCursor) Subject() string {
	s, ok := decodeSubject(c.value())
	if !ok {
		c.v.damaged(c.it.Key(), "a message")
	}
	return string(s)
}

func (c *seqCursor) time() int64 {
	m, ok := decodeMessage(0, c.value())
	if !ok {
		c.v.damaged(c.it.Key(), "a message")
	}
	return m.Time
}

// subjectCursor walks the subjects. After an error it is at none.
type subjectCursor struct {
	v  *view
	it *pebble.Iterator // nil after an error
}

func (c *subjectCursor) at(ok bool) bool {
	if !ok {
		c.v.fail(c.it.Error())
	}
	return ok
}

func (c *subjectCursor) Seek(key string) bool {
	return c.it != nil && c.at(c.it.SeekGE(c.v.text(kindSubject, key)))
}

func (c *subjectCursor) Next() bool  { return c.at(c.it.Next()) }
func (c *subjectCursor) Key() string { return string(c.it.Key()[9:]) }

func (c *subjectCursor) State() storage.SubjectState {
	value, err := c.it.ValueAndErr()
	c.v.fail(err)
	s, ok := decodeSubjectState(value)
	if !ok {
		c.v.damaged(c.it.Key(), "a subject's state")
	}
	return s
}
