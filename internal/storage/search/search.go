package search

import (
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
)

// SeqCursor walks messages in order of sequence.
type SeqCursor interface {
	Seek(seq uint64) bool     // to the first message at or above seq
	SeekBack(seq uint64) bool // to the last message at or below seq
	Next() bool
	Prev() bool
	Seq() uint64
	Subject() string // good until the cursor moves
}

// Source is one state of an engine.
type Source interface {
	State() storage.State
	Subject(subject string) (storage.SubjectState, bool)
	SubjectSeqs(subject string, from uint64, fn func(seq uint64) bool)

	// SeqCursor and SubjectCursor return new cursors, which are closed after use.
	SeqCursor() SeqCursor
	SubjectCursor() SubjectCursor

	// NextOf returns the oldest sequence of a literal subject at or above from, LastOf its newest
	// at or below upTo.
	NextOf(subject string, from uint64) (seq uint64, ok bool)
	LastOf(subject string, upTo uint64) (seq uint64, ok bool)

	// Tail is about how many messages there are at or above from.
	Tail(from uint64) uint64
}

// A search makes so many steps through the messages, then so many through the subjects, then twice
// as many of each, and so on. A step from message to message is much the cheaper one.
const (
	firstSubjects   = 16
	messagesPerStep = 16
)

// LastSeq is that of storage.Reader.
//
// Two searches run in turns, and the first to finish wins: back from upTo through the messages, and
// through the matching subjects. One is quick if many messages match, the other if few do; both
// together cost about twice what the better one would.
func LastSeq(x Source, text string, upTo uint64) (uint64, bool) {
	if last := x.State().LastSeq; upTo == 0 || upTo > last {
		upTo = last
	}
	f := NewFilter(text)
	if f.Literal() {
		return x.LastOf(text, upTo)
	}
	var w *Walker
	best := uint64(0)
	c := x.SeqCursor()
	more := c.SeekBack(upTo)
	for budget := firstSubjects; ; budget *= 2 {
		for range messagesPerStep * budget {
			if !more {
				return 0, false
			}
			if f.Match(c.Subject()) {
				return c.Seq(), true
			}
			more = c.Prev()
		}
		if w == nil {
			w = Walk([]string{text}, "", x.SubjectCursor)
		}
		for range budget {
			if !w.Next() {
				return best, best > 0
			}
			seq, ok := w.state.Last, true
			if seq > upTo {
				seq, ok = x.LastOf(w.Key(), upTo)
			}
			if ok && seq > best {
				best = seq
			}
		}
	}
}

// NextSeq is that of storage.Reader. It searches in two ways in turns, as LastSeq does.
func NextSeq(x Source, filters []string, from uint64) (uint64, string, bool) {
	if len(filters) == 1 && !strings.ContainsAny(filters[0], "*>") {
		seq, ok := x.NextOf(filters[0], from)
		return seq, filters[0], ok
	}
	fs := newFilters(filters)
	var w *Walker
	var best uint64
	var bestSubject string
	c := x.SeqCursor()
	more := c.Seek(from)
	for budget := firstSubjects; ; budget *= 2 {
		for range messagesPerStep * budget {
			if !more {
				return 0, "", false
			}
			if matchAny(fs, c.Subject()) {
				return c.Seq(), strings.Clone(c.Subject()), true
			}
			more = c.Next()
		}
		if w == nil {
			w = Walk(filters, "", x.SubjectCursor)
		}
		for range budget {
			if !w.Next() {
				return best, bestSubject, best > 0
			}
			seq, ok := w.state.First, w.state.Last >= from
			if ok && seq < from {
				seq, ok = x.NextOf(w.Key(), from)
			}
			if ok && (best == 0 || seq < best) {
				best, bestSubject = seq, w.Key()
			}
		}
	}
}

// Count is that of storage.Reader.
func Count(x Source, filters []string, from uint64, lastOnly bool) uint64 {
	st := x.State()
	if MatchesAll(filters) && from <= st.FirstSeq {
		if lastOnly {
			return st.Subjects
		}
		return st.Msgs
	}
	if from > st.FirstSeq && x.Tail(from) < st.Subjects {
		return countTail(x, newFilters(filters), from, lastOnly)
	}
	n := uint64(0)
	for w := Walk(filters, "", x.SubjectCursor); w.Next(); {
		switch s := w.State(); {
		case s.Last < from:
		case lastOnly:
			n++
		case s.First >= from:
			n += s.Msgs
		default:
			x.SubjectSeqs(w.Key(), from, func(uint64) bool { n++; return true })
		}
	}
	return n
}

// countTail counts by way of the messages, for when they are few.
func countTail(x Source, fs []Filter, from uint64, lastOnly bool) uint64 {
	n := uint64(0)
	c := x.SeqCursor()
	for more := c.Seek(from); more; more = c.Next() {
		subject := c.Subject()
		if !matchAny(fs, subject) {
			continue
		}
		if lastOnly {
			if s, _ := x.Subject(subject); s.Last != c.Seq() {
				continue
			}
		}
		n++
	}
	return n
}

func newFilters(texts []string) []Filter {
	fs := make([]Filter, len(texts))
	for i, t := range texts {
		fs[i] = NewFilter(t)
	}
	return fs
}

// matchAny tells whether any filter matches; an empty list matches everything.
func matchAny(fs []Filter, subject string) bool {
	for i := range fs {
		if fs[i].Match(subject) {
			return true
		}
	}
	return len(fs) == 0
}

// Matcher returns a function that tells whether a subject matches one of the filters.
func Matcher(filters []string) func(subject string) bool {
	if MatchesAll(filters) {
		return func(string) bool { return true }
	}
	fs := newFilters(filters)
	return func(subject string) bool { return matchAny(fs, subject) }
}

// MatchesAll tells whether a list of filters matches every subject.
func MatchesAll(filters []string) bool {
	for _, f := range filters {
		if f == ">" {
			return true
		}
	}
	return len(filters) == 0
}
