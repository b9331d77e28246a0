package index

import (
	"slices"
	"sort"

	"github.com/tidwall/btree"

	"github.com/cleatkv/cleat/internal/storage"
)

var treeOptions = btree.Options{NoLocks: true}

// seqTree holds the entries in sequence order.
type seqTree struct{ t *btree.BTreeG[Entry] }

func newSeqTree() seqTree {
	return seqTree{btree.NewBTreeGOptions(func(a, b Entry) bool { return a.Seq < b.Seq }, treeOptions)}
}

func (t seqTree) clone() seqTree { return seqTree{t.t.Copy()} }
func (t seqTree) len() uint64    { return uint64(t.t.Len()) }

func (t seqTree) get(seq uint64) (Entry, bool)    { return t.t.Get(Entry{Seq: seq}) }
func (t seqTree) first() (Entry, bool)            { return t.t.Min() }
func (t seqTree) append(e Entry)                  { t.t.Set(e) }
func (t seqTree) remove(seq uint64) (Entry, bool) { return t.t.Delete(Entry{Seq: seq}) }

func (t seqTree) move(seq uint64, from, to Loc) bool {
	e, ok := t.get(seq)
	if !ok || e.Loc != from {
		return false
	}
	e.Loc = to
	t.t.Set(e)
	return true
}

func (t seqTree) ascend(from uint64, fn func(e *Entry) bool) {
	t.t.Ascend(Entry{Seq: from}, func(e Entry) bool { return fn(&e) })
}

func (t seqTree) descend(from uint64, fn func(e *Entry) bool) {
	t.t.Descend(Entry{Seq: from}, func(e Entry) bool { return fn(&e) })
}

// rank is the number of entries below seq.
func (t seqTree) rank(seq uint64) uint64 {
	n := sort.Search(t.t.Len(), func(i int) bool {
		e, _ := t.t.GetAt(i)
		return e.Seq >= seq
	})
	return uint64(n)
}

// firstAt returns the first sequence with a time at or after at.
func (t seqTree) firstAt(at int64) (uint64, bool) {
	n := sort.Search(t.t.Len(), func(i int) bool {
		e, _ := t.t.GetAt(i)
		return e.Time >= at
	})
	e, ok := t.t.GetAt(n)
	return e.Seq, ok
}

// subjectItem is one subject with its sequences, of which first and last stand for themselves
// while there are no more than two.
type subjectItem struct {
	subject string
	state   storage.SubjectState
	all     []uint64 // all sequences if there are more than two; shared, never changed in place
}

type subjectTree struct{ t *btree.BTreeG[subjectItem] }

func newSubjectTree() subjectTree {
	return subjectTree{btree.NewBTreeGOptions(func(a, b subjectItem) bool { return a.subject < b.subject }, treeOptions)}
}

func (t subjectTree) clone() subjectTree { return subjectTree{t.t.Copy()} }
func (t subjectTree) len() uint64        { return uint64(t.t.Len()) }

func (t subjectTree) get(subject string) (subjectItem, bool) {
	return t.t.Get(subjectItem{subject: subject})
}

// seqs returns all sequences of the item, ascending.
func (it *subjectItem) seqs() []uint64 {
	switch it.state.Msgs {
	case 1:
		return []uint64{it.state.First}
	case 2:
		return []uint64{it.state.First, it.state.Last}
	}
	return it.all
}

func (t subjectTree) put(subject string, seqs []uint64) {
	it := subjectItem{subject: subject, state: storage.SubjectState{
		Msgs:  uint64(len(seqs)),
		First: seqs[0],
		Last:  seqs[len(seqs)-1],
	}}
	if len(seqs) > 2 {
		it.all = seqs
	}
	t.t.Set(it)
}

func (t subjectTree) add(subject string, seq uint64) {
	it, ok := t.get(subject)
	if !ok {
		t.put(subject, []uint64{seq})
		return
	}
	t.put(subject, append(slices.Clone(it.seqs()), seq))
}

func (t subjectTree) drop(subject string, seq uint64) {
	it, _ := t.get(subject)
	if it.state.Msgs == 1 {
		t.t.Delete(it)
		return
	}
	seqs := slices.Clone(it.seqs())
	i, _ := slices.BinarySearch(seqs, seq)
	t.put(subject, slices.Delete(seqs, i, i+1))
}

// subjectCursor walks the subjects in byte order.
type subjectCursor struct{ it btree.IterG[subjectItem] }

func (t subjectTree) cursor() *subjectCursor { return &subjectCursor{t.t.Iter()} }

func (c *subjectCursor) seek(key string) bool        { return c.it.Seek(subjectItem{subject: key}) }
func (c *subjectCursor) next() bool                  { return c.it.Next() }
func (c *subjectCursor) key() string                 { return c.it.Item().subject }
func (c *subjectCursor) state() storage.SubjectState { return c.it.Item().state }

// expiry is a message that expires by itself.
type expiry struct {
	at  int64
	seq uint64
}

type expiryTree struct{ t *btree.BTreeG[expiry] }

func newExpiryTree() expiryTree {
	return expiryTree{btree.NewBTreeGOptions(func(a, b expiry) bool {
		return a.at < b.at || a.at == b.at && a.seq < b.seq
	}, treeOptions)}
}

func (t expiryTree) clone() expiryTree     { return expiryTree{t.t.Copy()} }
func (t expiryTree) set(e expiry)          { t.t.Set(e) }
func (t expiryTree) delete(e expiry)       { t.t.Delete(e) }
func (t expiryTree) first() (expiry, bool) { return t.t.Min() }

type auxItem struct {
	key   string
	value []byte
}

type auxTree struct{ t *btree.BTreeG[auxItem] }

func newAuxTree() auxTree {
	return auxTree{btree.NewBTreeGOptions(func(a, b auxItem) bool { return a.key < b.key }, treeOptions)}
}

func (t auxTree) clone() auxTree               { return auxTree{t.t.Copy()} }
func (t auxTree) set(key string, value []byte) { t.t.Set(auxItem{key, value}) }
func (t auxTree) delete(key string)            { t.t.Delete(auxItem{key: key}) }
func (t auxTree) get(key string) ([]byte, bool) {
	it, ok := t.t.Get(auxItem{key: key})
	return it.value, ok
}
