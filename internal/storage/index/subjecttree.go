package index

import (
	"slices"

	"github.com/cleatkv/cleat/internal/storage"
)

// subjectTree is a persistent B+ tree of the subjects in byte order, with their states. It does
// not hold the subjects themselves, but finds them in the seqTree of the same index: that has to
// have every last sequence that is in here.
type subjectTree struct {
	owner uint64
	root  *subjectInner
}

// subjectInner is an inner node. Its children are all leaves or all inner nodes.
type subjectInner struct {
	owner    uint64
	lows     []string // no subject in a child is below its low; they ascend
	subjects []uint64 // subjects in each child
	msgs     []uint64 // and their messages
	leaves   []*subjectLeaf
	inners   []*subjectInner
}

func newSubjectTree(owner uint64) subjectTree {
	return subjectTree{owner: owner, root: &subjectInner{owner: owner}}
}

func (t *subjectTree) clone(owner uint64) subjectTree { return subjectTree{owner: owner, root: t.root} }

func (n *subjectInner) size() int { return len(n.lows) }

func sum(counts []uint64) (total uint64) {
	for _, c := range counts {
		total += c
	}
	return total
}

func (t *subjectTree) len() uint64 { return sum(t.root.subjects) }

// child returns which child has the subject, if any has.
func (n *subjectInner) child(subject string) int {
	lo, hi := 1, len(n.lows)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.lows[mid] <= subject {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// find returns the leaf and row of a subject.
func (t *subjectTree) find(subject string, seqs *seqTree) (*subjectLeaf, int, bool) {
	n := t.root
	for len(n.inners) > 0 {
		n = n.inners[n.child(subject)]
	}
	if n.size() == 0 {
		return nil, 0, false
	}
	l := n.leaves[n.child(subject)]
	i, ok := l.find(subject, seqs)
	return l, i, ok
}

// rank is the number of subjects below a string, and of their messages.
func (t *subjectTree) rank(key string, seqs *seqTree) (subjects, msgs uint64) {
	for n := t.root; n.size() > 0; {
		i := n.child(key)
		subjects += sum(n.subjects[:i])
		msgs += sum(n.msgs[:i])
		if len(n.inners) > 0 {
			n = n.inners[i]
			continue
		}
		l := n.leaves[i]
		row, _ := l.find(key, seqs)
		for r := range row {
			msgs += l.get(r, colMore) + 1
		}
		return subjects + uint64(row), msgs
	}
	return subjects, msgs
}

func (t *subjectTree) own(n *subjectInner) *subjectInner {
	if n.owner == t.owner {
		return n
	}
	return &subjectInner{
		owner:    t.owner,
		lows:     slices.Clone(n.lows),
		subjects: slices.Clone(n.subjects),
		msgs:     slices.Clone(n.msgs),
		leaves:   slices.Clone(n.leaves),
		inners:   slices.Clone(n.inners),
	}
}

func (t *subjectTree) ownLeaf(l *subjectLeaf) *subjectLeaf {
	if l.owner == t.owner {
		return l
	}
	return l.cloneFor(t.owner)
}

// part is a node, or a leaf, that has to get a place beside another.
type part struct {
	low   string
	leaf  *subjectLeaf
	inner *subjectInner
}

// add adds a sequence, above all others, to a subject.
func (t *subjectTree) add(subject string, seq uint64, seqs *seqTree) {
	t.root = t.own(t.root)
	if t.root.size() == 0 {
		l := &subjectLeaf{owner: t.owner}
		l.put(0, subject, seq)
		t.root.insert(0, part{leaf: l})
		return
	}
	if _, extra := t.addTo(t.root, subject, seq, seqs); extra != nil {
		old := t.root
		t.root = &subjectInner{owner: t.owner}
		t.root.insert(0, part{inner: old})
		t.root.insert(1, *extra)
	}
}

// addTo adds a sequence under n, which is owned, and tells whether the subject is new. If n was
// full it returns a part of it to stand on its right.
func (t *subjectTree) addTo(n *subjectInner, subject string, seq uint64, seqs *seqTree) (fresh bool, extra *part) {
	i := n.child(subject)
	if len(n.inners) > 0 {
		n.inners[i] = t.own(n.inners[i])
		fresh, extra = t.addTo(n.inners[i], subject, seq, seqs)
	} else {
		n.leaves[i] = t.ownLeaf(n.leaves[i])
		fresh, extra = t.addToLeaf(n.leaves[i], subject, seq, seqs)
	}
	if extra == nil {
		n.msgs[i]++
		if fresh {
			n.subjects[i]++
		}
		return fresh, nil
	}
	n.recount(i)
	if n.size() < fanout {
		n.insert(i+1, *extra)
		return fresh, nil
	}
	return fresh, t.splitInner(n, i+1, *extra)
}

// addToLeaf does the same for a leaf.
func (t *subjectTree) addToLeaf(l *subjectLeaf, subject string, seq uint64, seqs *seqTree) (fresh bool, extra *part) {
	i, ok := l.find(subject, seqs)
	switch {
	case ok:
		l.add(i, seq, t.owner)
		return false, nil
	case l.len() < subjectLeafRows:
		l.put(i, subject, seq)
		return true, nil
	case i == subjectLeafRows: // Subjects come in order: leave this leaf full.
		last := seqs.appendSubject(nil, l.get(i-1, colLast))
		r := &subjectLeaf{owner: t.owner}
		r.put(0, subject, seq)
		return true, &part{low: separator(bytesAsString(last), subject), leaf: r}
	}
	r, low := l.split(subjectLeafRows/2, t.owner, seqs)
	if subject < low {
		l.put(i, subject, seq)
	} else {
		r.put(i-subjectLeafRows/2, subject, seq)
	}
	return true, &part{low: low, leaf: r}
}

// splitInner makes room in a full node for a part at i by moving the right half of it to a new
// node; or nothing, if the part is the rightmost.
func (t *subjectTree) splitInner(n *subjectInner, i int, p part) *part {
	r := &subjectInner{owner: t.owner}
	if i == fanout {
		r.insert(0, p)
		return &part{low: p.low, inner: r}
	}
	const half = fanout / 2
	r.lows = append(r.lows, n.lows[half:]...)
	r.subjects = append(r.subjects, n.subjects[half:]...)
	r.msgs = append(r.msgs, n.msgs[half:]...)
	n.lows, n.subjects, n.msgs = n.lows[:half], n.subjects[:half], n.msgs[:half]
	if len(n.inners) > 0 {
		r.inners = append(r.inners, n.inners[half:]...)
		n.inners = slices.Delete(n.inners, half, len(n.inners))
	} else {
		r.leaves = append(r.leaves, n.leaves[half:]...)
		n.leaves = slices.Delete(n.leaves, half, len(n.leaves))
	}
	if i <= half {
		n.insert(i, p)
	} else {
		r.insert(i-half, p)
	}
	return &part{low: r.lows[0], inner: r}
}

// insert makes p child i.
func (n *subjectInner) insert(i int, p part) {
	n.lows = slices.Insert(n.lows, i, p.low)
	n.subjects = slices.Insert(n.subjects, i, 0)
	n.msgs = slices.Insert(n.msgs, i, 0)
	if p.inner != nil {
		n.inners = slices.Insert(n.inners, i, p.inner)
	} else {
		n.leaves = slices.Insert(n.leaves, i, p.leaf)
	}
	n.recount(i)
}

// recount sets the numbers of child i by those in it.
func (n *subjectInner) recount(i int) {
	if len(n.inners) > 0 {
		n.subjects[i], n.msgs[i] = sum(n.inners[i].subjects), sum(n.inners[i].msgs)
		return
	}
	l := n.leaves[i]
	n.subjects[i], n.msgs[i] = uint64(l.len()), uint64(l.len())
	for row := range l.len() {
		n.msgs[i] += l.get(row, colMore)
	}
}

// drop takes a sequence from a subject, which has it, and the subject out with its last one.
func (t *subjectTree) drop(subject string, seq uint64, seqs *seqTree) {
	t.root = t.own(t.root)
	t.dropFrom(t.root, subject, seq, seqs)
	for len(t.root.inners) == 1 {
		t.root = t.root.inners[0]
	}
	if t.root.size() == 0 {
		t.root = &subjectInner{owner: t.owner}
	}
}

func (t *subjectTree) dropFrom(n *subjectInner, subject string, seq uint64, seqs *seqTree) (gone bool) {
	i := n.child(subject)
	n.msgs[i]--
	if len(n.leaves) > 0 {
		l := t.ownLeaf(n.leaves[i])
		n.leaves[i] = l
		row, _ := l.find(subject, seqs)
		if l.get(row, colMore) > 0 {
			l.drop(row, seq, t.owner)
			return false
		}
		l.take(row)
		n.subjects[i]--
		t.thinLeaf(n, i)
		return true
	}
	c := t.own(n.inners[i])
	n.inners[i] = c
	if gone = t.dropFrom(c, subject, seq, seqs); gone {
		n.subjects[i]--
		t.thinInner(n, i)
	}
	return gone
}

// thinLeaf sees to it that leaf i, which lost a row, is not needlessly small.
func (t *subjectTree) thinLeaf(n *subjectInner, i int) {
	if n.subjects[i] == 0 {
		n.delete(i)
		return
	}
	if n.subjects[i] >= subjectLeafRowsMin {
		return
	}
	for _, left := range [2]int{i, i - 1} {
		if left < 0 || left+1 >= n.size() || n.subjects[left]+n.subjects[left+1] > subjectLeafJoin {
			continue
		}
		n.leaves[left] = n.leaves[left].join(n.leaves[left+1], t.owner)
		n.delete(left + 1)
		n.recount(left)
		return
	}
}

// thinInner does the same for inner node i.
func (t *subjectTree) thinInner(n *subjectInner, i int) {
	size := n.inners[i].size()
	if size == 0 {
		n.delete(i)
		return
	}
	if size >= fanoutMin {
		return
	}
	for _, left := range [2]int{i, i - 1} {
		if left < 0 || left+1 >= n.size() || n.inners[left].size()+n.inners[left+1].size() > fanoutJoin {
			continue
		}
		l, r := t.own(n.inners[left]), n.inners[left+1]
		l.lows = append(l.lows, n.lows[left+1])
		l.lows = append(l.lows, r.lows[1:]...)
		l.subjects = append(l.subjects, r.subjects...)
		l.msgs = append(l.msgs, r.msgs...)
		l.leaves = append(l.leaves, r.leaves...)
		l.inners = append(l.inners, r.inners...)
		n.inners[left] = l
		n.delete(left + 1)
		n.recount(left)
		return
	}
}

// delete takes out child i.
func (n *subjectInner) delete(i int) {
	n.lows = slices.Delete(n.lows, i, i+1)
	n.subjects = slices.Delete(n.subjects, i, i+1)
	n.msgs = slices.Delete(n.msgs, i, i+1)
	if len(n.inners) > 0 {
		n.inners = slices.Delete(n.inners, i, i+1)
	} else {
		n.leaves = slices.Delete(n.leaves, i, i+1)
	}
}

// subjectCursor walks the subjects of a tree that does not change meanwhile.
type subjectCursor struct {
	seqs *seqTree
	path [maxHeight]struct {
		n *subjectInner
		i int
	}
	depth int
	leaf  *subjectLeaf
	row   int
	buf   []byte
}

func (t *subjectTree) cursor(seqs *seqTree) *subjectCursor {
	c := &subjectCursor{seqs: seqs}
	c.path[0].n = t.root
	return c
}

// seek moves to the first subject that is not below key.
func (c *subjectCursor) seek(key string) bool {
	c.depth = 0
	n := c.path[0].n
	if n.size() == 0 {
		return false
	}
	for {
		i := n.child(key)
		c.path[c.depth].n, c.path[c.depth].i = n, i
		if len(n.leaves) > 0 {
			c.leaf = n.leaves[i]
			break
		}
		n = n.inners[i]
		c.depth++
	}
	c.row, _ = c.leaf.find(key, c.seqs)
	if c.row == c.leaf.len() {
		c.row--
		return c.next()
	}
	c.load()
	return true
}

func (c *subjectCursor) next() bool {
	c.row++
	if c.row == c.leaf.len() && !c.turn() {
		return false
	}
	c.load()
	return true
}

// turn goes to the first row of the next leaf.
func (c *subjectCursor) turn() bool {
	for d := c.depth; d >= 0; d-- {
		s := &c.path[d]
		if s.i+1 == s.n.size() {
			continue
		}
		s.i++
		for n := s.n; len(n.inners) > 0; d++ {
			n = n.inners[c.path[d].i]
			c.path[d+1].n, c.path[d+1].i = n, 0
		}
		c.leaf = c.path[c.depth].n.leaves[c.path[c.depth].i]
		c.row = 0
		return true
	}
	return false
}

func (c *subjectCursor) load() {
	c.buf = c.seqs.appendSubject(c.buf[:0], c.leaf.get(c.row, colLast))
}

// key is the current subject; it is good until the cursor moves.
func (c *subjectCursor) key() string { return bytesAsString(c.buf) }

func (c *subjectCursor) state() storage.SubjectState { return c.leaf.state(c.row) }
