package index

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/storage"
)

// plain is an index that scans.
type plain struct {
	entries  map[uint64]Entry
	subjects map[string][]uint64
	last     uint64
}

func newPlain() *plain {
	return &plain{entries: make(map[uint64]Entry), subjects: make(map[string][]uint64)}
}

func (p *plain) append(e Entry) {
	p.entries[e.Seq] = e
	p.subjects[e.Subject] = append(p.subjects[e.Subject], e.Seq)
	p.last = e.Seq
}

func (p *plain) remove(seq uint64) {
	e := p.entries[seq]
	delete(p.entries, seq)
	seqs := p.subjects[e.Subject]
	i, _ := slices.BinarySearch(seqs, seq)
	if p.subjects[e.Subject] = slices.Delete(seqs, i, i+1); len(seqs) == 1 {
		delete(p.subjects, e.Subject)
	}
}

// same checks that x holds exactly what p does, and that its nodes are in order.
func (p *plain) same(t *testing.T, x *Index) {
	t.Helper()
	checkSeqs(t, x)
	checkSubjects(t, x)
	seqs := make([]uint64, 0, len(p.entries))
	for seq := range p.entries {
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)
	i := 0
	x.Ascend(0, func(e *Entry) bool {
		if i == len(seqs) || *e != p.entries[seqs[i]] {
			t.Fatalf("entry %d: got %+v", i, *e)
		}
		i++
		return true
	})
	if i != len(seqs) {
		t.Fatalf("%d entries, want %d", i, len(seqs))
	}
	names := make([]string, 0, len(p.subjects))
	for s := range p.subjects {
		names = append(names, s)
	}
	slices.Sort(names)
	i = 0
	x.Subjects(nil, "", func(s string, st storage.SubjectState) bool {
		if i == len(names) || s != names[i] {
			t.Fatalf("subject %d: got %q", i, s)
		}
		var got []uint64
		x.SubjectSeqs(s, 0, func(seq uint64) bool { got = append(got, seq); return true })
		want := p.subjects[s]
		if !slices.Equal(got, want) || st.Msgs != uint64(len(want)) || st.First != want[0] || st.Last != want[len(want)-1] {
			t.Fatalf("subject %q: got %+v %v, want %v", s, st, got, want)
		}
		i++
		return true
	})
	if i != len(names) {
		t.Fatalf("%d subjects, want %d", i, len(names))
	}
}

// checkSeqs checks order and counts in the sequence tree.
func checkSeqs(t *testing.T, x *Index) {
	t.Helper()
	var visit func(n *seqInner, low uint64) uint64
	visit = func(n *seqInner, low uint64) uint64 {
		total := uint64(0)
		for i, minimum := range n.mins[:n.n] {
			if i > 0 && minimum <= n.mins[i-1] {
				t.Fatalf("mins do not ascend: %v", n.mins)
			}
			var count uint64
			if !n.bottom {
				count = visit(n.inners[i], max(low, minimum))
			} else {
				l := n.leaves[i]
				count = uint64(l.len())
				if first := l.get(0, colSeq); first < max(low, minimum) {
					t.Fatalf("sequence %d in a child that begins at %d", first, minimum)
				}
			}
			if count == 0 || count != n.counts[i] {
				t.Fatalf("child %d has %d entries, the node says %d", i, count, n.counts[i])
			}
			total += count
		}
		return total
	}
	visit(x.seqs.root, 0)
}

// checkSubjects checks order and counts in the subject tree.
func checkSubjects(t *testing.T, x *Index) {
	t.Helper()
	var visit func(n *subjectInner) (subjects, msgs uint64)
	visit = func(n *subjectInner) (subjects, msgs uint64) {
		for i := range n.kids[:n.n] {
			k := &n.kids[i]
			if i > 1 && k.low <= n.kids[i-1].low {
				t.Fatalf("lows do not ascend: %q, %q", n.kids[i-1].low, k.low)
			}
			if i > 0 && n.child(k.low) != i {
				t.Fatalf("low %q of child %d is sought in child %d", k.low, i, n.child(k.low))
			}
			var s, m uint64
			if !n.bottom {
				s, m = visit(k.inner)
			} else {
				s = uint64(k.leaf.len())
				for row := range k.leaf.len() {
					m += k.leaf.get(row, colMore) + 1
					if key := string(x.seqs.appendSubject(nil, k.leaf.get(row, colLast))); i > 0 && key < k.low {
						t.Fatalf("subject %q in a child that begins at %q", key, k.low)
					}
				}
			}
			if s == 0 || s != k.subjects || m != k.msgs {
				t.Fatalf("child %d has %d subjects and %d messages, the node says %d and %d", i, s, m, k.subjects, k.msgs)
			}
			subjects += s
			msgs += m
		}
		return subjects, msgs
	}
	visit(x.subjects.root)
}

func TestIndexAgainstPlain(t *testing.T) {
	shapes := map[string]func(*rand.Rand) string{
		"random":    func(rng *rand.Rand) string { return fmt.Sprintf("%x", rng.Uint64N(1<<40)) },
		"numbered":  func(rng *rand.Rand) string { return fmt.Sprintf("$KV.bucket.user-%015d", rng.IntN(9000)) },
		"tokens":    func(rng *rand.Rand) string { return fmt.Sprintf("a.%d.b.%d", rng.IntN(60), rng.IntN(200)) },
		"few":       func(rng *rand.Rand) string { return fmt.Sprintf("events.%d", rng.IntN(5)) },
		"zeros":     func(rng *rand.Rand) string { return string(make([]byte, 1+rng.IntN(300))) },
		"very long": func(rng *rand.Rand) string { return fmt.Sprintf("%0*d", 1+rng.IntN(3000), rng.IntN(3)) },
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testAgainstPlain(t, shape)
		})
	}
}

func testAgainstPlain(t *testing.T, subject func(*rand.Rand) string) {
	rng := rand.New(rand.NewPCG(8, 8))
	x, p := New(), newPlain()
	var live []uint64 // sequences, in no order
	time := int64(1_700_000_000_000_000_000)
	for round := range 60 {
		frozen := x
		before := fmt.Sprint(frozen.State())
		x = x.Clone()
		// The index grows, shrinks to almost nothing, and grows again.
		grow := round%20 < 12
		for range 400 {
			if grow || len(live) == 0 {
				time += 1 + rng.Int64N(1<<rng.IntN(34))
				e := Entry{
					Seq:     p.last + 1 + rng.Uint64N(3)/2,
					Time:    time,
					Size:    30 + rng.Uint64N(500),
					Loc:     Loc{Block: uint32(round), Offset: rng.Uint32(), Len: rng.Uint32N(1 << rng.IntN(30))},
					Subject: subject(rng),
				}
				if rng.IntN(20) == 0 {
					e.Expires = []int64{-1, time + 1, time - 1, time + 3600_000_000_000}[rng.IntN(4)]
				}
				p.append(e)
				if err := x.Append(e); err != nil {
					t.Fatal(err)
				}
				live = append(live, e.Seq)
			}
			if !grow || rng.IntN(4) == 0 {
				i := rng.IntN(len(live))
				seq := live[i]
				live[i] = live[len(live)-1]
				live = live[:len(live)-1]
				want := p.entries[seq]
				want.Subject = ""
				p.remove(seq)
				if got, ok := x.Remove(seq); !ok || got != want {
					t.Fatalf("removed %+v %v, want %+v", got, ok, want)
				}
			}
		}
		for range min(50, len(live)) {
			e := p.entries[live[rng.IntN(len(live))]]
			to := Loc{Block: rng.Uint32N(5), Offset: rng.Uint32(), Len: e.Loc.Len}
			if !x.Move(e.Seq, e.Loc, to) || x.Move(e.Seq, Loc{Block: 77}, to) {
				t.Fatal("not moved, or moved from elsewhere")
			}
			e.Loc = to
			p.entries[e.Seq] = e
		}
		p.same(t, x)
		if after := fmt.Sprint(frozen.State()); after != before {
			t.Fatalf("a clone changed its origin: %s became %s", before, after)
		}
	}
}

// TestClonesAreApart changes many clones of one index, each in its own way, and looks at the
// origin and at them afterwards.
func TestClonesAreApart(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	origin, p := New(), newPlain()
	for seq := range uint64(3000) {
		e := Entry{Seq: seq + 1, Time: int64(seq) + 1, Size: 40, Subject: fmt.Sprintf("k.%d", rng.IntN(800))}
		p.append(e)
		if err := origin.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		x, q := origin.Clone(), newPlain()
		for seq := uint64(1); seq <= 3000; seq++ {
			q.append(p.entries[seq])
		}
		for range 500 {
			if seq := 1 + rng.Uint64N(3000); q.entries[seq].Seq != 0 {
				q.remove(seq)
				x.Remove(seq)
			}
			e := Entry{Seq: q.last + 1, Time: int64(q.last) + 1, Size: 40, Subject: fmt.Sprintf("k.%d", rng.IntN(900))}
			q.append(e)
			if err := x.Append(e); err != nil {
				t.Fatal(err)
			}
		}
		q.same(t, x)
	}
	p.same(t, origin)
}

func TestFramesRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	x := New()
	for seq := range uint64(20_000) {
		e := Entry{
			Seq:     2*seq + 1,
			Time:    int64(seq)*1000 + 1,
			Expires: []int64{0, 0, 0, -1, int64(seq) * 1000, int64(seq)*1000 + 1, int64(seq)*1000 + 5000}[rng.IntN(7)],
			Size:    rng.Uint64N(4000),
			Loc:     Loc{rng.Uint32N(9), rng.Uint32(), rng.Uint32N(4000)},
			Subject: fmt.Sprintf("k.%d", rng.IntN(5000)),
		}
		if err := x.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 {
		x.SetAux(fmt.Sprintf("key %d", i), make([]byte, rng.IntN(300)))
	}
	base, l := x.Clone(), NewLoader()
	if err := base.EncodeBase(l.Frame); err != nil {
		t.Fatal(err)
	}
	y, uses := l.Index()
	checkSeqs(t, y)
	checkSubjects(t, y)
	total := int64(0)
	for _, n := range uses {
		total += n
	}
	base.Ascend(0, func(e *Entry) bool { total -= int64(e.Loc.Len); return true })
	if total != 0 {
		t.Fatalf("the blocks' uses are off by %d", total)
	}
	sameIndex(t, base, y)

	x = base.Clone()
	var removed, moved []uint64
	var keys []string
	for seq := uint64(1); seq < 40_000; seq += 2 {
		switch e, _ := x.Get(seq); rng.IntN(4) {
		case 0:
			x.Remove(seq)
			removed = append(removed, seq)
		case 1:
			x.Move(seq, e.Loc, Loc{99, uint32(seq), e.Loc.Len})
			moved = append(moved, seq)
		}
	}
	for i := range 500 {
		key := fmt.Sprintf("key %d", i*7)
		keys = append(keys, key)
		if i%2 == 0 {
			x.DeleteAux(key)
		} else {
			x.SetAux(key, []byte("new"))
		}
	}
	if err := x.Append(Entry{Seq: 50_000, Time: 1 << 40, Subject: "new"}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		EncodeRemoved(removed, l.Frame),
		x.EncodeMoved(moved, l.Frame),
		x.EncodeRows(40_001, l.Frame),
		x.EncodeAuxKeys(keys, l.Frame),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sameIndex(t, x, y)
}

func sameIndex(t *testing.T, want, got *Index) {
	t.Helper()
	if w, g := fmt.Sprint(want.bytes, want.seqs.len(), want.subjects.len()), fmt.Sprint(got.bytes, got.seqs.len(), got.subjects.len()); w != g {
		t.Fatalf("want %s, got %s", w, g)
	}
	want.Ascend(0, func(e *Entry) bool {
		if g, ok := got.Get(e.Seq); !ok || g != *e {
			t.Fatalf("want %+v, got %+v", *e, g)
		}
		return true
	})
	var w, g []string
	want.AuxRange("", func(k string, v []byte) bool { w = append(w, k, string(v)); return true })
	got.AuxRange("", func(k string, v []byte) bool { g = append(g, k, string(v)); return true })
	if !slices.Equal(w, g) {
		t.Fatal("the auxiliary records differ")
	}
}

// FuzzDecode feeds frames of any content: they are refused or taken, without a panic.
func FuzzDecode(f *testing.F) {
	x := New()
	for seq := range uint64(50) {
		if err := x.Append(Entry{Seq: seq + 1, Time: int64(seq) + 1, Subject: fmt.Sprint("s", seq%7)}); err != nil {
			f.Fatal(err)
		}
	}
	seed := func(kind byte, payload []byte) error { f.Add(kind, slices.Clone(payload)); return nil }
	_ = x.EncodeRows(0, seed)
	_ = x.EncodeMoved([]uint64{3, 9}, seed)
	_ = EncodeRemoved([]uint64{3, 9, 40}, seed)
	_ = x.EncodeBase(seed)
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		l := NewLoader()
		if kind < FrameSeqs {
			if err := x.EncodeBase(l.Frame); err != nil {
				t.Fatal(err)
			}
		}
		if l.Frame(kind, payload) != nil {
			return
		}
		y, _ := l.Index()
		checkSeqs(t, y)
		if kind < FrameSeqs {
			checkSubjects(t, y)
		}
	})
}
