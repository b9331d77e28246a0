package index

import "github.com/cleatkv/cleat/internal/storage"

// subjectTree is a persistent B+ tree of the subjects in byte order, with their states. It does
// not hold the subjects themselves, but finds them in the seqTree of the same index: that has to
// have every last sequence that is in here.
type subjectTree struct {
	owner uint64
	root  *subjectInner
	hint  *hint // of a tree that is being changed; nil in one that is read by many
}

// hint is where a subject was found last: a change mostly asks for one several times in a row.
type hint struct {
	subject []byte
	leaf    *subjectLeaf // nil: nowhere
	row     int
}

func (h *hint) set(subject string, l *subjectLeaf, row int) {
	if h != nil {
		h.subject = append(h.subject[:0], subject...)
		h.leaf, h.row = l, row
	}
}

func (h *hint) clear() {
	if h != nil {
		h.leaf = nil
	}
}

func (h *hint) is(subject string) bool {
	return h != nil && h.leaf != nil && string(h.subject) == subject
}

// subjectInner is an inner node. Its children are all leaves or all inner nodes.
type subjectInner struct {
	owner  uint64
	n      int  // number of children
	bottom bool // the children are leaves

	// No subject in a child is below its low; they ascend, and that of the first child does not
	// count. The fragments are the four bytes of each that follow their common prefix, so that a
	// search seldom looks at the lows themselves.
	prefix    string
	fragments [fanout]uint32
	kids      [fanout]subjectKid
}

type subjectKid struct {
	low      string
	subjects uint64 // in the child
	msgs     uint64 // and their messages
	leaf     *subjectLeaf
	inner    *subjectInner
}

func newSubjectTree(owner uint64) subjectTree {
	return subjectTree{owner: owner, root: &subjectInner{owner: owner, bottom: true}}
}

func (t *subjectTree) clone(owner uint64) subjectTree { return subjectTree{owner: owner, root: t.root} }

// sum counts what is in the first children.
func (n *subjectInner) sum(kids int) (subjects, msgs uint64) {
	for i := range n.kids[:kids] {
		subjects += n.kids[i].subjects
		msgs += n.kids[i].msgs
	}
	return subjects, msgs
}

func (t *subjectTree) len() uint64 {
	n, _ := t.root.sum(t.root.n)
	return n
}

// child returns which child has the subject, if any has.
func (n *subjectInner) child(subject string) int {
	shared := sharedPrefix(n.prefix, subject)
	if shared < len(n.prefix) {
		if shared == len(subject) || subject[shared] < n.prefix[shared] {
			return 0
		}
		return n.n - 1
	}
	f := uint32(fragment(subject[shared:]))
	lo, hi := 1, n.n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if g := n.fragments[mid]; g < f || g == f && n.kids[mid].low <= subject {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return max(lo-1, 0)
}

// index sets the prefix and the fragments by the lows.
func (n *subjectInner) index() {
	if n.n < 2 {
		n.prefix = ""
		return
	}
	first, last := n.kids[1].low, n.kids[n.n-1].low
	n.prefix = first[:sharedPrefix(first, last)]
	for i := 1; i < n.n; i++ {
		n.fragments[i] = uint32(fragment(n.kids[i].low[len(n.prefix):]))
	}
}

// find returns the leaf and row of a subject.
func (t *subjectTree) find(subject string, seqs *seqTree) (*subjectLeaf, int, bool) {
	if t.hint.is(subject) {
		return t.hint.leaf, t.hint.row, true
	}
	n := t.root
	for !n.bottom {
		n = n.kids[n.child(subject)].inner
	}
	if n.n == 0 {
		return nil, 0, false
	}
	l := n.kids[n.child(subject)].leaf
	i, ok := l.find(subject, seqs)
	if ok {
		t.hint.set(subject, l, i)
	}
	return l, i, ok
}

// findIn returns the row of a subject in a leaf, or where it belongs.
func (t *subjectTree) findIn(l *subjectLeaf, subject string, seqs *seqTree) (int, bool) {
	if t.hint.is(subject) && t.hint.leaf == l {
		return t.hint.row, true
	}
	return l.find(subject, seqs)
}

// rank is the number of subjects below a string, and of their messages.
func (t *subjectTree) rank(key string, seqs *seqTree) (subjects, msgs uint64) {
	for n := t.root; n.n > 0; {
		i := n.child(key)
		s, m := n.sum(i)
		subjects, msgs = subjects+s, msgs+m
		if !n.bottom {
			n = n.kids[i].inner
			continue
		}
		l := n.kids[i].leaf
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
	c := *n
	c.owner = t.owner
	return &c
}

func (t *subjectTree) ownLeaf(l *subjectLeaf) *subjectLeaf {
	if l.owner == t.owner {
		return l
	}
	c := l.cloneFor(t.owner)
	if t.hint != nil && t.hint.leaf == l {
		t.hint.leaf = c
	}
	return c
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
	if t.root.n == 0 {
		t.hint.clear()
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
	k := &n.kids[i]
	if n.bottom {
		k.leaf = t.ownLeaf(k.leaf)
		fresh, extra = t.addToLeaf(k.leaf, subject, seq, seqs)
	} else {
		k.inner = t.own(k.inner)
		fresh, extra = t.addTo(k.inner, subject, seq, seqs)
	}
	if extra == nil {
		k.msgs++
		if fresh {
			k.subjects++
		}
		return fresh, nil
	}
	k.recount()
	if n.n < fanout {
		n.insert(i+1, *extra)
		return fresh, nil
	}
	return fresh, t.splitInner(n, i+1, *extra)
}

// addToLeaf does the same for a leaf.
func (t *subjectTree) addToLeaf(l *subjectLeaf, subject string, seq uint64, seqs *seqTree) (fresh bool, extra *part) {
	i, ok := t.findIn(l, subject, seqs)
	if ok {
		l.add(i, seq, t.owner)
		t.hint.set(subject, l, i)
		return false, nil
	}
	t.hint.clear()
	switch {
	case l.len() < subjectLeafRows:
		l.put(i, subject, seq)
		t.hint.set(subject, l, i)
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
	r := &subjectInner{owner: t.owner, bottom: n.bottom}
	if i == fanout {
		r.insert(0, p)
		return &part{low: p.low, inner: r}
	}
	const half = fanout / 2
	r.n = copy(r.kids[:], n.kids[half:])
	clear(n.kids[half:])
	n.n = half
	r.index()
	n.index()
	low := r.kids[0].low
	if i <= half {
		n.insert(i, p)
	} else {
		r.insert(i-half, p)
	}
	return &part{low: low, inner: r}
}

// insert makes p child i.
func (n *subjectInner) insert(i int, p part) {
	copy(n.kids[i+1:n.n+1], n.kids[i:n.n])
	n.kids[i] = subjectKid{low: p.low, leaf: p.leaf, inner: p.inner}
	n.kids[i].recount()
	n.n++
	n.index()
}

// recount sets the numbers by what is in the child.
func (k *subjectKid) recount() {
	if k.inner != nil {
		k.subjects, k.msgs = k.inner.sum(k.inner.n)
		return
	}
	k.subjects, k.msgs = uint64(k.leaf.len()), uint64(k.leaf.len())
	for row := range k.leaf.len() {
		k.msgs += k.leaf.get(row, colMore)
	}
}

// drop takes a sequence from a subject, which has it, and the subject out with its last one.
func (t *subjectTree) drop(subject string, seq uint64, seqs *seqTree) {
	t.root = t.own(t.root)
	t.dropFrom(t.root, subject, seq, seqs)
	for !t.root.bottom && t.root.n == 1 {
		t.root = t.root.kids[0].inner
	}
	if t.root.n == 0 {
		t.root = newSubjectTree(t.owner).root
	}
}

func (t *subjectTree) dropFrom(n *subjectInner, subject string, seq uint64, seqs *seqTree) (gone bool) {
	i := n.child(subject)
	k := &n.kids[i]
	k.msgs--
	if n.bottom {
		k.leaf = t.ownLeaf(k.leaf)
		row, _ := t.findIn(k.leaf, subject, seqs)
		if k.leaf.get(row, colMore) > 0 {
			k.leaf.drop(row, seq, t.owner)
			t.hint.set(subject, k.leaf, row)
			return false
		}
		t.hint.clear()
		k.leaf.take(row)
		k.subjects--
		t.thinLeaf(n, i)
		return true
	}
	k.inner = t.own(k.inner)
	if gone = t.dropFrom(k.inner, subject, seq, seqs); gone {
		k.subjects--
		t.thinInner(n, i)
	}
	return gone
}

// thinLeaf sees to it that leaf i, which lost a row, is not needlessly small.
func (t *subjectTree) thinLeaf(n *subjectInner, i int) {
	switch few := n.kids[i].subjects; {
	case few == 0:
		n.delete(i)
		return
	case few >= subjectLeafRowsMin:
		return
	}
	for _, left := range [2]int{i, i - 1} {
		if left < 0 || left+1 >= n.n || n.kids[left].subjects+n.kids[left+1].subjects > subjectLeafJoin {
			continue
		}
		k := &n.kids[left]
		k.leaf = k.leaf.join(n.kids[left+1].leaf, t.owner)
		k.recount()
		n.delete(left + 1)
		return
	}
}

// thinInner does the same for inner node i.
func (t *subjectTree) thinInner(n *subjectInner, i int) {
	switch few := n.kids[i].inner.n; {
	case few == 0:
		n.delete(i)
		return
	case few >= fanoutMin:
		return
	}
	for _, left := range [2]int{i, i - 1} {
		if left < 0 || left+1 >= n.n || n.kids[left].inner.n+n.kids[left+1].inner.n > fanoutJoin {
			continue
		}
		k, right := &n.kids[left], &n.kids[left+1]
		l, r := t.own(k.inner), right.inner
		copy(l.kids[l.n:], r.kids[:r.n])
		l.kids[l.n].low = right.low // The low of a first child does not count, so it may be anything.
		l.n += r.n
		l.index()
		k.inner = l
		k.recount()
		n.delete(left + 1)
		return
	}
}

// delete takes out child i.
func (n *subjectInner) delete(i int) {
	copy(n.kids[i:n.n], n.kids[i+1:n.n])
	n.n--
	n.kids[n.n] = subjectKid{}
	n.index()
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

// Seek moves to the first subject that is not below key.
func (c *subjectCursor) Seek(key string) bool {
	c.depth = 0
	n := c.path[0].n
	if n.n == 0 {
		return false
	}
	for {
		i := n.child(key)
		c.path[c.depth].n, c.path[c.depth].i = n, i
		if n.bottom {
			c.leaf = n.kids[i].leaf
			break
		}
		n = n.kids[i].inner
		c.depth++
	}
	c.row, _ = c.leaf.find(key, c.seqs)
	if c.row == c.leaf.len() {
		c.row--
		return c.Next()
	}
	c.load()
	return true
}

func (c *subjectCursor) Next() bool {
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
		if s.i+1 == s.n.n {
			continue
		}
		s.i++
		for n := s.n; !n.bottom; d++ {
			n = n.kids[c.path[d].i].inner
			c.path[d+1].n, c.path[d+1].i = n, 0
		}
		c.leaf = c.path[c.depth].n.kids[c.path[c.depth].i].leaf
		c.row = 0
		return true
	}
	return false
}

func (c *subjectCursor) load() {
	c.buf = c.seqs.appendSubject(c.buf[:0], c.leaf.get(c.row, colLast))
}

// Key is the current subject; it is good until the cursor moves.
func (c *subjectCursor) Key() string { return bytesAsString(c.buf) }

func (c *subjectCursor) State() storage.SubjectState { return c.leaf.state(c.row) }
