package index

// seqCursor walks the entries of a seqTree that does not change meanwhile.
type seqCursor struct {
	path  [maxHeight]step
	depth int
	leaf  *seqLeaf // nil: not at an entry
	row   int
	text  int // where the rest of the row's subject begins
	buf   []byte
}

// step is an inner node on the way to the current leaf, and the child taken.
type step struct {
	n *seqInner
	i int
}

// maxHeight bounds the inner levels of a tree. Any two neighbours have more than fanoutJoin
// children between them, or at least fanoutMin each: 5^16 leaves do not fit anywhere.
const maxHeight = 16

func (t *seqTree) cursor() *seqCursor {
	c := &seqCursor{}
	c.path[0].n = t.root
	return c
}

// Seek moves to the first entry at or above seq.
func (c *seqCursor) Seek(seq uint64) bool {
	if !c.descend(seq) {
		return false
	}
	c.row = c.leaf.searchSeq(seq)
	if c.row == c.leaf.len() {
		c.row--
		c.text = c.leaf.textAt(c.row)
		return c.Next()
	}
	c.text = c.leaf.textAt(c.row)
	return true
}

// SeekBack moves to the last entry at or below seq.
func (c *seqCursor) SeekBack(seq uint64) bool {
	if !c.descend(seq) {
		return false
	}
	c.row = c.leaf.searchSeq(seq)
	if c.row < c.leaf.len() && c.Seq() == seq {
		c.text = c.leaf.textAt(c.row)
		return true
	}
	return c.Prev()
}

// descend finds the leaf that has seq, if any has.
func (c *seqCursor) descend(seq uint64) bool {
	c.depth = 0
	c.leaf = nil
	n := c.path[0].n
	if n.n == 0 {
		return false
	}
	for {
		i := n.child(seq)
		c.path[c.depth] = step{n, i}
		if n.bottom {
			c.leaf = n.leaves[i]
			return true
		}
		n = n.inners[i]
		c.depth++
	}
}

func (c *seqCursor) Next() bool {
	if c.row+1 < c.leaf.len() {
		c.text += int(c.leaf.get(c.row, colText))
		c.row++
		return true
	}
	if !c.turn(+1) {
		return false
	}
	c.row = 0
	c.text = int(c.leaf.prefix)
	return true
}

func (c *seqCursor) Prev() bool {
	if c.row == 0 {
		if !c.turn(-1) {
			return false
		}
		c.row = c.leaf.len()
	}
	c.row--
	c.text = c.leaf.textAt(c.row)
	return true
}

// turn goes to the next leaf in a direction.
func (c *seqCursor) turn(by int) bool {
	for d := c.depth; d >= 0; d-- {
		s := &c.path[d]
		if s.i+by < 0 || s.i+by >= s.n.n {
			continue
		}
		s.i += by
		for n := s.n; ; d++ {
			if n.bottom {
				c.leaf = n.leaves[c.path[d].i]
				return true
			}
			n = n.inners[c.path[d].i]
			c.path[d+1] = step{n, 0}
			if by < 0 {
				c.path[d+1].i = n.n - 1
			}
		}
	}
	c.leaf = nil
	return false
}

func (c *seqCursor) Seq() uint64 { return c.leaf.get(c.row, colSeq) }

// Subject is the subject of the entry; it is good until the cursor moves.
func (c *seqCursor) Subject() string {
	prefix, rest := c.leaf.subjectAt(c.row, c.text)
	c.buf = append(append(c.buf[:0], prefix...), rest...)
	return bytesAsString(c.buf)
}

// entry is the entry, its subject good until the cursor moves.
func (c *seqCursor) entry() Entry {
	e := c.leaf.entry(c.row)
	e.Subject = c.Subject()
	return e
}
