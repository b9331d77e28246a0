package index

import "unsafe"

// seqLeaf holds the entries of some consecutive sequences, with their subjects. The subjects'
// common prefix is kept once.
type seqLeaf struct {
	owner  uint64
	prefix uint32 // length of the common prefix
	table
	text []byte // the common prefix, and then the rest of each subject
}

// Columns of a seqLeaf.
const (
	colSeq = iota
	colTime
	colLoc     // block and offset
	colLen     // bytes in the block
	colSize    // message size less that, see packSize
	colExpires // see packExpires
	colText    // length of the rest of the subject
)

const (
	seqLeafRows    = 64 // at most
	seqLeafRowsMin = 12 // a leaf with fewer joins a neighbour if they fit in seqLeafJoin rows
	seqLeafJoin    = 48
)

// packSize makes a small positive number of the message's size, for which it goes with the length
// in the block.
func packSize(size uint64, stored uint32) uint64 { return size + 1<<32 - uint64(stored) }
func unpackSize(v uint64, stored uint64) uint64  { return v + stored - 1<<32 }
func zigzag(v int64) uint64                      { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(v uint64) int64                    { return int64(v>>1) ^ -int64(v&1) }
func packLoc(l Loc) uint64                       { return uint64(l.Block)<<32 | uint64(l.Offset) }
func unpackLoc(v uint64, stored uint64) Loc      { return Loc{uint32(v >> 32), uint32(v), uint32(stored)} }

// entry returns row i without its subject.
func (l *seqLeaf) entry(i int) Entry {
	e := Entry{
		Seq:  l.get(i, colSeq),
		Time: int64(l.get(i, colTime)),
		Loc:  l.loc(i),
	}
	e.Size = unpackSize(l.get(i, colSize), uint64(e.Loc.Len))
	e.Expires = unpackExpires(unzigzag(l.get(i, colExpires)), e.Time)
	return e
}

func (l *seqLeaf) loc(i int) Loc { return unpackLoc(l.get(i, colLoc), l.get(i, colLen)) }

// textAt is where the rest of the subject of row i begins.
func (l *seqLeaf) textAt(i int) int {
	if l.width(colText) == 0 {
		return int(l.prefix) + i*int(l.base[colText])
	}
	at := int(l.prefix)
	for j := range i {
		at += int(l.get(j, colText))
	}
	return at
}

// subject returns the two parts of the subject of row i.
func (l *seqLeaf) subject(i int) (prefix, rest []byte) {
	return l.subjectAt(i, l.textAt(i))
}

func (l *seqLeaf) subjectAt(i, at int) (prefix, rest []byte) {
	return l.text[:l.prefix], l.text[at : at+int(l.get(i, colText))]
}

// add appends an entry.
func (l *seqLeaf) add(e *Entry) {
	if l.n == 0 && len(l.text) == 0 {
		l.text = append(l.text, e.Subject...)
		l.prefix = uint32(len(e.Subject))
	}
	if shared := sharedPrefix(bytesAsString(l.text[:l.prefix]), e.Subject); shared < int(l.prefix) {
		l.shorten(shared)
	}
	rest := e.Subject[l.prefix:]
	l.insert(l.len(), &tableRow{
		colSeq:     e.Seq,
		colTime:    uint64(e.Time),
		colLoc:     packLoc(e.Loc),
		colLen:     uint64(e.Loc.Len),
		colSize:    packSize(e.Size, e.Loc.Len),
		colExpires: zigzag(packExpires(e)),
		colText:    uint64(len(rest)),
	})
	l.text = append(l.text, rest...)
}

// shorten makes the common prefix shorter.
func (l *seqLeaf) shorten(to int) {
	tail := l.text[to:l.prefix]
	text := make([]byte, 0, len(l.text)+l.len()*len(tail)+64)
	text = append(text, l.text[:to]...)
	at := int(l.prefix)
	for i := range l.len() {
		n := int(l.get(i, colText))
		text = append(text, tail...)
		text = append(text, l.text[at:at+n]...)
		at += n
	}
	if l.n > 0 {
		l.base[colText] += uint64(len(tail))
	}
	l.text = text
	l.prefix = uint32(to)
}

// seal makes the common prefix as long as it can be, and gives back spare memory: nothing is
// going to be added.
func (l *seqLeaf) seal() {
	shared := l.shared()
	text := make([]byte, 0, len(l.text)-(l.len()-1)*shared)
	at := int(l.prefix)
	text = append(text, l.text[:at+shared]...)
	for i := range l.len() {
		n := int(l.get(i, colText))
		text = append(text, l.text[at+shared:at+n]...)
		at += n
	}
	l.base[colText] -= uint64(shared)
	l.prefix += uint32(shared)
	l.text = text
	l.repack(nil)
}

// shared is how long a prefix the rests of all subjects have in common.
func (l *seqLeaf) shared() int {
	_, first := l.subject(0)
	n := len(first)
	at := int(l.prefix)
	for i := range l.len() {
		_, rest := l.subjectAt(i, at)
		n = sharedPrefix(bytesAsString(first[:n]), bytesAsString(rest))
		at += len(rest)
	}
	return n
}

// take removes row i.
func (l *seqLeaf) take(i int) {
	at := l.textAt(i)
	n := int(l.get(i, colText))
	l.text = append(l.text[:at], l.text[at+n:]...)
	l.remove(i)
}

// join returns a leaf with the rows of both.
func (l *seqLeaf) join(r *seqLeaf, owner uint64) *seqLeaf {
	j := l.cloneFor(owner, r.len())
	var buf []byte
	for i := range r.len() {
		e := r.entry(i)
		prefix, rest := r.subject(i)
		buf = append(append(buf[:0], prefix...), rest...)
		e.Subject = bytesAsString(buf)
		j.add(&e)
	}
	j.seal()
	return j
}

func (l *seqLeaf) cloneFor(owner uint64, more int) *seqLeaf {
	c := &seqLeaf{owner: owner, prefix: l.prefix, table: l.clone(more)}
	spare := 0
	if more > 0 && l.n > 0 {
		spare = more * (len(l.text) - int(l.prefix)) / l.len()
	}
	c.text = append(make([]byte, 0, len(l.text)+spare), l.text...)
	return c
}

// bytesAsString gives bytes the type of a string without copying them. The string is good as long
// as the bytes do not change.
func bytesAsString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
