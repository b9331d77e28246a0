package subject

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"
	"testing"
)

func TestValid(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "a.b": true, "*": true, ">": true, "a.*.b": true, "a.>": true, "foo*": true, "f>.x": true, "ä.ö": true,
		"": false, ".": false, ".a": false, "a.": false, "a..b": false, "a.>.b": false, "a b": false, "a\tb": false,
		"a\r": false, "a\n": false, "a\f": false,
	} {
		if Valid(s) != want {
			t.Errorf("Valid(%q) is %v", s, !want)
		}
	}
	for s, want := range map[string]bool{"a": true, "foo*": true, "f>": true, ">x.a": true, "*": false, ">": false, "a.*": false, "a.>": false, "*.a": false} {
		if ValidLiteral(s) != want || HasWildcard(s) == want {
			t.Errorf("ValidLiteral(%q) is %v", s, !want)
		}
	}
	for s, want := range map[string]bool{"a": true, "a*": true, "*": false, ">": false, "a.b": false, "": false, "a b": false} {
		if ValidToken(s) != want {
			t.Errorf("ValidToken(%q) is %v", s, !want)
		}
	}
}

func TestRelations(t *testing.T) {
	for _, tc := range []struct {
		a, b                     string
		match, overlap, subsetAB bool // Match(b, a), Overlap(a, b), Subset(a, b)
	}{
		{"a", "a", true, true, true},
		{"a", "b", false, false, false},
		{"a.b", "a.*", true, true, true},
		{"a.b", "a", false, false, false},
		{"a", "a.>", false, false, false},
		{"a.b.c", "a.>", true, true, true},
		{"a.*", "*.b", false, true, false},
		{"a.*.c", "a.b.*", false, true, false},
		{"a.*.c", "a.b.d", false, false, false},
		{"a.>", "a.*", true, true, false},
		{"a.>", ">", true, true, true},
		{"a.*", "a.>", true, true, true},
		{"a.>", "b.>", false, false, false},
		{"*", "a.b", false, false, false},
		{"*.*", "*.b", false, true, false},
	} {
		if Match(tc.b, tc.a) != tc.match {
			t.Errorf("Match(%q, %q) is %v", tc.b, tc.a, !tc.match)
		}
		if Overlap(tc.a, tc.b) != tc.overlap || Overlap(tc.b, tc.a) != tc.overlap {
			t.Errorf("Overlap(%q, %q) is %v", tc.a, tc.b, !tc.overlap)
		}
		if Subset(tc.a, tc.b) != tc.subsetAB {
			t.Errorf("Subset(%q, %q) is %v", tc.a, tc.b, !tc.subsetAB)
		}
	}
}

func TestTokens(t *testing.T) {
	if n := CountTokens("a.b.c"); n != 3 {
		t.Error(n)
	}
	if CountTokens("") != 0 || Token("a.b.c", 2) != "b" || Token("a.b.c", 3) != "c" || Token("a", 2) != "" || Token("a", 0) != "" {
		t.Error("tokens are counted wrong")
	}
}

// randomSubject is a subject over few tokens, so that collisions are common.
func randomSubject(r *rand.Rand, wild bool) string {
	alphabet := []string{"a", "b", "c", "foo*"}
	if wild {
		alphabet = append(alphabet, "*", "*")
	}
	tokens := make([]string, 1+r.IntN(4))
	for i := range tokens {
		tokens[i] = alphabet[r.IntN(len(alphabet))]
	}
	if wild && r.IntN(4) == 0 {
		tokens[len(tokens)-1] = ">"
	}
	return strings.Join(tokens, ".")
}

type stored struct{ pattern, queue string }

// checkTrie runs random inserts and removals and holds every answer against a list.
func checkTrie(t *testing.T, seed1, seed2 uint64, steps int) {
	r := rand.New(rand.NewPCG(seed1, seed2))
	var trie Trie[*stored]
	model := map[*stored]bool{}
	var order []*stored
	for range steps {
		if len(order) == 0 || r.IntN(3) > 0 {
			s := &stored{pattern: randomSubject(r, true), queue: []string{"", "", "q1", "q2"}[r.IntN(4)]}
			trie.Insert(s.pattern, s.queue, s)
			model[s] = true
			order = append(order, s)
		} else {
			i := r.IntN(len(order))
			s := order[i]
			order = append(order[:i], order[i+1:]...)
			if !trie.Remove(s.pattern, s.queue, s) || trie.Remove(s.pattern, s.queue, s) {
				t.Fatalf("removing %v", *s)
			}
			delete(model, s)
		}
		subj := randomSubject(r, false)
		var want []string
		for s := range model {
			if Match(s.pattern, subj) {
				want = append(want, fmt.Sprintf("%s %s %p", s.queue, s.pattern, s))
			}
		}
		compare(t, "match "+subj, found(&trie, subj), want)
		if trie.Has(subj) != (len(want) > 0) {
			t.Fatalf("Has(%s) is %v", subj, !(len(want) > 0))
		}
		pattern := randomSubject(r, true)
		var over, overWant []string
		trie.Overlapping(pattern, func(s *stored) { over = append(over, fmt.Sprintf("%s %p", s.pattern, s)) })
		for s := range model {
			if Overlap(s.pattern, pattern) {
				overWant = append(overWant, fmt.Sprintf("%s %p", s.pattern, s))
			}
		}
		compare(t, "overlap "+pattern, over, overWant)
	}
	if trie.Len() != len(model) {
		t.Fatalf("length %d, want %d", trie.Len(), len(model))
	}
	for s := range model {
		trie.Remove(s.pattern, s.queue, s)
	}
	if !trie.root.empty() {
		t.Fatal("an empty trie keeps nodes")
	}
}

func found(trie *Trie[*stored], subj string) (list []string) {
	var r Result[*stored]
	trie.Match(subj, &r)
	for _, plain := range r.Plain {
		for _, s := range plain {
			list = append(list, fmt.Sprintf("%s %s %p", s.queue, s.pattern, s))
		}
	}
	seen := map[string]bool{}
	for _, g := range r.Groups {
		if seen[g.Name] {
			list = append(list, "group "+g.Name+" twice")
		}
		seen[g.Name] = true
		for _, s := range g.Members {
			list = append(list, fmt.Sprintf("%s %s %p", g.Name, s.pattern, s))
		}
	}
	return list
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	sort.Strings(got)
	sort.Strings(want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestTrieEqualsNaiveMatcher(t *testing.T) {
	for seed := range uint64(20) {
		checkTrie(t, seed, 1, 400)
	}
}

func FuzzTrie(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint16(50))
	f.Add(uint64(3), uint64(4), uint16(500))
	f.Fuzz(func(t *testing.T, a, b uint64, steps uint16) { checkTrie(t, a, b, int(steps%1000)) })
}

// What a Result holds stays as it was while others change the trie.
func TestTrieConcurrently(t *testing.T) {
	var trie Trie[*stored]
	keep := &stored{pattern: "a.*", queue: "q"}
	trie.Insert(keep.pattern, keep.queue, keep)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 2000 {
				s := &stored{pattern: "a.b", queue: "q"}
				trie.Insert(s.pattern, s.queue, s)
				trie.Remove(s.pattern, s.queue, s)
			}
		})
		wg.Go(func() {
			var r Result[*stored]
			for range 2000 {
				trie.Match("a.b", &r)
				n := 0
				for _, s := range r.Group("q") {
					if s == keep {
						n++
					}
				}
				if n != 1 {
					t.Errorf("the constant member was found %d times", n)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzTransform(f *testing.F) {
	f.Add("a.*.>", "{{split(1,-)}}.$1.>", "a.b-c.d.e")
	f.Add("*", "{{sliceFromRight(1,2)}}.{{partition(3)}}", "abcdef")
	f.Fuzz(func(t *testing.T, src, dest, in string) {
		tr, err := NewTransform(src, dest)
		if err != nil || !ValidLiteral(in) {
			return
		}
		if out, ok := tr.Apply(in, 1); ok && out == "" && !strings.Contains(strings.ToLower(dest), "split") {
			t.Errorf("%q to %q: %q becomes %q, %v", src, dest, in, out, ok)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	var trie Trie[*stored]
	for i := range 1000 {
		for _, p := range []string{fmt.Sprintf("_INBOX.conn%d.*", i), fmt.Sprintf("$KV.bucket%d.>", i)} {
			trie.Insert(p, "", &stored{pattern: p})
		}
	}
	for _, subj := range []string{"$KV.bucket77.some.key", "_INBOX.conn500.AbCdEfGh", "nobody.listens"} {
		b.Run(subj, func(b *testing.B) {
			var r Result[*stored]
			b.ReportAllocs()
			for b.Loop() {
				trie.Match(subj, &r)
			}
		})
	}
}

func BenchmarkMatchFanOut(b *testing.B) {
	var trie Trie[*stored]
	for range 1000 {
		trie.Insert("a.*", "", &stored{})
	}
	var r Result[*stored]
	for b.Loop() {
		trie.Match("a.b", &r)
	}
}
