package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// judge returns what is wrong with the stored records, given all that the clients know:
//
//   - a write that was acknowledged is stored at its revision, with its key and value;
//   - a write that was refused is not stored;
//   - nothing is stored that nobody wrote, and nothing twice;
//   - revisions are strictly increasing, in the log and in time: a write that began after another was
//     acknowledged has a higher revision, with or without a kill between them;
//   - a stored compare-and-set follows directly on the revision that it expected.
func judge(writes map[string]write, stored []record) []string {
	var problems []string
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	at := map[string]uint64{}       // revision, by value
	previous := map[string]uint64{} // last revision so far, by key
	var last uint64
	for _, r := range stored {
		if r.revision <= last {
			problem("revision %d comes after %d", r.revision, last)
		}
		last = r.revision
		w, known := writes[r.value]
		switch {
		case !known || w.key != r.key:
			problem("INVENTED: revision %d has %s=%s, which nobody wrote", r.revision, r.key, r.value)
		case at[r.value] != 0:
			problem("TWICE: %s=%s is stored as revisions %d and %d", r.key, r.value, at[r.value], r.revision)
		case w.outcome == refused:
			problem("REFUSED BUT STORED: %s=%s as revision %d", r.key, r.value, r.revision)
		case w.cas && w.expected != previous[r.key]:
			problem("CAS: revision %d of %s expected %d, but follows %d", r.revision, r.key, w.expected, previous[r.key])
		}
		at[r.value] = r.revision
		previous[r.key] = r.revision
	}
	for value, w := range writes {
		if w.outcome == acknowledged && at[value] != w.revision {
			problem("LOST: %s=%s was acknowledged as revision %d, and is stored as %d (0: not at all)", w.key, value, w.revision, at[value])
		}
	}
	problems = append(problems, judgeTime(writes)...)
	slices.Sort(problems)
	return problems
}

// judgeTime returns the acknowledged writes whose revision is not higher than all that were
// acknowledged before they began.
func judgeTime(writes map[string]write) []string {
	var acked []write
	for _, w := range writes {
		if w.outcome == acknowledged {
			acked = append(acked, w)
		}
	}
	byEnd := slices.Clone(acked)
	slices.SortFunc(acked, func(a, b write) int { return cmp.Compare(a.began, b.began) })
	slices.SortFunc(byEnd, func(a, b write) int { return cmp.Compare(a.ended, b.ended) })
	var problems []string
	var highest uint64 // revision acknowledged before w began
	for _, w := range acked {
		for len(byEnd) > 0 && byEnd[0].ended < w.began {
			highest = max(highest, byEnd[0].revision)
			byEnd = byEnd[1:]
		}
		if w.revision <= highest {
			problems = append(problems, fmt.Sprintf("BACK IN TIME: %s got revision %d after %d was acknowledged", w.key, w.revision, highest))
		}
	}
	return problems
}

// What judge must notice: a checker that finds nothing is worth as much as one that cannot.
func TestJudge(t *testing.T) {
	ack := func(key string, revision uint64) write {
		return write{key: key, outcome: acknowledged, revision: revision, began: 1, ended: 10}
	}
	cas := func(revision, expected uint64) write {
		return write{key: "k", outcome: acknowledged, revision: revision, cas: true, expected: expected, began: 1, ended: 10}
	}
	for name, c := range map[string]struct {
		writes map[string]write
		stored []record
		want   string
	}{
		"good": {
			map[string]write{"a": ack("k", 1), "b": cas(3, 1), "c": {key: "x", outcome: unknown}, "d": {key: "x", outcome: unknown}},
			[]record{{1, "k", "a"}, {2, "x", "c"}, {3, "k", "b"}}, "",
		},
		"lost":        {map[string]write{"a": ack("k", 1)}, nil, "LOST"},
		"moved":       {map[string]write{"a": ack("k", 1)}, []record{{2, "k", "a"}}, "LOST"},
		"invented":    {nil, []record{{1, "k", "a"}}, "INVENTED"},
		"another key": {map[string]write{"a": {key: "k", outcome: unknown}}, []record{{1, "x", "a"}}, "INVENTED"},
		"twice":       {map[string]write{"a": ack("k", 2)}, []record{{1, "k", "a"}, {2, "k", "a"}}, "TWICE"},
		"refused":     {map[string]write{"a": {key: "k", outcome: refused}}, []record{{1, "k", "a"}}, "REFUSED"},
		"back in time": {
			map[string]write{
				"a": {key: "k", outcome: acknowledged, revision: 2, began: 1, ended: 2},
				"b": {key: "k", outcome: acknowledged, revision: 1, began: 3, ended: 4},
			},
			[]record{{1, "k", "b"}, {2, "k", "a"}}, "BACK",
		},
		"not increasing":  {map[string]write{"a": ack("k", 2), "b": ack("k", 1)}, []record{{2, "k", "a"}, {1, "k", "b"}}, "comes after"},
		"compare and set": {map[string]write{"a": ack("k", 1), "b": ack("k", 2), "c": cas(3, 1)}, []record{{1, "k", "a"}, {2, "k", "b"}, {3, "k", "c"}}, "CAS"},
	} {
		t.Run(name, func(t *testing.T) {
			problems := judge(c.writes, c.stored)
			if c.want == "" && len(problems) > 0 {
				t.Errorf("found %q in what is right", problems)
			}
			if c.want != "" && (len(problems) == 0 || !strings.Contains(problems[0], c.want)) {
				t.Errorf("found %q, want %q", problems, c.want)
			}
		})
	}
}
