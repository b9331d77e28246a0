package index

import (
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/search"
)

// The methods below implement storage.Reader, but for Load, and search.Source.

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
	w := search.Walk(filters, after, x.SubjectCursor)
	for w.Next() {
		if !fn(w.Key(), w.State()) {
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

// LastOf returns the newest sequence of a subject at or below upTo.
func (x *Index) LastOf(subject string, upTo uint64) (uint64, bool) {
	l, i, ok := x.subjects.find(subject, &x.seqs)
	if !ok {
		return 0, false
	}
	return l.floor(i, upTo)
}

// NextOf returns the oldest sequence of a subject at or above from.
func (x *Index) NextOf(subject string, from uint64) (seq uint64, ok bool) {
	x.SubjectSeqs(subject, from, func(s uint64) bool {
		seq, ok = s, true
		return false
	})
	return seq, ok
}

// SeqCursor returns a cursor over the messages.
func (x *Index) SeqCursor() search.SeqCursor { return x.seqs.cursor() }

// SubjectCursor returns a cursor over the subjects.
func (x *Index) SubjectCursor() search.SubjectCursor { return x.subjects.cursor(&x.seqs) }

// Tail is how many messages there are at or above from.
func (x *Index) Tail(from uint64) uint64 { return x.seqs.len() - x.seqs.rank(from) }

// LastSeq returns the newest matching sequence.
func (x *Index) LastSeq(filter string, upTo uint64) (uint64, bool) {
	return search.LastSeq(x, filter, upTo)
}

// NextSeq returns the first matching sequence at or above from.
func (x *Index) NextSeq(filters []string, from uint64) (uint64, string, bool) {
	return search.NextSeq(x, filters, from)
}

// Count counts the matching messages at or above from. Where all messages, or one whole range of
// subjects, count, it looks at none of them.
func (x *Index) Count(filters []string, from uint64, lastOnly bool) uint64 {
	first := x.State().FirstSeq
	if search.MatchesAll(filters) && !lastOnly {
		return x.Tail(from)
	}
	if from <= first && len(filters) == 1 {
		f := search.NewFilter(filters[0])
		if prefix, to, ok := f.Subtree(); ok {
			subjects, msgs := x.subjects.rank(prefix, &x.seqs)
			toSubjects, toMsgs := x.subjects.rank(to, &x.seqs)
			if lastOnly {
				return toSubjects - subjects
			}
			return toMsgs - msgs
		}
	}
	return search.Count(x, filters, from, lastOnly)
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
