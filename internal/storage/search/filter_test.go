package search

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/subject"
)

var parts = []string{"a", "b", "ab", "a-", "a!", "a/", "0", "~", "*", ">"}

func randomName(rng *rand.Rand, parts []string) string {
	names := make([]string, 1+rng.IntN(4))
	for i := range names {
		names[i] = parts[rng.IntN(len(parts))]
	}
	return strings.Join(names, ".")
}

// TestStepSkipsNothing judges random subjects by random filters: matches are those of package
// subject, and between a subject that does not match and where the search goes on, nothing does.
func TestStepSkipsNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([]string, 3000)
	for i := range all {
		all[i] = randomName(rng, parts[:9])
	}
	slices.Sort(all)
	jumped := 0
	for range 3000 {
		text := randomName(rng, parts)
		if strings.Contains(text, ">.") {
			continue
		}
		f := NewFilter(text)
		at := rng.IntN(len(all))
		ok, seek, more := f.step(all[at])
		if want := subject.Match(text, all[at]); ok != want || f.Match(all[at]) != want {
			t.Fatalf("%q matches %q: got %v %v, want %v", text, all[at], ok, f.Match(all[at]), want)
		}
		if ok {
			continue
		}
		if more && seek <= all[at] {
			t.Fatalf("%q on %q goes on at %q", text, all[at], seek)
		}
		for _, s := range all[at:] {
			if more && s >= seek {
				break
			}
			if subject.Match(text, s) {
				t.Fatalf("%q on %q goes on at %q (%v), but %q matches", text, all[at], seek, more, s)
			}
			jumped++
		}
	}
	if jumped < 100_000 {
		t.Errorf("only %d subjects were jumped over", jumped)
	}
}
