package index

import "github.com/tidwall/btree"

var treeOptions = btree.Options{NoLocks: true}

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
