package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/search"
)

// writing is a change to the keys of one number: a batch whose reads see what it holds, and the
// summary that goes with it. An error that a read meets makes the change impossible to commit.
type writing struct {
	keyed
	db    *database
	batch *pebble.Batch
	st    *state
	err   error

	// looked is the subject that was looked up last, as it is now: who judges a message and who
	// stores it both ask, and for a subject that is not there each answer costs a look into every table.
	looked struct {
		known   bool
		subject string
		state   storage.SubjectState
		ok      bool
	}
}

// begin starts a change to a state.
func (d *database) begin(k keyed, st *state) *writing {
	copied := *st
	return &writing{keyed: k, db: d, batch: d.NewIndexedBatch(), st: &copied}
}

// view starts a read within the change, which ends with done.
func (t *writing) view() *view {
	return &view{keyed: t.keyed, db: t.db, r: t.batch, st: t.st}
}

func (t *writing) done(v *view) error {
	err := v.close()
	t.fail(err)
	return err
}

func (t *writing) fail(err error) {
	if err != nil && t.err == nil {
		t.err = t.db.explain(err)
	}
}

func (t *writing) set(key, value []byte) { t.fail(t.batch.Set(key, value, nil)) }
func (t *writing) delete(key []byte)     { t.fail(t.batch.Delete(key, nil)) }

// Append stores a message.
func (t *writing) Append(m storage.Message) error {
	switch {
	case m.Seq <= t.st.LastSeq:
		return fmt.Errorf("storage: append of sequence %d after %d", m.Seq, t.st.LastSeq)
	case m.Time <= t.st.LastTime && t.st.LastTime != 0:
		return fmt.Errorf("storage: append of sequence %d: time %d is not after %d", m.Seq, m.Time, t.st.LastTime)
	case m.Expires < storage.NeverExpires:
		return fmt.Errorf("storage: append of sequence %d: it expires at %d", m.Seq, m.Expires)
	}
	t.set(t.seq(kindMessage, m.Seq), encodeMessage(nil, &m))
	if m.Expires > 0 {
		t.set(t.expiry(m.Expires, m.Seq), nil)
		t.st.expiry.add(m.Expires, m.Seq)
	}
	t.remember(m.Subject, m.Seq)
	if t.st.Msgs == 0 {
		t.st.FirstSeq, t.st.FirstTime = m.Seq, m.Time
	}
	t.st.Msgs++
	t.st.Bytes += m.Size()
	t.st.LastSeq, t.st.LastTime = m.Seq, m.Time
	return t.err
}

// remember adds a sequence to its subject. First and last stand in the subject's state; a history
// is kept only while there are more.
func (t *writing) remember(subject string, seq uint64) {
	s, ok := t.Subject(subject)
	prefix := t.history(subject)
	switch {
	case !ok:
		s.First = seq
		t.st.Subjects++
	case s.Msgs == 2:
		t.set(binary.BigEndian.AppendUint64(prefix, s.First), nil)
		t.set(binary.BigEndian.AppendUint64(prefix, s.Last), nil)
		fallthrough
	case s.Msgs > 2:
		t.set(binary.BigEndian.AppendUint64(prefix, seq), nil)
	}
	s.Last = seq
	s.Msgs++
	t.setSubject(subject, s)
}

// forget takes a sequence from its subject.
func (t *writing) forget(subject string, seq uint64) {
	s, ok := t.Subject(subject)
	if !ok {
		t.fail(&storage.CorruptError{Path: t.db.dir, Detail: fmt.Sprintf("message %d has a subject that is not known: %s", seq, subject)})
		return
	}
	prefix := t.history(subject)
	s.Msgs--
	switch {
	case s.Msgs == 0:
		t.deleteSubject(subject)
		t.st.Subjects--
		return
	case s.Msgs == 1 && seq == s.First:
		s.First = s.Last
	case s.Msgs == 1:
		s.Last = s.First
	default:
		t.delete(binary.BigEndian.AppendUint64(prefix, seq))
		v := t.view()
		if seq == s.First && v.seek(binary.BigEndian.AppendUint64(prefix, seq), prefix) {
			s.First = lastSeqOf(v.point.Key())
		}
		if seq == s.Last && v.seekBelow(binary.BigEndian.AppendUint64(prefix, seq), prefix) {
			s.Last = lastSeqOf(v.point.Key())
		}
		_ = t.done(v) // Commit fails if this did.
		if s.Msgs == 2 {
			t.delete(binary.BigEndian.AppendUint64(prefix, s.First))
			t.delete(binary.BigEndian.AppendUint64(prefix, s.Last))
		}
	}
	t.setSubject(subject, s)
}

// Remove deletes a message.
func (t *writing) Remove(seq uint64) (bool, error) {
	v := t.view()
	m := v.message(seq)
	if err := t.done(v); err != nil || m == nil {
		return false, err
	}
	t.delete(t.seq(kindMessage, seq))
	if m.Expires > 0 {
		t.delete(t.expiry(m.Expires, seq))
		t.st.expiry.remove(seq)
	}
	t.forget(m.Subject, seq)
	t.st.Msgs--
	t.st.Bytes -= m.Size()
	if seq == t.st.FirstSeq {
		t.seekFirst(seq + 1)
	}
	return t.err == nil, t.err
}

// seekFirst looks for the first message at or above seq.
func (t *writing) seekFirst(seq uint64) {
	t.st.FirstSeq, t.st.FirstTime = t.st.LastSeq+1, 0
	if t.st.Msgs == 0 {
		return
	}
	v := t.view()
	c := &seqCursor{v: v, it: v.over(kindMessage)}
	if c.Seek(seq) {
		t.st.FirstSeq, t.st.FirstTime = c.Seq(), c.time()
	}
	_ = t.done(v) // Commit fails if this did.
}

// Erase is Remove that has the next checkpoint get rid of the message's bytes.
func (t *writing) Erase(seq uint64) (bool, error) {
	was, err := t.Remove(seq)
	if was {
		t.set(t.seq(kindErased, seq), nil)
	}
	return was, err
}

// SkipTo raises the last sequence.
func (t *writing) SkipTo(seq uint64) error {
	if seq < t.st.LastSeq {
		return fmt.Errorf("storage: skip to sequence %d after %d", seq, t.st.LastSeq)
	}
	t.setLast(seq, t.st.LastTime)
	return nil
}

func (t *writing) setLast(seq uint64, time int64) {
	t.st.LastSeq, t.st.LastTime = seq, time
	if t.st.Msgs == 0 {
		t.st.FirstSeq = seq + 1
	}
}

// SetAux stores an auxiliary record.
func (t *writing) SetAux(key string, value []byte) { t.set(t.text(kindAux, key), value) }

// DeleteAux removes an auxiliary record.
func (t *writing) DeleteAux(key string) { t.delete(t.text(kindAux, key)) }

// write writes the change, with its position, to the database.
func (t *writing) write(at storage.Applied) error {
	at.Conf = bytes.Clone(at.Conf)
	t.st.applied = at
	t.set(t.kind(kindState), encodeState(t.st))
	if t.err != nil {
		return t.err
	}
	return t.db.apply(t.batch)
}

func (t *writing) release() error { return t.batch.Close() }

// Subject looks up a subject within the change.
func (t *writing) Subject(subject string) (storage.SubjectState, bool) {
	if l := &t.looked; l.known && l.subject == subject {
		return l.state, l.ok
	}
	v := t.view()
	s, ok := v.subject(subject)
	if t.done(v) != nil {
		return s, false
	}
	t.look(subject, s, ok)
	return s, ok
}

func (t *writing) look(subject string, s storage.SubjectState, ok bool) {
	l := &t.looked
	l.known, l.subject, l.state, l.ok = true, subject, s, ok
}

func (t *writing) setSubject(subject string, s storage.SubjectState) {
	t.set(t.text(kindSubject, subject), encodeSubjectState(s))
	t.look(subject, s, true)
}

func (t *writing) deleteSubject(subject string) {
	t.delete(t.text(kindSubject, subject))
	t.look(subject, storage.SubjectState{}, false)
}

// tx is a change to an engine.
type tx struct {
	*writing
	e      *Engine
	erases bool
	ended  bool
}

var _ storage.Tx = (*tx)(nil)

// Begin implements storage.Engine.
func (e *Engine) Begin() storage.Tx {
	e.change.Lock()
	g := e.current.Load()
	return &tx{writing: e.db.begin(g.keyed, g.st), e: e}
}

// Erase implements storage.Tx.
func (t *tx) Erase(seq uint64) (bool, error) {
	was, err := t.writing.Erase(seq)
	t.erases = t.erases || was
	return was, err
}

// Commit implements storage.Tx.
func (t *tx) Commit(at storage.Applied) error {
	e := t.e
	defer t.Discard()
	if e.closed.Load() {
		return errClosed
	}
	if err := errors.Join(t.err, e.Err()); err != nil {
		return err
	}
	size := int64(t.batch.Len())
	if err := t.write(at); err != nil {
		return err
	}
	old := e.current.Load()
	e.current.Store(&generation{keyed: old.keyed, st: t.st, users: old.users})
	e.dirty.Add(size)
	e.erased = e.erased || t.erases
	return nil
}

// Discard implements storage.Tx. After Commit it does nothing.
func (t *tx) Discard() {
	if t.ended {
		return
	}
	t.ended = true
	_ = t.release() // It only gives memory back.
	t.e.change.Unlock()
}

// The reads of a change.

func (t *tx) State() storage.State     { return t.st.State }
func (t *tx) Applied() storage.Applied { return t.st.applied }
func (t *tx) Err() error               { return errors.Join(t.err, t.e.Err()) }

func (t *tx) Load(seq uint64) (storage.Message, error) {
	v := t.view()
	m := v.message(seq)
	if err := t.done(v); err != nil {
		return storage.Message{}, err
	}
	if m == nil {
		return storage.Message{}, storage.ErrNotFound
	}
	return *m, nil
}

func (t *tx) Subjects(filters []string, after string, fn func(string, storage.SubjectState) bool) {
	v := t.view()
	defer t.done(v)
	v.subjects(filters, after, fn)
}

func (t *tx) SubjectSeqs(subject string, from uint64, fn func(uint64) bool) {
	s, ok := t.Subject(subject)
	if !ok {
		return
	}
	v := t.view()
	defer t.done(v)
	v.seqsOf(subject, s, from, fn)
}

func (t *tx) LastSeq(filter string, upTo uint64) (uint64, bool) {
	v := t.view()
	seq, ok := search.LastSeq(v, filter, upTo)
	return seq, t.done(v) == nil && ok
}

func (t *tx) NextSeq(filters []string, from uint64) (uint64, string, bool) {
	v := t.view()
	seq, subject, ok := search.NextSeq(v, filters, from)
	return seq, subject, t.done(v) == nil && ok
}

func (t *tx) Count(filters []string, from uint64, lastOnly bool) uint64 {
	v := t.view()
	n := search.Count(v, filters, from, lastOnly)
	_ = t.done(v) // Commit fails if this did.
	return n
}

func (t *tx) SeqAtTime(at int64) uint64 {
	v := t.view()
	seq := v.firstAt(at)
	_ = t.done(v) // Commit fails if this did.
	return seq
}

func (t *tx) NextExpiry() (uint64, int64, bool) {
	x := &t.st.expiry
	if !x.known {
		v := t.view()
		seq, at, ok := v.nextExpiry(x.at, x.seq)
		if t.done(v) != nil {
			return 0, 0, false
		}
		*x = expiry{known: true, there: ok, at: at, seq: seq}
	}
	if !x.there {
		return 0, 0, false
	}
	return x.seq, x.at, true
}

func (t *tx) Aux(key string) ([]byte, bool) {
	v := t.view()
	value := v.get(t.text(kindAux, key))
	return value, t.done(v) == nil && value != nil
}

func (t *tx) AuxRange(prefix string, fn func(string, []byte) bool) {
	v := t.view()
	defer t.done(v)
	v.auxRange(prefix, fn)
}
