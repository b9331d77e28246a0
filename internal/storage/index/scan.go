package index

import "github.com/cleatkv/cleat/internal/storage/search"

// Match calls fn for the entries at or above from whose subject matches a filter, ascending, until fn
// returns false. It looks at every entry on the way: it is for filters that most of them match. fn
// must not keep e or its subject.
func (x *Index) Match(filters []string, from uint64, fn func(e *Entry) bool) {
	matches := search.Matcher(filters)
	x.Ascend(from, func(e *Entry) bool { return !matches(e.Subject) || fn(e) })
}
