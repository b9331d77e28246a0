package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// mixKeys is how many keys the clients of the mixed load share. They are judged together, as the order
// of a bucket spans its keys.
const mixKeys = 5

// mixInput is one operation on a bucket.
type mixInput struct {
	op       string // write, read (one key), at (one revision), all (every key at once)
	key      int
	id       string // of a write: told apart from all others by it
	marker   bool   // the write is a delete or a purge
	guarded  bool   // the write demands that the last revision of the key is expected
	expected uint64 // of a guarded write, and of "at"
	ttl      int64  // of a write, in nanoseconds; 0: none
	call     int64
}

// seen is what a read saw of one key.
type seen struct {
	revision uint64 // 0: nothing is stored
	id       string // empty: nobody's, but that of a key whose time was over
}

type mixOutput struct {
	unknown  bool
	refused  bool // a guarded write that was not taken
	revision uint64
	// revision of a write: its own; of a refused one: the last of the key, as the error told.
	seen [mixKeys]seen // one of them, unless all were read
	done int64
}

// cell is one key of a bucket.
type cell struct {
	id       string // of the write that is stored; empty: none, or what an expired key left
	marker   bool
	revision uint64 // 0: none
	open     bool   // the revision is not known, but above floor
	floor    uint64
	dies     int64 // from when on its time may be over; 0: never
}

// mixState is a whole bucket. Nearly every revision is known, so that there is hardly a choice which
// operation is next.
type mixState struct {
	cells [mixKeys]cell
	last  uint64 // of the bucket
	open  bool   // there may be later ones, of unknown operations
}

// mixModel makes the model for a history. Whose a revision is is known of nearly all of them; only
// in the gaps between those may a write have happened of which nobody knows.
func mixModel(history []porcupine.Operation) porcupine.Model {
	o := owned{}
	for _, op := range history {
		o.note(op.Input.(mixInput), op.Output.(mixOutput))
	}
	return porcupine.Model{
		Init: func() any { return mixState{} },
		Step: func(s, in, out any) (bool, any) {
			ok, next := s.(mixState).step(in.(mixInput), out.(mixOutput), &o)
			return ok, next
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
	}
}

// owned is which revisions belong to a write that is known. Those that the ends of keys took are taken
// before anybody sees them.
type owned struct {
	known map[uint64]bool
	last  uint64
	begun map[uint64]int64 // when the write with that revision was
}

// lingerMax is how long after its client gave up a write may still happen. Faults end sooner. Without a bound
// each would be a candidate for each gap that comes later.
const lingerMax = int64(20 * time.Second)

func (o *owned) note(in mixInput, out mixOutput) {
	all := []uint64{}
	if o.known == nil {
		o.known, o.begun = map[uint64]bool{0: true}, map[uint64]int64{}
	}
	if in.op == "write" && !out.refused {
		all = append(all, out.revision)
		o.begun[out.revision] = in.call
	}
	for _, s := range out.seen {
		if s.id != "" {
			all = append(all, s.revision)
		}
	}
	for _, revision := range all {
		o.known[revision] = true
		o.last = max(o.last, revision)
	}
}

// free tells whether nobody is known to own any revision between two.
func (o *owned) free(above, below uint64) bool {
	for r := above + 1; r < below; r++ {
		if o.known[r] {
			return false
		}
	}
	return true
}

func (s mixState) step(in mixInput, out mixOutput, o *owned) (bool, mixState) {
	switch in.op {
	case "write":
		return s.write(in, out, o)
	case "at":
		return s.readAt(in, out)
	case "all":
		for k := range s.cells {
			ok, next := s.see(k, out.seen[k], out.done)
			if !ok {
				return false, s
			}
			s = next
		}
		return true, s
	default:
		return s.see(in.key, out.seen[in.key], out.done)
	}
}

func (s mixState) write(in mixInput, out mixOutput, o *owned) (bool, mixState) {
	if out.refused {
		if out.revision == in.expected {
			return false, s
		}
		return s.hold(in.key, out.revision, out.done)
	}
	if out.unknown && out.revision == 0 {
		if s.last >= o.last {
			return true, s // Behind everything that anybody saw it does not matter.
		}
		if !o.free(s.last, s.last+2) || o.begun[s.last] > in.call+lingerMax {
			return false, s
		}
	}
	if in.guarded {
		ok, before := s.hold(in.key, in.expected, out.done)
		if !ok {
			return false, s
		}
		s = before
	}
	c := cell{id: in.id, marker: in.marker, revision: out.revision}
	if in.ttl > 0 {
		c.dies = in.call + in.ttl
	}
	if out.unknown && out.revision == 0 {
		c.open, c.floor = true, s.last
		s.cells[in.key], s.open = c, true
		return true, s
	}
	if out.revision <= s.last || out.revision != s.last+1 && !(s.gap(out.done) && o.free(s.last, out.revision)) {
		return false, s
	}
	s.cells[in.key], s.last, s.open = c, out.revision, false
	return true, s
}

// gap tells whether revisions may have been taken that no operation owns up to.
func (s mixState) gap(now int64) bool {
	return s.open || slices.ContainsFunc(s.cells[:], func(c cell) bool { return c.dies != 0 && c.dies <= now })
}

// see holds what a read saw of a key against the state.
func (s mixState) see(key int, got seen, now int64) (bool, mixState) {
	c := s.cells[key]
	if got.id == c.id {
		return s.learn(key, got.revision)
	}
	if got.id != "" {
		return false, s
	}
	return s.expired(key, got.revision, now)
}

// hold is see for a revision alone.
func (s mixState) hold(key int, revision uint64, now int64) (bool, mixState) {
	if ok, next := s.learn(key, revision); ok {
		return ok, next
	}
	return s.expired(key, revision, now)
}

func (s mixState) learn(key int, revision uint64) (bool, mixState) {
	c := &s.cells[key]
	if !c.open {
		return c.revision == revision, s
	}
	if revision <= c.floor {
		return false, s
	}
	c.open, c.revision = false, revision
	s.last = max(s.last, revision)
	return true, s
}

// expired lets a key expire, which leaves a marker with that revision.
func (s mixState) expired(key int, revision uint64, now int64) (bool, mixState) {
	c := &s.cells[key]
	if c.dies == 0 || c.dies > now || revision <= max(c.revision, c.floor) {
		return false, s
	}
	*c = cell{marker: true, revision: revision}
	s.last = max(s.last, revision)
	return true, s
}

// readAt is a read of a revision, which is there only while it is the last one of its key.
func (s mixState) readAt(in mixInput, out mixOutput) (bool, mixState) {
	c := s.cells[in.key]
	if got := out.seen[in.key]; got.revision != 0 {
		return s.see(in.key, got, out.done)
	}
	return c.open || c.revision != in.expected || c.dies != 0 && c.dies <= out.done, s
}

// The checker of the mixed load must be able to fail, in each of its rules.
func TestMixModelFindsPlanted(t *testing.T) {
	write := func(call, done int64, in mixInput, out mixOutput) porcupine.Operation {
		in.op, in.call, out.done = "write", call, done
		return porcupine.Operation{Input: in, Output: out, Call: call, Return: done}
	}
	read := func(op string, call, done int64, expected uint64, got ...seen) porcupine.Operation {
		out := mixOutput{done: done}
		copy(out.seen[:], got)
		return porcupine.Operation{Input: mixInput{op: op, expected: expected, call: call}, Output: out, Call: call, Return: done}
	}
	a := write(1, 2, mixInput{id: "a"}, mixOutput{revision: 1})
	b := write(3, 4, mixInput{id: "b", key: 1}, mixOutput{revision: 2})
	c := write(5, 6, mixInput{id: "c"}, mixOutput{revision: 3})
	brief := write(1, 2, mixInput{id: "t", ttl: 10}, mixOutput{revision: 1})
	lost := write(3, 1<<62, mixInput{id: "u"}, mixOutput{unknown: true})
	for name, h := range map[string]struct {
		ops []porcupine.Operation
		ok  bool
	}{
		"right":                         {[]porcupine.Operation{a, b, c, read("all", 7, 8, 0, seen{3, "c"}, seen{2, "b"})}, true},
		"a view of two moments":         {[]porcupine.Operation{a, b, c, read("all", 1, 8, 0, seen{3, "c"}, seen{})}, false},
		"a view of one moment":          {[]porcupine.Operation{a, b, c, read("all", 1, 8, 0, seen{1, "a"}, seen{2, "b"})}, true},
		"stale":                         {[]porcupine.Operation{a, b, c, read("read", 7, 8, 0, seen{1, "a"})}, false},
		"an old revision":               {[]porcupine.Operation{a, b, c, read("at", 7, 8, 1, seen{1, "a"})}, false},
		"an old revision, gone":         {[]porcupine.Operation{a, b, c, read("at", 7, 8, 1)}, true},
		"the last revision, gone":       {[]porcupine.Operation{a, b, c, read("at", 7, 8, 3)}, false},
		"out of order across keys":      {[]porcupine.Operation{a, write(3, 4, mixInput{id: "b", key: 1}, mixOutput{revision: 3}), write(5, 6, mixInput{id: "c"}, mixOutput{revision: 2})}, false},
		"a revision that nobody took":   {[]porcupine.Operation{a, write(3, 4, mixInput{id: "b", key: 1}, mixOutput{revision: 3})}, false},
		"one that somebody may have":    {[]porcupine.Operation{a, lost, write(3, 4, mixInput{id: "b", key: 1}, mixOutput{revision: 3})}, true},
		"expired early":                 {[]porcupine.Operation{brief, read("read", 5, 10, 0, seen{2, ""})}, false},
		"expired":                       {[]porcupine.Operation{brief, read("read", 5, 12, 0, seen{2, ""})}, true},
		"back from the dead":            {[]porcupine.Operation{brief, read("read", 5, 12, 0, seen{2, ""}), read("read", 13, 14, 0, seen{1, "t"})}, false},
		"deleted, and not":              {[]porcupine.Operation{a, write(3, 4, mixInput{id: "d", marker: true}, mixOutput{revision: 2}), read("read", 7, 8, 0, seen{1, "a"})}, false},
		"refused for no reason":         {[]porcupine.Operation{a, write(3, 4, mixInput{id: "d", guarded: true, expected: 1}, mixOutput{refused: true, revision: 1})}, false},
		"refused for another's":         {[]porcupine.Operation{a, write(3, 4, mixInput{id: "d", guarded: true}, mixOutput{refused: true, revision: 1})}, true},
		"refused for what is not there": {[]porcupine.Operation{a, write(3, 4, mixInput{id: "d", guarded: true}, mixOutput{refused: true, revision: 2})}, false},
		"two guarded writes": {[]porcupine.Operation{a, write(3, 6, mixInput{id: "d", guarded: true, expected: 1}, mixOutput{revision: 2}),
			write(3, 6, mixInput{id: "e", guarded: true, expected: 1}, mixOutput{revision: 3})}, false},
		"unknown, and seen to be there": {[]porcupine.Operation{a, lost, write(5, 6, mixInput{id: "d", guarded: true, expected: 2}, mixOutput{revision: 3})}, true},
		"unknown, and others' revisions": {[]porcupine.Operation{a, lost, write(5, 6, mixInput{id: "d", key: 1}, mixOutput{revision: 2}),
			write(7, 8, mixInput{id: "e", guarded: true, expected: 2}, mixOutput{revision: 3})}, false},
		"unknown, guarded, and idle": {[]porcupine.Operation{a, write(3, 1<<62, mixInput{id: "d", guarded: true, expected: 9}, mixOutput{unknown: true}), read("read", 7, 8, 0, seen{1, "a"})}, true},
	} {
		if got := porcupine.CheckOperations(mixModel(h.ops), h.ops); got != h.ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}
