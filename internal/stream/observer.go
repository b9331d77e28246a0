package stream

import (
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// Observer follows the messages of a stream that match its filters, so that it can keep exact
// counts without ever counting again.
//
// One change of the stream is one log entry. The observer hears of it right after it took effect:
// Stored and Removed for each message, in the order in which they happened, then, if there was a
// removal, Settle. r shows
// the stream as it is after the whole change. No View runs meanwhile. The calls come from the
// goroutine that applies; they must be short, and must not call back into the Stream.
type Observer interface {
	Stored(seq uint64, subject string)
	Removed(r storage.Reader, seq uint64, subject string)
	Settle()

	// Replaced says that the whole state was replaced by a snapshot: count anew.
	Replaced(r storage.Reader)
}

// event is one message stored or removed.
type event struct {
	seq     uint64
	subject string
	removed bool
}

// observers is the set of registered observers, found by subject.
type observers struct {
	all     map[Observer][]string // with their filters
	trie    subject.Trie[Observer]
	match   subject.Result[Observer] // reused
	touched map[Observer]struct{}    // those told of a removal by the change in progress
}

// Observe registers o for the messages that match one of the filters (none: every message) and
// calls create, in the same moment, with the state that o's first event will follow. create may
// read r but not keep it. With an error o is not registered, and what create has read is worthless.
func (s *Stream) Observe(o Observer, filters []string, create func(r storage.Reader)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if create != nil {
		create(s.engine)
	}
	if err := s.engine.Err(); err != nil {
		return err
	}
	s.observers.add(o, filters)
	return nil
}

// Unobserve ends o's registration; no call is made to o afterwards.
func (s *Stream) Unobserve(o Observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observers.remove(o)
}

// View runs fn while no change takes effect: what fn reads in several steps belongs together, and
// observers are not called meanwhile. Several views run at the same time. fn must be short and
// must not call back into the Stream. With an error what fn has read is worthless.
func (s *Stream) View(fn func(r storage.Reader)) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	fn(s.engine)
	return s.engine.Err()
}

// Freeze holds on to the stream as it is now, or, called by what Observe or View runs, as that sees it. The
// caller releases it.
func (s *Stream) Freeze() storage.Frozen { return s.engine.Freeze() }

func (s *observers) add(o Observer, filters []string) {
	if s.all == nil {
		s.all = make(map[Observer][]string)
		s.touched = make(map[Observer]struct{})
	}
	s.remove(o)
	filters = observedFilters(filters)
	s.all[o] = filters
	for _, f := range filters {
		s.trie.Insert(f, "", o)
	}
}

func (s *observers) remove(o Observer) {
	for _, f := range s.all[o] {
		s.trie.Remove(f, "", o)
	}
	delete(s.all, o)
}

func observedFilters(filters []string) []string {
	if len(filters) == 0 {
		return []string{">"}
	}
	return append([]string(nil), filters...)
}

// tell delivers the events of one change.
func (s *observers) tell(r storage.Reader, events []event) {
	if len(s.all) == 0 {
		return
	}
	for i := range events {
		e := &events[i]
		s.trie.Match(e.subject, &s.match)
		for _, list := range s.match.Plain {
			for _, o := range list {
				if !e.removed {
					o.Stored(e.seq, e.subject)
					continue
				}
				o.Removed(r, e.seq, e.subject)
				s.touched[o] = struct{}{}
			}
		}
	}
	if len(s.touched) > 0 {
		for o := range s.touched { // order: each settles its own books
			o.Settle()
		}
		clear(s.touched)
	}
}

// replaced tells all observers to count anew.
func (s *observers) replaced(r storage.Reader) {
	for o := range s.all { // order: each keeps its own count
		o.Replaced(r)
	}
}
