package faults

import (
	"fmt"
	"slices"
	"strings"
)

// effect is what an operation changes in a bucket.
type effect struct {
	kind       effectKind
	seq        uint64 // that a message got
	key, value string
	marker     string // KV-Operation
}

type effectKind uint8

const (
	creates effectKind = iota
	deletes
	puts   // one more message, of a value or a delete marker
	purges // one more message, of a purge marker, and the key's others go
)

// state is what a bucket holds: nil if there is none.
type state struct {
	history  int
	last     uint64
	messages []stored // by sequence
}

type stored struct {
	seq                uint64
	key, value, marker string
}

func (s *state) String() string {
	if s == nil {
		return "no bucket"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "up to %d:", s.last)
	for _, m := range s.messages {
		fmt.Fprintf(&b, " %d:%s=%s%s", m.seq, m.key, m.value, m.marker)
	}
	return b.String()
}

// apply returns the state after an effect.
func (s *state) apply(e effect, history int) *state {
	switch e.kind {
	case creates:
		return &state{history: history}
	case deletes:
		return nil
	}
	n := &state{history: s.history, last: e.seq, messages: slices.Clone(s.messages)}
	keep := n.history - 1
	if e.kind == purges {
		keep = 0
	}
	for excess := n.count(e.key) - keep; excess > 0; excess-- {
		oldest := slices.IndexFunc(n.messages, func(m stored) bool { return m.key == e.key })
		n.messages = slices.Delete(n.messages, oldest, oldest+1)
	}
	n.messages = append(n.messages, stored{e.seq, e.key, e.value, e.marker})
	return n
}

func (s *state) count(key string) (n int) {
	for _, m := range s.messages {
		if m.key == key {
			n++
		}
	}
	return n
}

// get returns the last message of a key.
func (s *state) get(key string) (m stored, ok bool) {
	if s == nil {
		return m, false
	}
	for _, m := range slices.Backward(s.messages) {
		if m.key == key {
			return m, true
		}
	}
	return m, false
}

// bucket is what the client knows of one: the states it went through, with the effect of each
// operation that was acknowledged. One that was not answered may have had its effect, and then
// nothing is asked of the bucket any more that would change it.
type bucket struct {
	name    string
	engine  string
	history int
	states  []*state
	unknown *effect

	floor uint64 // up to here a consumer's messages are acknowledged
}

func newBucket(name, engine string, history int) *bucket {
	return &bucket{name: name, engine: engine, history: history, states: []*state{nil}}
}

func (b *bucket) now() *state { return b.states[len(b.states)-1] }

func (b *bucket) acknowledged(e effect) { b.states = append(b.states, b.now().apply(e, b.history)) }

// possible returns the states that the bucket may be in, if so many effects were acknowledged before
// and no more are known to be under way.
func (b *bucket) possible(acked int) []*state {
	all := slices.Clone(b.states[acked:])
	if b.unknown != nil {
		all = append(all, b.now().apply(*b.unknown, b.history))
	}
	return all
}

// judge says what is wrong with a state that was found.
func judge(name string, found *state, possible []*state) error {
	for _, want := range possible {
		if found.String() == want.String() {
			return nil
		}
	}
	want := make([]string, len(possible))
	for i, s := range possible {
		want[i] = s.String()
	}
	return fmt.Errorf("bucket %s holds\n  %s\nwant\n  %s", name, found, strings.Join(want, "\nor\n  "))
}
