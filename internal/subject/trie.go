package subject

import (
	"slices"
	"strings"
	"sync"
)

// Trie finds values by subject: each value is stored under a pattern, plainly or as a member of a
// named queue group. One walk over the tokens of a subject finds all; there is no cache of
// results, so a subject that is seen only once (the reply of a request) costs no more than any.
//
// Lists of values are never changed in place once readers may hold them: an insert appends behind
// the length that readers know, a removal makes a new list. A Result therefore stays readable
// after the lock is gone.
type Trie[T comparable] struct {
	mu    sync.RWMutex
	root  level[T]
	count int
}

// level is what may follow a given prefix of tokens.
type level[T comparable] struct {
	literal map[string]*node[T]
	star    *node[T]
	tail    *node[T]
}

// node is one token at its place. next is nil for ">" and where nothing follows.
type node[T comparable] struct {
	plain  []T
	groups []Group[T]
	next   *level[T]
}

// Group is the members of one queue group that a subject reaches.
type Group[T comparable] struct {
	Name    string
	Members []T
}

// Result is what one Match found. Reusing it spares allocations. The lists in it are shared with
// the trie and only read.
type Result[T comparable] struct {
	Plain  [][]T
	Groups []Group[T]
}

// Empty tells whether nothing was found.
func (r *Result[T]) Empty() bool { return len(r.Plain) == 0 && len(r.Groups) == 0 }

// Group returns the members of the named group, nil if it was not found.
func (r *Result[T]) Group(name string) []T {
	for i := range r.Groups {
		if r.Groups[i].Name == name {
			return r.Groups[i].Members
		}
	}
	return nil
}

func (r *Result[T]) reset() {
	clear(r.Plain)
	clear(r.Groups)
	r.Plain = r.Plain[:0]
	r.Groups = r.Groups[:0]
}

// collect adds what a matching node holds. A group name reached through several patterns is one
// group, since it gets one copy of a message in total.
func (r *Result[T]) collect(n *node[T]) {
	if len(n.plain) > 0 {
		r.Plain = append(r.Plain, n.plain)
	}
next:
	for _, g := range n.groups {
		for i := range r.Groups {
			if r.Groups[i].Name == g.Name {
				r.Groups[i].Members = slices.Concat(r.Groups[i].Members, g.Members)
				continue next
			}
		}
		r.Groups = append(r.Groups, g)
	}
}

// Insert stores v under the pattern, in the queue group if that is not empty. The pattern must be
// Valid; the same value may be stored several times and is then found as often.
func (t *Trie[T]) Insert(pattern, queue string, v T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	l := &t.root
	for {
		tok, rest, more := strings.Cut(pattern, ".")
		n := l.descend(tok, more)
		if !more {
			n.add(queue, v)
			return
		}
		if n.next == nil {
			n.next = &level[T]{}
		}
		l, pattern = n.next, rest
	}
}

// descend returns the node of a token, made if need be.
func (l *level[T]) descend(tok string, more bool) *node[T] {
	switch {
	case tok == star:
		if l.star == nil {
			l.star = &node[T]{}
		}
		return l.star
	case tok == tail && !more:
		if l.tail == nil {
			l.tail = &node[T]{}
		}
		return l.tail
	}
	n := l.literal[tok]
	if n == nil {
		n = &node[T]{}
		if l.literal == nil {
			l.literal = make(map[string]*node[T])
		}
		l.literal[strings.Clone(tok)] = n // A key must not pin the whole pattern.
	}
	return n
}

func (n *node[T]) add(queue string, v T) {
	if queue == "" {
		n.plain = append(n.plain, v)
		return
	}
	for i := range n.groups {
		if n.groups[i].Name == queue {
			n.groups[i].Members = append(n.groups[i].Members, v)
			return
		}
	}
	n.groups = append(n.groups, Group[T]{Name: queue, Members: []T{v}})
}

// Remove takes one v stored under the pattern and queue away and tells whether there was one.
func (t *Trie[T]) Remove(pattern, queue string, v T) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.root.remove(pattern, queue, v) {
		return false
	}
	t.count--
	return true
}

func (l *level[T]) remove(pattern, queue string, v T) bool {
	tok, rest, more := strings.Cut(pattern, ".")
	n := l.find(tok, more)
	if n == nil {
		return false
	}
	if more {
		if n.next == nil || !n.next.remove(rest, queue, v) {
			return false
		}
		if n.next.empty() {
			n.next = nil
		}
	} else if !n.drop(queue, v) {
		return false
	}
	if n.empty() {
		l.prune(tok, n)
	}
	return true
}

func (l *level[T]) find(tok string, more bool) *node[T] {
	switch {
	case tok == star:
		return l.star
	case tok == tail && !more:
		return l.tail
	}
	return l.literal[tok]
}

func (l *level[T]) prune(tok string, n *node[T]) {
	switch n {
	case l.star:
		l.star = nil
	case l.tail:
		l.tail = nil
	default:
		delete(l.literal, tok)
	}
}

func (l *level[T]) empty() bool { return len(l.literal) == 0 && l.star == nil && l.tail == nil }

func (n *node[T]) empty() bool { return !n.holds() && n.next == nil }

func (n *node[T]) drop(queue string, v T) bool {
	if queue == "" {
		kept, ok := without(n.plain, v)
		n.plain = kept
		return ok
	}
	for i := range n.groups {
		if n.groups[i].Name != queue {
			continue
		}
		kept, ok := without(n.groups[i].Members, v)
		n.groups[i].Members = kept
		if len(kept) == 0 {
			n.groups = slices.Delete(n.groups, i, i+1)
		}
		return ok
	}
	return false
}

// without returns a new list that lacks the first v; the old one may be in the hands of readers.
func without[T comparable](list []T, v T) ([]T, bool) {
	i := slices.Index(list, v)
	if i < 0 {
		return list, false
	}
	if len(list) == 1 {
		return nil, true
	}
	kept := make([]T, 0, len(list)-1)
	kept = append(kept, list[:i]...)
	return append(kept, list[i+1:]...), true
}

// Len is the number of values stored.
func (t *Trie[T]) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.count
}

// Match fills r with all values whose pattern matches the subject, taken literally token by token.
func (t *Trie[T]) Match(subject string, r *Result[T]) {
	r.reset()
	t.mu.RLock()
	t.root.match(subject, r)
	t.mu.RUnlock()
}

func (l *level[T]) match(subject string, r *Result[T]) {
	for {
		if l.tail != nil {
			r.collect(l.tail)
		}
		i := strings.IndexByte(subject, sep)
		if i < 0 {
			if l.star != nil {
				r.collect(l.star)
			}
			if n := l.literal[subject]; n != nil {
				r.collect(n)
			}
			return
		}
		tok, rest := subject[:i], subject[i+1:]
		if l.star != nil && l.star.next != nil {
			l.star.next.match(rest, r)
		}
		n := l.literal[tok]
		if n == nil || n.next == nil {
			return
		}
		l, subject = n.next, rest
	}
}

// Has tells whether any value is stored under a pattern that matches the subject.
func (t *Trie[T]) Has(subject string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.root.has(subject)
}

func (l *level[T]) has(subject string) bool {
	for {
		if l.tail != nil {
			return true
		}
		tok, rest, more := strings.Cut(subject, ".")
		n := l.literal[tok]
		if !more {
			return l.star != nil && l.star.holds() || n != nil && n.holds()
		}
		if l.star != nil && l.star.next != nil && l.star.next.has(rest) {
			return true
		}
		if n == nil || n.next == nil {
			return false
		}
		l, subject = n.next, rest
	}
}

func (n *node[T]) holds() bool { return len(n.plain) > 0 || len(n.groups) > 0 }

// Overlapping calls fn with every value whose pattern overlaps the given one, in no order,
// under the read lock: fn must not call the trie.
func (t *Trie[T]) Overlapping(pattern string, fn func(v T)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.root.overlapping(pattern, fn)
}

func (l *level[T]) overlapping(pattern string, fn func(T)) {
	tok, rest, more := strings.Cut(pattern, ".")
	if tok == tail && !more {
		l.each(fn)
		return
	}
	if l.tail != nil {
		l.tail.values(fn)
	}
	step := func(n *node[T]) {
		switch {
		case n == nil:
		case !more:
			n.values(fn)
		case n.next != nil:
			n.next.overlapping(rest, fn)
		}
	}
	step(l.star)
	if tok != star {
		step(l.literal[tok])
		return
	}
	for _, n := range l.literal { // order: none is promised
		step(n)
	}
}

// Each calls fn with every value, in no order, under the read lock: fn must not call the trie.
func (t *Trie[T]) Each(fn func(v T)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.root.each(fn)
}

func (l *level[T]) each(fn func(T)) {
	visit := func(n *node[T]) {
		if n == nil {
			return
		}
		n.values(fn)
		if n.next != nil {
			n.next.each(fn)
		}
	}
	visit(l.star)
	visit(l.tail)
	for _, n := range l.literal { // order: none is promised
		visit(n)
	}
}

func (n *node[T]) values(fn func(T)) {
	for _, v := range n.plain {
		fn(v)
	}
	for _, g := range n.groups {
		for _, v := range g.Members {
			fn(v)
		}
	}
}
