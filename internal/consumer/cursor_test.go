package consumer

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/memory"
	"github.com/cleatkv/cleat/internal/subject"
)

// testStream is an engine whose changes are reported to cursors the way a stream does it.
type testStream struct {
	t       *testing.T
	engine  *memory.Engine
	index   uint64
	history int // messages kept per subject, 0: all
	tx      storage.Tx
	events  []testEvent
}

type testEvent struct {
	seq     uint64
	subject string
	removed bool
}

func newTestStream(t *testing.T, history int) *testStream {
	return &testStream{t: t, engine: memory.New(), history: history}
}

func (s *testStream) begin() { s.tx, s.events = s.engine.Begin(), nil }

func (s *testStream) put(subj string, data string) {
	st := s.tx.State()
	m := storage.Message{Seq: st.LastSeq + 1, Time: st.LastTime + 1, Subject: subj, Data: []byte(data)}
	if err := s.tx.Append(m); err != nil {
		s.t.Fatal(err)
	}
	s.events = append(s.events, testEvent{m.Seq, subj, false})
	for s.history > 0 {
		of, _ := s.tx.Subject(subj)
		if of.Msgs <= uint64(s.history) {
			break
		}
		s.remove(of.First)
	}
}

func (s *testStream) remove(seq uint64) {
	m, err := s.tx.Load(seq)
	if err != nil {
		return
	}
	if ok, err := s.tx.Remove(seq); err != nil || !ok {
		s.t.Fatalf("remove %d: %v %v", seq, ok, err)
	}
	s.events = append(s.events, testEvent{seq, m.Subject, true})
}

func (s *testStream) purge(filter string) {
	for seq := uint64(1); ; seq++ {
		var ok bool
		if seq, _, ok = s.tx.NextSeq([]string{filter}, seq); !ok {
			return
		}
		s.remove(seq)
	}
}

// observer is what both a cursor and a consumer are to a stream.
type observer interface {
	Stored(uint64)
	Removed(storage.Reader, uint64, string)
	Settle()
}

func (s *testStream) commit(observers map[observer][]string) {
	s.index++
	if err := s.tx.Commit(storage.Applied{Index: s.index}); err != nil {
		s.t.Fatal(err)
	}
	for o, filters := range observers {
		for _, e := range s.events {
			switch {
			case !matchesAny(filters, e.subject):
			case e.removed:
				o.Removed(s.engine, e.seq, e.subject)
			default:
				o.Stored(e.seq)
			}
		}
		o.Settle()
	}
}

func matchesAny(filters []string, subj string) bool {
	return len(filters) == 0 || slices.ContainsFunc(filters, func(f string) bool { return subject.Match(f, subj) })
}

// naivePending counts what the cursor is to deliver by looking at every message.
func naivePending(r storage.Reader, c *Cursor) uint64 {
	n := uint64(0)
	newest := map[string]uint64{}
	for seq := uint64(1); seq <= r.State().LastSeq; seq++ {
		m, err := r.Load(seq)
		if err != nil || seq < c.next || !matchesAny(c.filters, m.Subject) {
			continue
		}
		if seq > c.snap {
			n++
		} else {
			newest[m.Subject] = seq
		}
	}
	return n + uint64(len(newest))
}

// watch is a cursor under test with what it delivered.
type watch struct {
	Cursor
	policy    api.DeliverPolicy
	bound     uint64 // last sequence when it was made
	delivered []uint64
	subjects  []string
}

// TestCursorPendingIsExact changes a stream at random while cursors of all kinds read it, and holds
// their figures against a count of everything after every step.
func TestCursorPendingIsExact(t *testing.T) {
	for seed := range int64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runCursors(t, rand.New(rand.NewSource(seed))) })
	}
}

var testFilters = [][]string{
	nil, {">"}, {"k.*"}, {"k.1"}, {"k.1", "k.2"}, {"*.3", "k.4"}, {"other.>"}, {"none"}, {"k.>", "other.1"},
}

func runCursors(t *testing.T, rng *rand.Rand) {
	s := newTestStream(t, []int{0, 1, 2, 5}[rng.Intn(4)])
	watches := map[observer][]string{}
	var order []*watch
	pick := func() string { return []string{"k", "k", "k", "other"}[rng.Intn(4)] + "." + fmt.Sprint(rng.Intn(8)) }
	for range 300 {
		switch rng.Intn(10) {
		case 0:
			w := newWatch(s, rng)
			watches[w] = w.filters
			order = append(order, w)
		case 1, 2, 3, 4:
			s.begin()
			for range 1 + rng.Intn(6) {
				switch n := rng.Intn(12); {
				case n < 9:
					s.put(pick(), "x")
				case n < 11:
					s.remove(uint64(rng.Intn(int(s.tx.State().LastSeq) + 1)))
				default:
					s.purge([]string{pick(), "k.*", ">"}[min(rng.Intn(8), 2)])
				}
			}
			s.commit(watches)
		default:
			if len(order) > 0 {
				deliver(t, s, order[rng.Intn(len(order))], rng.Intn(5))
			}
		}
		for range min(len(order), 3) {
			i := rng.Intn(len(order))
			w := order[i]
			if got, want := w.Pending(), naivePending(s.engine, &w.Cursor); got != want {
				t.Fatalf("watch %d (%v %v, next %d, snap %d): pending %d, want %d", i, w.policy, w.filters, w.next, w.snap, got, want)
			}
		}
	}
	for _, w := range order {
		deliver(t, s, w, 1<<30)
		checkDelivered(t, s, w)
	}
}

func newWatch(s *testStream, rng *rand.Rand) *watch {
	cfg := api.ConsumerConfig{
		DeliverPolicy:  []api.DeliverPolicy{api.DeliverAll, api.DeliverLastPerSubject, api.DeliverLastPerSubject, api.DeliverNew, api.DeliverByStartSequence, api.DeliverLast}[rng.Intn(6)],
		FilterSubjects: testFilters[rng.Intn(len(testFilters))],
	}
	if cfg.DeliverPolicy == api.DeliverByStartSequence {
		cfg.OptStartSeq = uint64(1 + rng.Intn(int(s.engine.State().LastSeq)+10))
	}
	start := StartOf(s.engine, &cfg)
	return &watch{
		Cursor: newCursor(s.engine, Filters(&cfg), start.Seq, start.Snap),
		policy: cfg.DeliverPolicy, bound: s.engine.State().LastSeq,
	}
}

func deliver(t *testing.T, s *testStream, w *watch, n int) {
	for range n {
		before := w.Pending()
		seq, ok := w.Next(s.engine)
		if ok != (before > 0) {
			t.Fatalf("Next says %v with %d pending", ok, before)
		}
		if !ok {
			w.SkipTo(s.engine.State().LastSeq)
			return
		}
		m, err := s.engine.Load(seq)
		if err != nil || !matchesAny(w.filters, m.Subject) {
			t.Fatalf("Next returned %d: %q, %v", seq, m.Subject, err)
		}
		w.Advance(seq)
		w.delivered = append(w.delivered, seq)
		w.subjects = append(w.subjects, m.Subject)
		if w.Pending() != before-1 {
			t.Fatalf("pending went from %d to %d by one delivery", before, w.Pending())
		}
	}
}

// checkDelivered holds what a cursor delivered in total against the stream as it is in the end.
func checkDelivered(t *testing.T, s *testStream, w *watch) {
	if !slices.IsSorted(w.delivered) {
		t.Fatalf("delivered out of order: %v", w.delivered)
	}
	first := map[string]bool{}
	last := map[string]uint64{}
	for i, seq := range w.delivered {
		if i > 0 && seq == w.delivered[i-1] {
			t.Fatalf("delivered %d twice", seq)
		}
		if seq <= w.bound && w.policy == api.DeliverLastPerSubject {
			if first[w.subjects[i]] {
				t.Fatalf("delivered two messages of %q from before the start", w.subjects[i])
			}
			first[w.subjects[i]] = true
		}
		last[w.subjects[i]] = seq
	}
	if w.policy != api.DeliverLastPerSubject {
		return
	}
	// Whoever puts what was delivered into a map has the newest value of every key.
	s.engine.Subjects(w.filters, "", func(subj string, of storage.SubjectState) bool {
		if last[subj] != of.Last && of.Last > w.bound {
			t.Fatalf("newest of %q is %d, delivered %d", subj, of.Last, last[subj])
		}
		return true
	})
}
