package index

import "sort"

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
	n      int            // number of children
	bottom bool           // the children are leaves
	mins   [fanout]uint64 // no sequence in a child is below its min; they ascend
	counts [fanout]uint64 // entries in each child
	leaves [fanout]*seqLeaf
	inners [fanout]*seqInner
}

const (
	fanout     = 16 // children of an inner node at most
	fanoutMin  = 5  // a node with fewer joins a neighbour if they come to fanoutJoin
	fanoutJoin = 12
)

func newSeqTree(owner uint64) seqTree {
	return seqTree{owner: owner, root: &seqInner{owner: owner, bottom: true}}
}

func (t *seqTree) clone(owner uint64) seqTree { return seqTree{owner: owner, root: t.root} }

func (t *seqTree) len() uint64 { return t.root.total() }

// child returns which child has the sequence, if any has.
func (n *seqInner) child(seq uint64) int {
	lo, hi := 1, n.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.mins[mid] <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// find returns the leaf and row of a sequence.
func (t *seqTree) find(seq uint64) (*seqLeaf, int, bool) {
	n := t.root
	for !n.bottom {
		n = n.inners[n.child(seq)]
	}
	if n.n == 0 {
		return nil, 0, false
	}
	l := n.leaves[n.child(seq)]
	i := l.searchSeq(seq)
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
	c := *n
	c.owner = t.owner
	return &c
}

func (t *seqTree) ownLeaf(l *seqLeaf, more int) *seqLeaf {
	if l.owner == t.owner {
		return l
	}
	return l.cloneFor(t.owner, more)
}

func (n *seqInner) total() uint64 {
	sum := uint64(0)
	for _, c := range n.counts[:n.n] {
		sum += c
	}
	return sum
}

// append adds an entry, whose sequence is above all others.
func (t *seqTree) append(e *Entry) {
	t.root = t.own(t.root)
	if extra := t.appendTo(t.root, e); extra != nil {
		old := t.root
		t.root = &seqInner{owner: t.owner}
		t.root.push(0, old.total(), nil, old)
		t.root.push(e.Seq, 1, nil, extra)
	}
}

// appendTo adds an entry under n, which is owned. If there is no room, it returns a node to stand
// beside n, with the entry alone.
func (t *seqTree) appendTo(n *seqInner, e *Entry) (extra *seqInner) {
	last := n.n - 1
	var leaf *seqLeaf
	switch {
	case !n.bottom:
		n.inners[last] = t.own(n.inners[last])
		if extra = t.appendTo(n.inners[last], e); extra == nil {
			n.counts[last]++
			return nil
		}
	case last >= 0 && n.leaves[last].len() < seqLeafRows:
		n.leaves[last] = t.ownLeaf(n.leaves[last], 1)
		n.leaves[last].add(e)
		n.counts[last]++
		return nil
	default:
		if last >= 0 && n.leaves[last].owner == t.owner {
			n.leaves[last].seal()
		}
		leaf = &seqLeaf{owner: t.owner}
		leaf.add(e)
	}
	if n.n < fanout {
		n.push(e.Seq, 1, leaf, extra)
		return nil
	}
	beside := &seqInner{owner: t.owner, bottom: n.bottom}
	beside.push(e.Seq, 1, leaf, extra)
	return beside
}

// push adds a child, a leaf or an inner node.
func (n *seqInner) push(low, count uint64, leaf *seqLeaf, inner *seqInner) {
	n.mins[n.n], n.counts[n.n], n.leaves[n.n], n.inners[n.n] = low, count, leaf, inner
	n.n++
}

// remove takes out a sequence, which is there.
func (t *seqTree) remove(seq uint64) {
	t.root = t.own(t.root)
	t.removeFrom(t.root, seq)
	for !t.root.bottom && t.root.n == 1 {
		t.root = t.root.inners[0]
	}
	if t.root.n == 0 {
		*t = newSeqTree(t.owner)
	}
}

func (t *seqTree) removeFrom(n *seqInner, seq uint64) {
	i := n.child(seq)
	n.counts[i]--
	if n.bottom {
		l := t.ownLeaf(n.leaves[i], 0)
		n.leaves[i] = l
		l.take(l.searchSeq(seq))
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
	case c.n == 0:
		n.drop(i)
	case c.n < fanoutMin:
		t.joinInners(n, i)
	}
}

// drop takes out child i, with its entries.
func (n *seqInner) drop(i int) {
	copy(n.mins[i:n.n], n.mins[i+1:n.n])
	copy(n.counts[i:n.n], n.counts[i+1:n.n])
	copy(n.leaves[i:n.n], n.leaves[i+1:n.n])
	copy(n.inners[i:n.n], n.inners[i+1:n.n])
	n.n--
	n.leaves[n.n], n.inners[n.n] = nil, nil
}

// joinLeaves joins leaf i of an owned node with a neighbour, if the two are small enough.
func (t *seqTree) joinLeaves(n *seqInner, i int) {
	for _, left := range [2]int{i, i - 1} {
		if left < 0 || left+1 >= n.n || n.counts[left]+n.counts[left+1] > seqLeafJoin {
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
		if left < 0 || left+1 >= n.n || n.inners[left].n+n.inners[left+1].n > fanoutJoin {
			continue
		}
		l, r := t.own(n.inners[left]), n.inners[left+1]
		for c := range r.n {
			l.push(r.mins[c], r.counts[c], r.leaves[c], r.inners[c])
		}
		n.inners[left] = l
		n.counts[left] += n.counts[left+1]
		n.drop(left + 1)
		return
	}
}

// move changes where the bytes of a sequence are, if they are at from.
func (t *seqTree) move(seq uint64, from, to Loc) bool {
	if l, i, ok := t.find(seq); !ok || l.loc(i) != from {
		return false
	}
	t.root = t.own(t.root)
	n := t.root
	for !n.bottom {
		i := n.child(seq)
		n.inners[i] = t.own(n.inners[i])
		n = n.inners[i]
	}
	i := n.child(seq)
	l := t.ownLeaf(n.leaves[i], 0)
	n.leaves[i] = l
	row := l.searchSeq(seq)
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
	for n := t.root; n.n > 0; {
		i := n.child(seq)
		for _, c := range n.counts[:i] {
			rank += c
		}
		if n.bottom {
			return rank + uint64(n.leaves[i].searchSeq(seq))
		}
		n = n.inners[i]
	}
	return rank
}

// firstAt returns the first sequence with a time at or after at.
func (t *seqTree) firstAt(at int64) (uint64, bool) {
	n := t.root
	if n.n == 0 {
		return 0, false
	}
	// The last child that begins before at has the sequence, or the next one begins with it.
	var next *seqLeaf
	for {
		i := sort.Search(n.n-1, func(i int) bool { return n.firstLeaf(i+1).time(0) >= at })
		if i+1 < n.n {
			next = n.firstLeaf(i + 1)
		}
		if !n.bottom {
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
	for !n.bottom {
		n, i = n.inners[i], 0
	}
	return n.leaves[i]
}

// first returns the first entry, without its subject.
func (t *seqTree) first() (Entry, bool) {
	if t.root.n == 0 {
		return Entry{}, false
	}
	return t.root.firstLeaf(0).entry(0), true
}
