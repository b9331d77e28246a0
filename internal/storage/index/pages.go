package index

import (
	"slices"

	"github.com/cleatkv/cleat/internal/fields"
)

// The leaves of both trees go to disk as they are, so that they are read back without being built
// again:
//
//	seqs 6:     repeated: prefix uv | table | text uv ...
//	subjects 7: repeated: low uv ... | prefix uv ... | table | histories
//	table:      rows uv | column offsets 8 | bases uv x 7 | packed rows ... (as in memory, without padding)
//	histories:  0, or 1 and for each row: sequences uv, each uv less the one before
//
// All leaves of sequences come first, in order, then those of subjects. low is a string that is
// above all subjects of the leaf before and not above those of this one.

// EncodeBase emits everything.
func (x *Index) EncodeBase(emit Emit) error {
	f := framer{kind: FrameSeqs, emit: emit}
	f.seqs(x.seqs.root)
	f.flush()
	f.kind = FrameSubjects
	f.subjects(x.subjects.root, "")
	f.flush()
	if f.err != nil {
		return f.err
	}
	return x.encodeAux(emit)
}

func (f *framer) seqs(n *seqInner) {
	for i := 0; i < n.n && f.err == nil; i++ {
		if !n.bottom {
			f.seqs(n.inners[i])
			continue
		}
		f.full()
		l := n.leaves[i]
		f.uvarint(uint64(l.prefix))
		f.table(&l.table)
		f.bytes(l.text)
	}
}

// subjects emits the leaves below n, whose own low is given: that of its first child does not
// count.
func (f *framer) subjects(n *subjectInner, low string) {
	for i := 0; i < n.n && f.err == nil; i++ {
		k := &n.kids[i]
		if i > 0 {
			low = k.low
		}
		if !n.bottom {
			f.subjects(k.inner, low)
			continue
		}
		f.full()
		f.bytes([]byte(low))
		f.bytes([]byte(k.leaf.prefix))
		f.table(&k.leaf.table)
		f.histories(k.leaf.all)
	}
}

func (f *framer) table(t *table) {
	f.uvarint(uint64(t.n))
	f.buf = append(f.buf, t.off[:]...)
	for _, b := range t.base {
		f.uvarint(b)
	}
	f.buf = append(f.buf, t.rows[:t.len()*t.rowBytes()]...)
}

func (f *framer) histories(all []history) {
	if all == nil {
		f.uvarint(0)
		return
	}
	f.uvarint(1)
	for i := range all {
		n, last := 0, uint64(0)
		all[i].ascend(0, func(uint64) bool { n++; return true })
		f.uvarint(uint64(n))
		all[i].ascend(0, func(seq uint64) bool {
			f.uvarint(seq - last)
			last = seq
			return true
		})
	}
}

// table decodes a table of at most most rows.
func (d *reader) table(most int) (t table) {
	n := d.Uvarint()
	copy(t.off[:], d.Take(uint64(len(t.off))))
	for c := range t.base {
		t.base[c] = d.Uvarint()
	}
	if t.off[0] != 0 || !slices.IsSorted(t.off[:]) || n == 0 || n > uint64(most) {
		d.Bad = true
	}
	for c := range t.base {
		if t.width(c) > 8 {
			d.Bad = true
		}
	}
	rows := d.Take(n * uint64(t.rowBytes()))
	if d.Bad {
		return t
	}
	t.n = uint16(n)
	t.rows = append(make([]byte, 0, len(rows)+tablePad), rows...)
	t.rows = append(t.rows, make([]byte, tablePad)...)
	return t
}

// Loader builds an index from the frames of a base and of deltas to it.
type Loader struct {
	x      *Index
	leaves []*seqLeaf
	parts  []part // leaves of subjects
	built  bool
	owner  uint64
}

// NewLoader returns a loader that has read nothing.
func NewLoader() *Loader {
	x := New()
	return &Loader{x: x, owner: x.seqs.owner}
}

// Frame takes one frame. After an error nothing can be done with the loader.
func (l *Loader) Frame(kind byte, payload []byte) error {
	if kind != FrameSeqs && kind != FrameSubjects {
		l.build()
		return l.x.decode(kind, payload)
	}
	if l.built {
		return errFrame
	}
	d := reader{Reader: fields.Reader{B: payload}}
	for len(d.B) > 0 {
		if kind == FrameSeqs {
			l.seqLeaf(&d)
		} else {
			l.subjectLeaf(&d)
		}
		if d.Bad {
			return errFrame
		}
	}
	return nil
}

// Index returns the index once all frames are in, and the number of live bytes in each block. The
// last sequence and time are not in the frames: they are to be set, and the position.
func (l *Loader) Index() (*Index, map[uint32]int64) {
	l.build()
	uses := make(map[uint32]int64)
	c := l.x.seqs.cursor()
	for ok := c.Seek(0); ok; ok = c.Next() {
		stored := c.leaf.get(c.row, colLen)
		uses[unpackLoc(c.leaf.get(c.row, colLoc), stored).Block] += int64(stored)
	}
	return l.x, uses
}

func (l *Loader) seqLeaf(d *reader) {
	leaf := &seqLeaf{owner: l.owner}
	prefix := d.Uvarint()
	leaf.table = d.table(seqLeafRows)
	leaf.text = slices.Clone(d.Bytes())
	if d.Bad {
		return
	}
	leaf.prefix = uint32(prefix)
	text, last := prefix, l.x.lastSeq
	for i := range leaf.len() {
		seq := leaf.get(i, colSeq)
		if seq <= last || leaf.get(i, colText) > uint64(len(leaf.text)) {
			d.Bad = true
			return
		}
		last = seq
		text += leaf.get(i, colText)
		e := leaf.entry(i)
		l.x.bytes += e.Size
		if e.Expires > 0 {
			l.x.expiring().set(expiry{at: e.Expires, seq: seq})
		}
	}
	if prefix > text || text != uint64(len(leaf.text)) {
		d.Bad = true
		return
	}
	l.x.lastSeq = last
	l.x.lastTime = leaf.time(leaf.len() - 1)
	l.leaves = append(l.leaves, leaf)
}

func (l *Loader) subjectLeaf(d *reader) {
	p := part{low: string(d.Bytes()), leaf: &subjectLeaf{owner: l.owner}}
	p.leaf.prefix = string(d.Bytes())
	p.leaf.table = d.table(subjectLeafRows)
	if d.Bad || len(l.parts) > 0 && p.low <= l.parts[len(l.parts)-1].low {
		d.Bad = true
		return
	}
	if d.Uvarint() != 0 {
		p.leaf.all = make([]history, p.leaf.len())
		for i := range p.leaf.all {
			l.history(d, &p.leaf.all[i])
		}
	}
	l.parts = append(l.parts, p)
}

func (l *Loader) history(d *reader, h *history) {
	n := d.Uvarint()
	if n > uint64(len(d.B)) {
		d.Bad = true
		return
	}
	last := uint64(0)
	for range n {
		delta := d.Uvarint()
		if d.Bad || delta == 0 {
			d.Bad = true
			return
		}
		last += delta
		h.add(last, l.owner)
	}
}

// build makes trees of the leaves.
func (l *Loader) build() {
	if l.built {
		return
	}
	l.built = true
	if len(l.leaves) > 0 {
		l.x.seqs.root = buildSeqs(l.leaves, l.owner)
	}
	if len(l.parts) > 0 {
		l.x.subjects.root = buildSubjects(l.parts, l.owner)
	}
	l.leaves, l.parts = nil, nil
}

// spread calls fn for consecutive runs of n children, each about as long as the others and at most
// fanout: the nodes of a level.
func spread(n int, fn func(from, to int)) {
	nodes := (n + fanout - 1) / fanout
	for i := range nodes {
		fn(i*n/nodes, (i+1)*n/nodes)
	}
}

func buildSeqs(leaves []*seqLeaf, owner uint64) *seqInner {
	var level []*seqInner
	spread(len(leaves), func(from, to int) {
		n := &seqInner{owner: owner, bottom: true}
		for _, l := range leaves[from:to] {
			n.push(l.get(0, colSeq), uint64(l.len()), l, nil)
		}
		level = append(level, n)
	})
	for len(level) > 1 {
		var above []*seqInner
		spread(len(level), func(from, to int) {
			n := &seqInner{owner: owner}
			for _, c := range level[from:to] {
				n.push(c.mins[0], c.total(), nil, c)
			}
			above = append(above, n)
		})
		level = above
	}
	return level[0]
}

func buildSubjects(parts []part, owner uint64) *subjectInner {
	for bottom := true; bottom || len(parts) > 1; bottom = false {
		var above []part
		spread(len(parts), func(from, to int) {
			n := &subjectInner{owner: owner, bottom: bottom}
			for i, p := range parts[from:to] {
				n.kids[i] = subjectKid{low: p.low, leaf: p.leaf, inner: p.inner}
				n.kids[i].recount()
			}
			n.n = to - from
			n.index()
			above = append(above, part{low: parts[from].low, inner: n})
		})
		parts = above
	}
	return parts[0].inner
}
