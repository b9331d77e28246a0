// Package index is the ordered in-memory index that the memory and filelog engines share. It finds
// messages by sequence, subject, wildcard, time and expiry, and keeps the auxiliary records; where
// the messages' bytes are is a Loc, whose meaning is the engine's.
//
// An Index is a persistent data structure: Clone is O(1), and changes to the clone copy the nodes
// they touch. An engine publishes an Index (see Current) and never changes it once a reader has it;
// its readers need no lock, see one state for as long as they hold it, and may take their time. A
// change is made to a clone, and published or dropped; or in place, if no reader has the Index.
package index

import (
	"fmt"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/storage"
)

// Loc says where a message's bytes are.
type Loc struct {
	Block  uint32
	Offset uint32
	Len    uint32
}

// Entry is what the index knows of a message.
type Entry struct {
	Seq     uint64
	Time    int64
	Expires int64
	Size    uint64 // storage.Message.Size
	Loc     Loc
	Subject string
}

// Index is the index of one stream. The zero value is not usable; see New.
type Index struct {
	seqs     seqTree
	subjects subjectTree
	expiry   expiryTree
	aux      auxTree

	bytes    uint64
	lastSeq  uint64
	lastTime int64
	applied  storage.Applied

	ownExpiry, ownAux bool   // whether that tree was cloned: most changes touch neither
	key               []byte // scratch memory for changes
}

// owners numbers the indexes that may change nodes; a number says no more than "mine or not".
var owners atomic.Uint64

// New returns an empty index.
func New() *Index {
	owner := owners.Add(1)
	return &Index{
		seqs:     newSeqTree(owner),
		subjects: newSubjectTree(owner),
		expiry:   newExpiryTree(),
		aux:      newAuxTree(),
	}
}

// Clone returns an index that can be changed, by one goroutine, until it is frozen. x must not be
// changed any more.
func (x *Index) Clone() *Index {
	c := *x
	owner := owners.Add(1)
	c.seqs = x.seqs.clone(owner)
	c.subjects = x.subjects.clone(owner)
	c.subjects.hint = &hint{}
	c.ownExpiry, c.ownAux = false, false
	c.key = nil
	return &c
}

// Edit returns what one goroutine can change until it is frozen: x itself if nobody else has it, or a
// clone.
func (x *Index) Edit(sole bool) *Index {
	if !sole {
		return x.Clone()
	}
	x.subjects.hint = &hint{}
	return x
}

// Freeze ends the changes: x may be read by many from now on.
func (x *Index) Freeze() { x.subjects.hint = nil }

// Append adds an entry at the end.
func (x *Index) Append(e Entry) error {
	if e.Seq <= x.lastSeq {
		return fmt.Errorf("storage: append of sequence %d after %d", e.Seq, x.lastSeq)
	}
	if e.Time <= x.lastTime && x.lastTime != 0 {
		return fmt.Errorf("storage: append of sequence %d: time %d is not after %d", e.Seq, e.Time, x.lastTime)
	}
	if e.Expires < storage.NeverExpires {
		return fmt.Errorf("storage: append of sequence %d: it expires at %d", e.Seq, e.Expires)
	}
	x.subjects.add(e.Subject, e.Seq, &x.seqs)
	x.seqs.append(&e)
	if e.Expires > 0 {
		x.expiring().set(expiry{at: e.Expires, seq: e.Seq})
	}
	x.bytes += e.Size
	x.lastSeq = e.Seq
	x.lastTime = e.Time
	return nil
}

// Remove drops the entry of seq and returns it, without its subject.
func (x *Index) Remove(seq uint64) (Entry, bool) {
	l, i, ok := x.seqs.find(seq)
	if !ok {
		return Entry{}, false
	}
	e := l.entry(i)
	prefix, rest := l.subject(i)
	x.key = append(append(x.key[:0], prefix...), rest...)
	x.subjects.drop(bytesAsString(x.key), seq, &x.seqs) // It looks for the subject at seq.
	x.seqs.remove(seq)
	if e.Expires > 0 {
		x.expiring().delete(expiry{at: e.Expires, seq: seq})
	}
	x.bytes -= e.Size
	return e, true
}

// Move changes where the bytes of seq are, if they are at from.
func (x *Index) Move(seq uint64, from, to Loc) bool {
	return x.seqs.move(seq, from, to)
}

// SkipTo raises the last sequence.
func (x *Index) SkipTo(seq uint64) error {
	if seq < x.lastSeq {
		return fmt.Errorf("storage: skip to sequence %d after %d", seq, x.lastSeq)
	}
	x.lastSeq = seq
	return nil
}

// SetLast sets the last sequence and time of an index that is being rebuilt.
func (x *Index) SetLast(seq uint64, time int64) {
	x.lastSeq = seq
	x.lastTime = time
}

// SetApplied records the position in the log. The caller does not change at.Conf afterwards.
func (x *Index) SetApplied(at storage.Applied) { x.applied = at }

// Applied is the position last set.
func (x *Index) Applied() storage.Applied { return x.applied }

// Err is nil: looking something up in memory does not fail.
func (x *Index) Err() error { return nil }

// SetAux stores an auxiliary record. The caller does not change value afterwards.
func (x *Index) SetAux(key string, value []byte) { x.auxiliary().set(key, value) }

// DeleteAux removes an auxiliary record.
func (x *Index) DeleteAux(key string) { x.auxiliary().delete(key) }

// expiring and auxiliary return the trees for changes.
func (x *Index) expiring() expiryTree {
	if !x.ownExpiry {
		x.expiry, x.ownExpiry = x.expiry.clone(), true
	}
	return x.expiry
}

func (x *Index) auxiliary() auxTree {
	if !x.ownAux {
		x.aux, x.ownAux = x.aux.clone(), true
	}
	return x.aux
}

// State implements storage.Reader.
func (x *Index) State() storage.State {
	s := storage.State{
		Msgs:     x.seqs.len(),
		Bytes:    x.bytes,
		FirstSeq: x.lastSeq + 1,
		LastSeq:  x.lastSeq,
		LastTime: x.lastTime,
		Subjects: x.subjects.len(),
	}
	if e, ok := x.seqs.first(); ok {
		s.FirstSeq = e.Seq
		s.FirstTime = e.Time
	}
	return s
}

// Get returns the entry of a sequence.
func (x *Index) Get(seq uint64) (Entry, bool) { return x.seqs.get(seq) }

// IsAt tells whether the bytes of seq are at loc.
func (x *Index) IsAt(seq uint64, loc Loc) bool {
	l, i, ok := x.seqs.find(seq)
	return ok && l.loc(i) == loc
}

// Ascend calls fn for the entries at or above from, ascending, until fn returns false. fn must
// not keep e or its subject.
func (x *Index) Ascend(from uint64, fn func(e *Entry) bool) {
	c := x.seqs.cursor()
	for ok := c.Seek(from); ok; ok = c.Next() {
		if e := c.entry(); !fn(&e) {
			return
		}
	}
}
