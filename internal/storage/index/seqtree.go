package index

import (
	"slices"
	"sort"
)

// seqTree is a persistent B+ tree of entries by sequence. Entries are added at the end only, and
// removed anywhere.
//
// A node belongs to the tree that has its owner number. A tree changes its own nodes in place and
// copies others first, so that trees cloned from one another share what they have in common.
type seqTree struct {
	owner uint64
	root  *seqInner
}

// seqInner is an inner node. Its children are all leaves or all inner nodes.
type seqInner struct {
	owner  uint64
	mins   []uint64 // no sequence in a child is below its min; they ascend
	counts []uint64 // entries in each child
	leaves []*seqLeaf
	inners []*seqInner
}

const (
	fanout     = 32 // children of an inner node at most
	fanoutMin  = 8  // a node with fewer joins a neighbour if they come to fanoutJoin
	fanoutJoin = 24
)

func newSeqTree(owner uint64) seqTree { return seqTree{owner: owner, root: &seqInner{owner: owner}} }

func (t *seqTree) clone(owner uint64) seqTree { return seqTree{owner: owner, root: t.root} }

func (t *seqTree) len() uint64 {
	n := uint64(0)
	for _, c := range t.root.counts {
		n += c
	}
	return n
}

// child returns which child has the sequence, if any has.
func (n *seqInner) child(seq uint64) int {
	lo, hi := 0, len(n.mins)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.mins[mid] <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return max(lo-1, 0)
}

// find returns the leaf and row of a sequence.
func (t *seqTree) find(seq uint64) (*seqLeaf, int, bool) {
	n := t.root
	for len(n.inners) > 0 {
		n = n.inners[n.child(seq)]
	}
	if len(n.leaves) == 0 {
		return nil, 0, false
	}
	l := n.leaves[n.child(seq)]
	i := l.search(colSeq, seq)
	return l, i, i < l.len() && l.get(i, colSeq) == seq
}

func (t *seqTree) get(seq uint64) (Entry, bool) {
	l, i, ok := t.find(seq)
	if !ok {
		return Entry{}, false
	}
	e := l.entry(i)
	prefix, rest := l.subject(i)
	b := make([]byte, len(prefix)+len(rest))
	copy(b[copy(b, prefix):], rest)
	e.Subject = bytesAsString(b)
	return e, true
}

// compare compares a key with the subject of a sequence, which is there.
func (t *seqTree) compare(key string, seq uint64) int {
	l, i, _ := t.find(seq)
	prefix, rest := l.subject(i)
	p := bytesAsString(prefix)
	if len(key) < len(p) || key[:len(p)] != p {
		if key < p {
			return -1
		}
		return 1
	}
	key, r := key[len(p):], bytesAsString(rest)
	switch {
	case key < r:
		return -1
	case key > r:
		return 1
	}
	return 0
}

// appendSubject appends the subject of a sequence, which is there, to buf.
func (t *seqTree) appendSubject(buf []byte, seq uint64) []byte {
	l, i, _ := t.find(seq)
	prefix, rest := l.subject(i)
	return append(append(buf, prefix...), rest...)
}

// own returns a node that the tree may change.
func (t *seqTree) own(n *seqInner) *seqInner {
	if n.owner == t.owner {
		return n
	}
	return &seqInner{
		owner:  t.owner,
		mins:   slices.Clone(n.mins),
		counts: slices.Clone(n.counts),
		leaves: slices.Clone(n.leaves),
		inners: slices.Clone(n.inners),
	}
}

func (t *seqTree) ownLeaf(l *seqLeaf, more int) *seqLeaf {
	if l.owner == t.owner {
		return l
	}
	return l.cloneFor(t.owner, more)
}

func (n *seqInner) size() int { return len(n.mins) }

func (n *seqInner) total() uint64 {
	sum := uint64(0)
	for _, c := range n.counts {
		sum += c
	}
	return sum
}

// append adds an entry, whose sequence is above all others.
func (t *seqTree) append(e *Entry) {
	t.root = t.own(t.root)
	if extra := t.appendTo(t.root, e); extra != nil {
		old := t.root
		t.root = &seqInner{
			owner:  t.owner,
			mins:   []uint64{0, e.Seq},
			counts: []uint64{old.total(), 1},
			inners: []*seqInner{old, extra},
		}
	}
}

// appendTo adds an entry under n, which is owned. If there is no room, it returns a node to stand
// beside n, with the entry alone.
func (t *seqTree) appendTo(n *seqInner, e *Entry) (extra *seqInner) {
	last := n.size() - 1
	if len(n.inners) > 0 {
		n.inners[last] = t.own(n.inners[last])
		if extra = t.appendTo(n.inners[last], e); extra == nil {
			n.counts[last]++
			return nil
		}
	} else if last >= 0 && n.leaves[last].len() < seqLeafRows {
		n.leaves[last] = t.ownLeaf(n.leaves[last], 1)
		n.leaves[last].add(e)
		n.counts[last]++
		return nil
	}
	if last >= 0 && len(n.leaves) > 0 && n.leaves[last].owner == t.owner {
		n.leaves[last].seal()
	}
	if n.size() == fanout {
		beside := &seqInner{owner: t.owner}
		beside.push(t, e, extra)
		return beside
	}
	n.push(t, e, extra)
	return nil
}

// push adds a child for the entry alone: the given one, or a new leaf.
func (n *seqInner) push(t *seqTree, e *Entry, inner *seqInner) {
	n.mins = append(n.mins, e.Seq)
	n.counts = append(n.counts, 1)
	if inner != nil {
		n.inners = append(n.inners, inner)
		return
	}
	l := &seqLeaf{owner: t.owner}
	l.add(e)
	n.leaves = append(n.leaves, l)
}

// remove takes out a sequence, which is there.
func (t *seqTree) remove(seq uint64) {
	t.root = t.own(t.root)
	t.removeFrom(t.root, seq)
	for len(t.root.inners) == 1 {
		t.root = t.root.inners[0]
	}
	if t.root.size() == 0 {
		t.root = &seqInner{owner: t.owner}
	}
}

func (t *seqTree) removeFrom(n *seqInner, seq uint64) {
	i := n.child(seq)
	n.counts[i]--
	if len(n.leaves) > 0 {
		l := t.ownLeaf(n.leaves[i], 0)
		n.leaves[i] = l
		l.take(l.search(colSeq, seq))
		switch {
		case l.n == 0:
			n.drop(i)
		case l.len() < seqLeafRowsMin:
			t.joinLeaves(n, i)
		}
		return
	}
	c := t.own(n.inners[i])
	n.inners[i] = c
	t.removeFrom(c, seq)
	switch {
	case c.size() == 0:
		n.drop(i)
	case c.size() < fanoutMin:
		t.joinInners(n, i)
	}
}

// drop takes out child i, with its entries.
func (n *seqInner) drop(i int) {
	n.mins = slices.Delete(n.mins, i, i+1)
	n.counts = slices.Delete(n.counts, i, i+1)
	if len(n.leaves) > 0 {
		n.leaves = slices.Delete(n.leaves, i, i+1)
	} else {
		n.inners = slices.Delete(n.inners, i, i+1)
	}
}

// joinLeaves joins leaf i of an owned node with a neighbour, if the two are small enough.
func (t *seqTree) joinLeaves(n *seqInner, i int) {
	for _, left := range [2]int{i, i - 1} {
		if left < 0 || left+1 >= n.size() || n.counts[left]+n.counts[left+1] > seqLeafJoin {
			continue
		}
		n.leaves[left] = n.leaves[left].join(n.leaves[left+1], t.owner)
		n.counts[left] += n.counts[left+1]
		n.drop(left + 1)
		return
	}
}

// joinInners does the same for inner node i.
func (t *seqTree) joinInners(n *seqInner, i int) {
	for _, left := range [2]int{i, i - 1} {
		if left < 0 || left+1 >= n.size() || n.inners[left].size()+n.inners[left+1].size() > fanoutJoin {
			continue
		}
		l, r := t.own(n.inners[left]), n.inners[left+1]
		l.mins = append(l.mins, r.mins...)
		l.counts = append(l.counts, r.counts...)
		l.leaves = append(l.leaves, r.leaves...)
		l.inners = append(l.inners, r.inners...)
		n.inners[left] = l
		n.counts[left] += n.counts[left+1]
		n.drop(left + 1)
		return
	}
}

// move changes where the bytes of a sequence are, if they are at from.
func (t *seqTree) move(seq uint64, from, to Loc) bool {
	if l, i, ok := t.find(seq); !ok || l.entry(i).Loc != from {
		return false
	}
	t.root = t.own(t.root)
	n := t.root
	for len(n.inners) > 0 {
		i := n.child(seq)
		n.inners[i] = t.own(n.inners[i])
		n = n.inners[i]
	}
	i := n.child(seq)
	l := t.ownLeaf(n.leaves[i], 0)
	n.leaves[i] = l
	row := l.search(colSeq, seq)
	if size := l.entry(row).Size; to.Len != from.Len {
		l.set(row, colSize, packSize(size, to.Len))
		l.set(row, colLen, uint64(to.Len))
	}
	l.set(row, colLoc, packLoc(to))
	return true
}

// rank is the number of entries below seq.
func (t *seqTree) rank(seq uint64) uint64 {
	rank := uint64(0)
	for n := t.root; n.size() > 0; {
		i := n.child(seq)
		for _, c := range n.counts[:i] {
			rank += c
		}
		if len(n.leaves) > 0 {
			return rank + uint64(n.leaves[i].search(colSeq, seq))
		}
		n = n.inners[i]
	}
	return rank
}

// firstAt returns the first sequence with a time at or after at.
func (t *seqTree) firstAt(at int64) (uint64, bool) {
	n := t.root
	if n.size() == 0 {
		return 0, false
	}
	// The last child that begins before at has the sequence, or the next one begins with it.
	var next *seqLeaf
	for {
		i := sort.Search(n.size()-1, func(i int) bool { return n.firstLeaf(i+1).time(0) >= at })
		if i+1 < n.size() {
			next = n.firstLeaf(i + 1)
		}
		if len(n.inners) > 0 {
			n = n.inners[i]
			continue
		}
		l := n.leaves[i]
		row := sort.Search(l.len(), func(row int) bool { return l.time(row) >= at })
		if row == l.len() {
			if l, row = next, 0; l == nil {
				return 0, false
			}
		}
		return l.get(row, colSeq), true
	}
}

func (l *seqLeaf) time(i int) int64 { return int64(l.get(i, colTime)) }

func (n *seqInner) firstLeaf(i int) *seqLeaf {
	for len(n.inners) > 0 {
		n, i = n.inners[i], 0
	}
	return n.leaves[i]
}

// first returns the first entry, without its subject.
func (t *seqTree) first() (Entry, bool) {
	if t.root.size() == 0 {
		return Entry{}, false
	}
	return t.root.firstLeaf(0).entry(0), true
}
