package index

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
)

// subjectLeaf holds the state of some consecutive subjects, but not the subjects: those are in the
// seqTree, at the last sequence of each. What a search compares is mostly the fragments, the four
// bytes of each subject that follow the prefix common to all; only where they are equal is the
// subject itself looked at.
type subjectLeaf struct {
	owner  uint64
	prefix string
	table
	all []history // of each subject with more than two sequences; nil if there is none
}

// Columns of a subjectLeaf.
const (
	colFragment = iota // big endian, zeros where the subject ends; ascends
	colLast            // last sequence
	colSpan            // that less the first
	colMore            // number of sequences, less one
)

const (
	subjectLeafRows    = 64
	subjectLeafRowsMin = 12
	subjectLeafJoin    = 48
)

func fragment(rest string) uint64 {
	if len(rest) >= 4 {
		return uint64(rest[0])<<24 | uint64(rest[1])<<16 | uint64(rest[2])<<8 | uint64(rest[3])
	}
	var b [4]byte
	copy(b[:], rest)
	return uint64(binary.BigEndian.Uint32(b[:]))
}

func (l *subjectLeaf) state(i int) storage.SubjectState {
	last := l.get(i, colLast)
	return storage.SubjectState{Msgs: l.get(i, colMore) + 1, First: last - l.get(i, colSpan), Last: last}
}

// find returns the row of a subject, or where it belongs.
func (l *subjectLeaf) find(subject string, seqs *seqTree) (int, bool) {
	shared := sharedPrefix(l.prefix, subject)
	if shared < len(l.prefix) {
		if shared == len(subject) || subject[shared] < l.prefix[shared] {
			return 0, false
		}
		return l.len(), false
	}
	f := fragment(subject[shared:])
	lo := l.search(colFragment, f)
	hi := lo
	for hi < l.len() && l.get(hi, colFragment) == f {
		hi++
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := seqs.compare(subject, l.get(mid, colLast)); {
		case c == 0:
			return mid, true
		case c > 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// put inserts a subject with one sequence at row i.
func (l *subjectLeaf) put(i int, subject string, seq uint64) {
	if l.n == 0 {
		l.prefix = strings.Clone(subject)
	}
	if shared := sharedPrefix(l.prefix, subject); shared < len(l.prefix) {
		l.shorten(shared)
	}
	l.insert(i, &tableRow{colFragment: fragment(subject[len(l.prefix):]), colLast: seq})
	if l.all != nil {
		l.all = slices.Insert(l.all, i, history{})
	}
}

// shorten makes the common prefix shorter. The fragments grow at the front by what is no longer
// common, and lose as much at the end.
func (l *subjectLeaf) shorten(to int) {
	front := l.prefix[to:]
	l.prefix = strings.Clone(l.prefix[:to])
	for i := range l.len() {
		var b [8]byte
		binary.BigEndian.PutUint32(b[:], uint32(l.get(i, colFragment)))
		l.set(i, colFragment, fragment(front[:min(len(front), 4)]+string(b[:4])))
	}
}

// take removes row i.
func (l *subjectLeaf) take(i int) {
	l.remove(i)
	if l.all != nil {
		l.all = slices.Delete(l.all, i, i+1)
	}
}

// split moves the rows from i on to a new leaf, and returns it with a key between the two.
func (l *subjectLeaf) split(i int, owner uint64, seqs *seqTree) (*subjectLeaf, string) {
	r := l.cloneFor(owner)
	r.skip(i)
	l.truncate(i)
	if l.all != nil {
		r.all = slices.Clone(r.all[i:])
		l.all = slices.Clone(l.all[:i])
	}
	between := separator(
		string(seqs.appendSubject(nil, l.get(i-1, colLast))),
		string(seqs.appendSubject(nil, r.get(0, colLast))))
	l.refine(seqs)
	r.refine(seqs)
	return r, between
}

// separator returns the shortest string that is above left and not above right.
func separator(left, right string) string {
	return string([]byte(right[:sharedPrefix(left, right)+1]))
}

// refine lengthens the common prefix if the fragments no longer tell many subjects apart.
func (l *subjectLeaf) refine(seqs *seqTree) {
	alike := 0
	for i := 1; i < l.len(); i++ {
		if l.get(i, colFragment) == l.get(i-1, colFragment) {
			alike++
		}
	}
	if alike <= l.len()/8 {
		return
	}
	first := seqs.appendSubject(nil, l.get(0, colLast))
	last := seqs.appendSubject(nil, l.get(l.len()-1, colLast))
	l.prefix = string(first[:sharedPrefix(bytesAsString(first), bytesAsString(last))])
	var buf []byte
	for i := range l.len() {
		buf = seqs.appendSubject(buf[:0], l.get(i, colLast))
		l.set(i, colFragment, fragment(bytesAsString(buf[len(l.prefix):])))
	}
	l.repack(nil)
}

// join returns a leaf with the rows of both.
func (l *subjectLeaf) join(r *subjectLeaf, owner uint64) *subjectLeaf {
	l, r = l.cloneFor(owner), r.cloneFor(owner)
	shared := sharedPrefix(l.prefix, r.prefix)
	l.shorten(shared)
	r.shorten(shared)
	if r.all != nil && l.all == nil {
		l.all = make([]history, l.n)
	}
	for i := range r.len() {
		row := r.row(i)
		l.insert(l.len(), &row)
		switch {
		case r.all != nil:
			l.all = append(l.all, r.all[i])
		case l.all != nil:
			l.all = append(l.all, history{})
		}
	}
	l.repack(nil)
	return l
}

func (l *subjectLeaf) cloneFor(owner uint64) *subjectLeaf {
	c := *l
	c.owner = owner
	c.table = l.clone(1)
	c.all = slices.Clone(l.all)
	return &c
}

// add adds a sequence, above all others, to the subject of row i.
func (l *subjectLeaf) add(i int, seq, owner uint64) {
	s := l.state(i)
	if s.Msgs >= 2 {
		if l.all == nil {
			l.all = make([]history, l.n)
		}
		h := &l.all[i]
		if s.Msgs == 2 {
			*h = history{}
			h.add(s.First, owner)
			h.add(s.Last, owner)
		}
		h.add(seq, owner)
	}
	l.set(i, colLast, seq)
	l.set(i, colSpan, seq-s.First)
	l.set(i, colMore, s.Msgs)
}

// drop takes one of at least two sequences from the subject of row i.
func (l *subjectLeaf) drop(i int, seq, owner uint64) {
	s := l.state(i)
	first, last := s.First, s.Last
	if s.Msgs == 2 {
		if seq == first {
			first = last
		} else {
			last = first
		}
	} else {
		h := &l.all[i]
		h.remove(seq, owner)
		first, last = h.first(), h.last()
		if s.Msgs == 3 {
			*h = history{}
			l.tidy()
		}
	}
	l.set(i, colLast, last)
	l.set(i, colSpan, last-first)
	l.set(i, colMore, s.Msgs-2)
}

// tidy lets go of the histories if none is left.
func (l *subjectLeaf) tidy() {
	for i := range l.all {
		if !l.all[i].empty() {
			return
		}
	}
	l.all = nil
}

// ascend calls fn with the sequences of the subject of row i at or above from, ascending, until fn
// returns false.
func (l *subjectLeaf) ascend(i int, from uint64, fn func(uint64) bool) {
	s := l.state(i)
	switch {
	case s.Msgs > 2:
		l.all[i].ascend(from, fn)
	case s.First >= from && !fn(s.First):
	case s.Msgs == 2 && s.Last >= from:
		fn(s.Last)
	}
}

// floor returns the newest sequence of the subject of row i at or below upTo.
func (l *subjectLeaf) floor(i int, upTo uint64) (uint64, bool) {
	s := l.state(i)
	switch {
	case s.First > upTo:
		return 0, false
	case s.Last <= upTo:
		return s.Last, true
	case s.Msgs > 2:
		return l.all[i].floor(upTo), true
	}
	return s.First, true
}
