package index

import (
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
)

// The methods below implement storage.Reader, but for Load.

// Subject looks up a literal subject.
func (x *Index) Subject(subject string) (storage.SubjectState, bool) {
	l, i, ok := x.subjects.find(subject, &x.seqs)
	if !ok {
		return storage.SubjectState{}, false
	}
	return l.state(i), true
}

// Subjects calls fn for the subjects that match.
func (x *Index) Subjects(filters []string, after string, fn func(string, storage.SubjectState) bool) {
	w := x.walk(filters, after)
	for w.next() {
		if !fn(strings.Clone(w.key), w.state) {
			return
		}
	}
}

// SubjectSeqs calls fn for the sequences of a subject.
func (x *Index) SubjectSeqs(subject string, from uint64, fn func(uint64) bool) {
	if l, i, ok := x.subjects.find(subject, &x.seqs); ok {
		l.ascend(i, from, fn)
	}
}

// LastSeq returns the newest matching sequence.
//
// Two searches run in turns, and the first to finish wins: back from upTo through the messages,
// and through the matching subjects. One is quick if many messages match, the other if few do.
func (x *Index) LastSeq(text string, upTo uint64) (uint64, bool) {
	if upTo == 0 || upTo > x.lastSeq {
		upTo = x.lastSeq
	}
	f := newFilter(text)
	if f.literal() {
		return x.lastOf(text, upTo)
	}
	w := x.walk([]string{text}, "")
	best := uint64(0)
	for budget := 64; ; budget *= 2 {
		seq, ok, all := x.scanBack(&f, &upTo, budget)
		if ok || all {
			return seq, ok
		}
		for range budget {
			if !w.next() {
				return best, best > 0
			}
			if w.state.Last <= best {
				continue
			}
			if seq, ok := x.lastOf(w.key, upTo); ok && seq > best {
				best = seq
			}
		}
	}
}

// scanBack looks at up to budget messages from *upTo downwards, and lowers it past them.
func (x *Index) scanBack(f *filter, upTo *uint64, budget int) (found uint64, ok, all bool) {
	c := x.seqs.cursor()
	for at := c.seekBack(*upTo); at; at = c.prev() {
		if f.match(c.subject()) {
			return c.seq(), true, true
		}
		*upTo = c.seq() - 1
		if budget--; budget == 0 {
			return 0, false, false
		}
	}
	return 0, false, true
}

// lastOf returns the newest sequence of a subject at or below upTo.
func (x *Index) lastOf(subject string, upTo uint64) (uint64, bool) {
	l, i, ok := x.subjects.find(subject, &x.seqs)
	if !ok {
		return 0, false
	}
	return l.floor(i, upTo)
}

// nextOf returns the oldest sequence of a subject at or above from.
func (x *Index) nextOf(subject string, from uint64) (seq uint64, ok bool) {
	x.SubjectSeqs(subject, from, func(s uint64) bool {
		seq, ok = s, true
		return false
	})
	return seq, ok
}

// NextSeq returns the first matching sequence at or above from. It searches in two ways at once,
// as LastSeq does.
func (x *Index) NextSeq(filters []string, from uint64) (uint64, string, bool) {
	if len(filters) == 1 && !strings.ContainsAny(filters[0], "*>") {
		seq, ok := x.nextOf(filters[0], from)
		return seq, filters[0], ok
	}
	fs := newFilters(filters)
	var w *walker
	var best uint64
	var bestSubject string
	for budget := 64; ; budget *= 2 {
		seq, subject, ok, all := x.scan(fs, &from, budget)
		if ok || all {
			return seq, subject, ok
		}
		if w == nil {
			w = x.walk(filters, "")
		}
		for range budget {
			if !w.next() {
				return best, bestSubject, best > 0
			}
			if w.state.Last < from {
				continue
			}
			if seq, ok := x.nextOf(w.key, from); ok && (best == 0 || seq < best) {
				best, bestSubject = seq, strings.Clone(w.key)
			}
		}
	}
}

// scan looks at up to budget messages from *from upwards, and raises it past them.
func (x *Index) scan(fs []filter, from *uint64, budget int) (seq uint64, subject string, ok, all bool) {
	c := x.seqs.cursor()
	for at := c.seek(*from); at; at = c.next() {
		if matchAny(fs, c.subject()) {
			return c.seq(), strings.Clone(c.subject()), true, true
		}
		*from = c.seq() + 1
		if budget--; budget == 0 {
			return 0, "", false, false
		}
	}
	return 0, "", false, true
}

// Count counts the matching messages at or above from.
func (x *Index) Count(filters []string, from uint64, lastOnly bool) uint64 {
	if from <= x.State().FirstSeq {
		return x.countAll(filters, lastOnly)
	}
	tail := x.seqs.len() - x.seqs.rank(from)
	if matchesAll(filters) && !lastOnly {
		return tail
	}
	if tail < x.subjects.len() {
		return x.countTail(newFilters(filters), from, lastOnly)
	}
	n := uint64(0)
	for w := x.walk(filters, ""); w.next(); {
		switch {
		case w.state.Last < from:
		case lastOnly:
			n++
		case w.state.First >= from:
			n += w.state.Msgs
		default:
			x.SubjectSeqs(w.key, from, func(uint64) bool { n++; return true })
		}
	}
	return n
}

// countAll is Count from the first message on. For one filter that takes a whole range of subjects
// it looks at none of them.
func (x *Index) countAll(filters []string, lastOnly bool) uint64 {
	if matchesAll(filters) {
		if lastOnly {
			return x.subjects.len()
		}
		return x.seqs.len()
	}
	if f := newFilter(filters[0]); len(filters) == 1 && f.subtree() {
		subjects, msgs := x.subjects.rank(f.prefix, &x.seqs)
		toSubjects, toMsgs := x.subjects.rank(f.prefix[:len(f.prefix)-1]+"/", &x.seqs)
		if lastOnly {
			return toSubjects - subjects
		}
		return toMsgs - msgs
	}
	n := uint64(0)
	for w := x.walk(filters, ""); w.next(); {
		if n++; !lastOnly {
			n += w.state.Msgs - 1
		}
	}
	return n
}

// countTail is Count by way of the messages, for when they are few.
func (x *Index) countTail(fs []filter, from uint64, lastOnly bool) uint64 {
	n := uint64(0)
	c := x.seqs.cursor()
	for at := c.seek(from); at; at = c.next() {
		subject := c.subject()
		if !matchAny(fs, subject) {
			continue
		}
		if lastOnly {
			if s, _ := x.Subject(subject); s.Last != c.seq() {
				continue
			}
		}
		n++
	}
	return n
}

// SeqAtTime returns the first sequence stored at or after t.
func (x *Index) SeqAtTime(t int64) uint64 {
	if seq, ok := x.seqs.firstAt(t); ok {
		return seq
	}
	return x.lastSeq + 1
}

// NextExpiry returns the message that expires first.
func (x *Index) NextExpiry() (uint64, int64, bool) {
	e, ok := x.expiry.first()
	return e.seq, e.at, ok
}

// Aux returns an auxiliary record.
func (x *Index) Aux(key string) ([]byte, bool) { return x.aux.get(key) }

// AuxRange calls fn for the auxiliary records with a prefix.
func (x *Index) AuxRange(prefix string, fn func(string, []byte) bool) {
	x.aux.t.Ascend(auxItem{key: prefix}, func(it auxItem) bool {
		return strings.HasPrefix(it.key, prefix) && fn(it.key, it.value)
	})
}

func newFilters(texts []string) []filter {
	fs := make([]filter, len(texts))
	for i, t := range texts {
		fs[i] = newFilter(t)
	}
	return fs
}

// matchAny tells whether any filter matches; an empty list matches everything.
func matchAny(fs []filter, subject string) bool {
	for i := range fs {
		if fs[i].match(subject) {
			return true
		}
	}
	return len(fs) == 0
}

func matchesAll(filters []string) bool {
	for _, f := range filters {
		if f == ">" {
			return true
		}
	}
	return len(filters) == 0
}

// walker visits the subjects that match any of a list of filters, once each, in byte order.
type walker struct {
	arms  []arm
	key   string // good until the next step
	state storage.SubjectState
	buf   []byte
}

// arm walks the matches of one filter.
type arm struct {
	f     filter
	c     *subjectCursor
	valid bool
}

func (x *Index) walk(filters []string, after string) *walker {
	if matchesAll(filters) {
		filters = []string{">"}
	}
	w := &walker{}
	for _, text := range filters {
		a := arm{f: newFilter(text), c: x.subjects.cursor(&x.seqs)}
		start := a.f.prefix
		if after >= start {
			start = after + "\x00"
		}
		a.valid = a.c.seek(start)
		if a.settle(); a.valid {
			w.arms = append(w.arms, a)
		}
	}
	return w
}

// settle moves the arm to the next match at or after where it is.
func (a *arm) settle() {
	for a.valid {
		key := a.c.key()
		ok, seek, more := a.f.step(key)
		if ok {
			return
		}
		if !more {
			a.valid = false
			return
		}
		// Often the next subject is the one sought.
		if a.valid = a.c.next(); a.valid && a.c.key() < seek {
			a.valid = a.c.seek(seek)
		}
	}
}

func (w *walker) next() bool {
	if len(w.arms) == 0 {
		return false
	}
	least := 0
	for i := 1; i < len(w.arms); i++ {
		if w.arms[i].c.key() < w.arms[least].c.key() {
			least = i
		}
	}
	w.buf = append(w.buf[:0], w.arms[least].c.key()...)
	w.key = bytesAsString(w.buf)
	w.state = w.arms[least].c.state()
	live := w.arms[:0]
	for _, a := range w.arms {
		if a.c.key() == w.key {
			a.valid = a.c.next()
			a.settle()
		}
		if a.valid {
			live = append(live, a)
		}
	}
	w.arms = live
	return true
}
