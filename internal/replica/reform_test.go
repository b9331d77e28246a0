package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// remains reads what members have: "1@5/20 2! 3?why 4~" is member 1 frozen with a log up to entry 20 of term 5, 2 lost,
// 3 that waits, and 4 whole but not frozen. All know of the voters.
func remains(t *testing.T, text string, voters ...uint64) (all []Remains) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		r := Remains{Member: uint64(word[0] - '0'), Voters: voters}
		switch rest := word[2:]; word[1] {
		case '@':
			r.Frozen = true
			if _, err := fmt.Sscanf(rest, "%d/%d", &r.LastTerm, &r.LastIndex); err != nil {
				t.Fatal(err)
			}
		case '!':
			r.Lost, r.Voters = true, nil
		case '?':
			r.Waits = rest
		case '~':
			r.LastTerm, r.LastIndex = 5, 20
		}
		all = append(all, r)
	}
	return all
}

func TestReform(t *testing.T) {
	for _, c := range []struct {
		voters []uint64
		have   string
		source uint64
		freeze bool
		why    string
	}{
		// Half of an even number is enough: every quorum has one of them.
		{[]uint64{1, 2}, "1@5/20 2!", 1, false, ""},
		{[]uint64{1, 2, 3, 4}, "1@5/20 2! 3@5/21 4!", 3, false, ""},
		{[]uint64{1, 2, 3, 4}, "1@6/20 2! 3@5/99 4!", 1, false, ""}, // The later term has all that was committed before.
		{[]uint64{1, 2, 3, 4}, "4@5/20 3@5/20 2! 1!", 3, false, ""}, // Whoever judges: the same one.
		{[]uint64{1, 2, 3, 4}, "1@5/20 2! 3~ 4!", 0, true, ""},
		{[]uint64{1, 2}, "1~ 2!", 0, true, ""},
		// With an odd number what is not a majority is not enough: the lost ones may have been one.
		{[]uint64{1, 2, 3}, "1@5/20 2! 3!", 0, false, "replicas 2, 3 lost parts"},
		{[]uint64{1, 2, 3, 4, 5}, "1@5/20 2@5/20 3! 4! 5!", 0, false, "replicas 3, 4, 5 lost parts"},
		{[]uint64{1, 2, 3, 4}, "1@5/20 2! 3! 4!", 0, false, "replicas 2, 3, 4 lost parts"},
		// Nobody is taken for lost who has not said so.
		{[]uint64{1, 2}, "1~", 0, false, "replica 2 has not said"},
		{[]uint64{1, 2, 3, 4}, "1~ 2! 4!", 0, false, "replica 3 has not said"},
		{[]uint64{1, 2, 3, 4}, "1~ 2! 3?patience 4!", 0, false, "replica 3 waits: patience"},
		{[]uint64{1, 2}, "1! 2!", 0, false, "no replica that has a vote is whole"},
		// A majority needs none of this.
		{[]uint64{1, 2, 3}, "1~ 2~ 3!", 0, false, ""},
		{[]uint64{1, 2, 3, 4}, "1~ 2~ 3~ 4!", 0, false, ""},
		// One that has no vote counts for nothing.
		{[]uint64{1, 2}, "1@5/20 2! 3@9/99", 1, false, ""},
	} {
		v := Reform(remains(t, c.have, c.voters...))
		if v.Source != c.source || v.Freeze != c.freeze || (v.Why == "") != (c.why == "") || !strings.Contains(v.Why, c.why) {
			t.Errorf("%v have %s: %+v", c.voters, c.have, v)
		}
	}
}

// What whole members know of the membership has to be one, and at rest; and nobody may know of more than the best log
// has.
func TestReformDoubts(t *testing.T) {
	two := func(change func(a, b *Remains)) string {
		all := remains(t, "1@5/20 3@5/21 2! 4!", 1, 2, 3, 4)
		change(&all[0], &all[1])
		return Reform(all).Why
	}
	for what, c := range map[string]struct {
		why    string
		change func(a, b *Remains)
	}{
		"a change":           {"may know of a change", func(a, b *Remains) { a.Changing = true }},
		"two memberships":    {"are each told", func(a, b *Remains) { b.Voters = []uint64{1, 2, 3} }},
		"a later commit":     {"knows that log entry 22 is committed", func(a, b *Remains) { a.Commit = 22 }},
		"nothing in the way": {"", func(a, b *Remains) { a.Commit = 21 }},
	} {
		if why := two(c.change); !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: %q", what, why)
		}
	}
	all := remains(t, "1@5/20 2!", 1, 2)
	if all[1].Commit = 21; !strings.Contains(Reform(all).Why, "replica 2 knows that log entry 21 is committed") {
		t.Errorf("what is left of a lost log: %+v", Reform(all))
	}
}

// What a replica tells is of its log, and of changes of the membership in it.
func TestRemainsOf(t *testing.T) {
	b := newSteppedBench(t, simfs.New(1, simfs.Journal))
	m := b.steppedGenesis(7, 2, 1)
	put := func(typ pb.EntryType, index, term uint64) {
		b.log.Submit([]wal.Update{{
			Group: 7, Entries: []wal.Entry{{Index: index, Term: term, Type: uint8(typ), Data: theirPack("v")}},
			Hard: &wal.HardState{Term: 9, Commit: GenesisIndex + 1},
		}}, nil)
		b.sync()
	}
	put(pb.EntryNormal, GenesisIndex+1, 5)
	put(pb.EntryNormal, GenesisIndex+2, 6)
	want := Remains{Member: 1, LastTerm: 6, LastIndex: GenesisIndex + 2, Commit: GenesisIndex + 1, Voters: []uint64{1, 2}}
	if got, err := RemainsOf(b.log, 7, 1, m.at); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, %v", got, err)
	}
	put(pb.EntryConfChangeV2, GenesisIndex+3, 6)
	if got, _ := RemainsOf(b.log, 7, 1, m.at); !got.Changing {
		t.Error("a change of the membership in the log was not seen")
	}
	// A state that was installed, and whose log is not reset yet.
	ahead := Entry{Index: GenesisIndex + 50, Term: 8, Conf: m.at.Conf}
	if got, err := RemainsOf(b.log, 7, 1, ahead); err != nil || got.LastIndex != ahead.Index || got.LastTerm != 8 || got.Changing {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := RemainsOf(b.log, 8, 1, m.at); !errors.Is(err, ErrLost) {
		t.Errorf("without a log: %v", err)
	}
}
