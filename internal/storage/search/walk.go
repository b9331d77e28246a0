package search

import "github.com/cleatkv/cleat/internal/storage"

// SubjectCursor walks subjects in byte order.
type SubjectCursor interface {
	Seek(key string) bool // to the first subject that is not below key
	Next() bool
	Key() string // good until the cursor moves
	State() storage.SubjectState
}

// Walker visits the subjects that match any of a list of filters, once each, in byte order.
type Walker struct {
	arms  []arm
	key   []byte
	state storage.SubjectState
}

// arm walks the matches of one filter.
type arm struct {
	f     Filter
	c     SubjectCursor
	valid bool
}

// Walk returns a walker, before the first match above after. An empty list of filters matches
// every subject.
func Walk(filters []string, after string, cursor func() SubjectCursor) *Walker {
	if MatchesAll(filters) {
		filters = []string{">"}
	}
	w := &Walker{}
	for _, text := range filters {
		a := arm{f: NewFilter(text), c: cursor()}
		start := a.f.prefix
		if after >= start {
			start = after + "\x00"
		}
		a.valid = a.c.Seek(start)
		if a.settle(); a.valid {
			w.arms = append(w.arms, a)
		}
	}
	return w
}

// settle moves the arm to the next match at or after where it is.
func (a *arm) settle() {
	for a.valid {
		key := a.c.Key()
		ok, seek, more := a.f.step(key)
		if ok {
			return
		}
		if !more {
			a.valid = false
			return
		}
		// Often the next subject is the one sought.
		if a.valid = a.c.Next(); a.valid && a.c.Key() < seek {
			a.valid = a.c.Seek(seek)
		}
	}
}

// Next goes to the next match.
func (w *Walker) Next() bool {
	if len(w.arms) == 0 {
		return false
	}
	least := 0
	for i := 1; i < len(w.arms); i++ {
		if w.arms[i].c.Key() < w.arms[least].c.Key() {
			least = i
		}
	}
	w.key = append(w.key[:0], w.arms[least].c.Key()...)
	w.state = w.arms[least].c.State()
	live := w.arms[:0]
	for _, a := range w.arms {
		if a.c.Key() == string(w.key) {
			a.valid = a.c.Next()
			a.settle()
		}
		if a.valid {
			live = append(live, a)
		}
	}
	w.arms = live
	return true
}

// Key is the current subject.
func (w *Walker) Key() string { return string(w.key) }

// State is that of the current subject.
func (w *Walker) State() storage.SubjectState { return w.state }
