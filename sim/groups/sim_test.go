package groups

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run this seed only")
	seeds    = flag.Uint64("seeds", 30, "how many seeds to run")
	first    = flag.Uint64("first", 1, "the first of them")
	steps    = flag.Int("steps", 6000, "how many events a run has before it heals")
)

// TestSimSeeds runs the seeds that ever failed, and then some more.
func TestSimSeeds(t *testing.T) {
	if *seedFlag != 0 {
		w := simulate(t, *seedFlag, "")
		t.Log(w)
		return
	}
	var acked, reads, snaps, rests, pieces, elections, ticks int
	all := knownSeeds(t)
	for s := range *seeds {
		all = append(all, *first+s)
	}
	for _, seed := range all {
		w := simulate(t, seed, "")
		acked, reads, snaps, rests, pieces = acked+len(w.acked), reads+w.reads, snaps+w.snaps, rests+w.rests, pieces+w.pieces
		for _, n := range w.elections {
			elections, ticks = elections+1, ticks+n
		}
	}
	t.Logf("%d runs: %d writes acknowledged, %d reads, %d snapshots installed, %d replicas at rest in the midst of it, %d times several rounds sent at once", len(all), acked, reads, snaps, rests, pieces)
	if acked == 0 || reads == 0 || snaps == 0 || rests == 0 || pieces == 0 || elections == 0 {
		t.Fatal("a part of it never happened: the simulation shows nothing of that")
	}
	if mean := ticks / elections; mean > electionMean {
		t.Errorf("resting groups took %d ticks to elect, in the mean of %d elections: more than %d", mean, elections, electionMean)
	}
}

// knownSeeds reads seeds.txt: a seed a line, and why.
func knownSeeds(t *testing.T) (all []uint64) {
	t.Helper()
	text, err := os.ReadFile("seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || strings.HasPrefix(word, "#") {
			continue
		}
		seed, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, seed)
	}
	return all
}

// TestSimDeterminism runs a seed twice: all that happened must be the same, or no failure can be repeated.
func TestSimDeterminism(t *testing.T) {
	for seed := range uint64(3) {
		if a, b := simulate(t, 100+seed, ""), simulate(t, 100+seed, ""); a.trace != b.trace {
			t.Errorf("seed %d: two runs differ", 100+seed)
		}
	}
}

// found is what a planted fault ends in.
type found string

// catcher is a reporter for runs that are to fail.
type catcher struct{}

func (catcher) Helper()                           {}
func (catcher) Fatalf(format string, args ...any) { panic(found(fmt.Sprintf(format, args...))) }

// TestSimFindsPlanted plants faults that the checks are for: a check that finds nothing is worth as much as
// one that cannot.
func TestSimFindsPlanted(t *testing.T) {
	for plant, want := range map[string][]string{
		"reads without asking":       {"a stale read"},
		"acknowledged when proposed": {"was acknowledged"},
		"unknown called refused":     {"was definitely refused and is there"},
		"the disk forgets":           {"node", "replicas differ"},
		"the dead go on to beat":     {"nobody leads"},
	} {
		got := find(func(seed uint64) { simulate(catcher{}, seed, plant) })
		if !slices.ContainsFunc(want, func(w string) bool { return strings.Contains(got, w) }) {
			t.Errorf("%s: found %q", plant, got)
		}
	}
}

// chosen lists the seeds that the flags ask for.
func chosen() []uint64 {
	if *seedFlag != 0 {
		return []uint64{*seedFlag}
	}
	all := make([]uint64, 0, *seeds)
	for s := range *seeds {
		all = append(all, *first+s)
	}
	return all
}

// find runs a simulation with a fault planted, seed after seed, until a check finds it.
func find(run func(seed uint64)) (what string) {
	for seed := uint64(1); seed <= 400 && what == ""; seed++ {
		what = caught(func() { run(seed) })
	}
	return what
}

// caught returns what a check of a world with a catcher found.
func caught(run func()) (what string) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case found:
			what = string(p)
		default:
			panic(p)
		}
	}()
	run()
	return ""
}

func (w *world) String() string {
	return fmt.Sprintf("seed %d: %d writes acknowledged, %d definitely refused, %d reads, %d snapshots, trace %016x",
		w.seed, len(w.acked), len(w.refused), w.reads, w.snaps, w.trace)
}

// simulate runs one seed: chaos, then peace, in which everything has to come to agreement.
func simulate(t reporter, seed uint64, plant string) *world {
	t.Helper()
	w := newWorld(t, seed, plant)
	w.simulate()
	return w
}

func (w *world) simulate() {
	for range *steps {
		w.now++
		before := len(w.acked)
		w.event()
		w.turn()
		w.checkBlind(before)
	}
	w.heal()
	if w.mayRest() {
		w.wakeFromRest()
	}
	w.judge()
}

// event lets one thing happen.
func (w *world) event() {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	w.mendEvent()
	w.blindEvent()
	w.reformEvent()
	switch p := w.rng.IntN(1000); {
	case p < 420 && len(w.net) > 0:
		w.deliver(w.rng.IntN(len(w.net)), w.rng.IntN(20) == 0)
	case p < 440 && len(w.net) > 0:
		i := w.rng.IntN(len(w.net)) // Lost, but for snapshots, whose outcome is always told.
		if w.net[i].state == nil {
			w.net = slices.Delete(w.net, i, i+1)
		}
	case p < 560:
		if n.up {
			n.tick()
		}
	case p < 562 && w.mayRest():
		w.lull()
	case p < 800:
		if n.up {
			n.sync()
		}
	case p < 900:
		w.propose(n)
	case p < 960:
		w.read(n)
	case p < 975:
		w.compact(n)
	case p < 985:
		size := uint64(len(w.nodes))
		w.cut[[2]uint64{1 + w.rng.Uint64N(size), 1 + w.rng.Uint64N(size)}] = true
	case p < 991:
		clear(w.cut)
	case n.up:
		n.crash(simfs.Outcome(w.rng.IntN(4)))
		w.miss(n)
		w.damage(n)
		w.loseState(n)
		w.loseLog(n)
	case n.mend == nil:
		n.restart()
	default:
		n.crash(simfs.Outcome(w.rng.IntN(4)))
	}
}

// turn lets all shards do what is to be done.
func (w *world) turn() {
	for _, n := range w.nodes {
		if n.up {
			n.shard.Turn(false)
			if err := n.rep.Status().Stopped; err != nil {
				w.failf("node %d stopped: %v", n.id, err)
			}
		}
	}
}

// propose offers a command that nobody offered before. What it is answered counts only while the server
// that was asked lives.
func (w *world) propose(n *node) {
	if !n.up {
		return
	}
	w.next++
	command, life := fmt.Sprint("c", w.next), n.lives
	outcome := waiter(func(_ any, err error) {
		switch {
		case !n.up || n.lives != life:
		case err == nil:
			w.acked = append(w.acked, command)
		case errors.Is(err, replica.ErrUnavailable), w.plant == "unknown called refused" && errors.Is(err, replica.ErrUnknown):
			w.refused[command] = true
		}
		w.note("outcome", command, err)
	})
	err := n.rep.Propose([]byte(command), outcome)
	if err != nil {
		w.refused[command] = true
	} else if w.plant == "acknowledged when proposed" {
		w.acked = append(w.acked, command)
	}
}

type waiter func(any, error)

func (f waiter) Done(result any, err error) { f(result, err) }

// read asks for a linearizable read: when it is answered, all that was acknowledged before it began must
// be there.
func (w *world) read(n *node) {
	if !n.up {
		return
	}
	before, life := len(w.acked), n.lives
	ask := n.rep.ReadIndex
	if w.plant == "reads without asking" {
		ask = func(done func(error)) { done(nil) }
	}
	ask(func(err error) {
		if err != nil || !n.up || n.lives != life {
			return
		}
		w.reads++
		for _, c := range w.acked[:before] {
			if !slices.Contains(n.m.commands, c) {
				w.failf("a stale read at node %d: %s was acknowledged before it began", n.id, c)
			}
		}
	})
}

// compact makes the state durable and gives up the beginning of the log, so far that others need
// snapshots at times.
func (w *world) compact(n *node) {
	if !n.up || n.blind {
		return
	}
	at := n.m.at
	_ = n.m.Checkpoint()
	if w.rng.IntN(2) == 0 {
		return
	}
	st, ok := n.log.State(group)
	if term, err := n.log.Term(group, at.Index); ok && err == nil && term == at.Term && at.Index > st.First && at.Index < st.Last {
		n.log.Submit([]wal.Update{{Group: group, Compact: wal.Position{Index: at.Index, Term: at.Term}}}, nil)
	}
}

// heal makes everything whole and waits until a new command is acknowledged and all replicas have it.
func (w *world) heal() {
	clear(w.cut)
	for _, n := range w.nodes {
		if !n.up && n.mend == nil {
			n.restart()
		}
	}
	for round := range 3000 {
		w.now++
		for len(w.net) > 0 {
			w.deliver(0, false)
		}
		for _, n := range w.nodes {
			if n.up {
				n.tick()
				n.sync()
				w.regainAtLast(n)
			} else {
				w.mendAtLast(n, round)
			}
		}
		w.turn()
		if round > 300 && round%10 == 0 {
			before := len(w.acked)
			for _, n := range w.nodes {
				if n.up && n.rep.Status().Leading && before == len(w.acked) {
					w.propose(n)
				}
			}
		}
		if round > 400 && w.converged() {
			return
		}
	}
	w.failf("no agreement after the heal")
}

func (w *world) converged() bool {
	last := w.nodes[0].m
	for _, n := range w.nodes {
		if !n.up || n.m.at.Index != last.at.Index || !slices.Equal(n.m.commands, last.commands) {
			return false
		}
	}
	return len(w.acked) > 0
}

// judge holds what clients were told against what there is.
func (w *world) judge() {
	have := w.nodes[0].m.commands
	at := map[string]int{}
	for i, c := range have {
		if _, twice := at[c]; twice {
			w.failf("%s was executed twice", c)
		}
		at[c] = i
	}
	for _, c := range w.acked {
		if _, ok := at[c]; !ok {
			w.failf("%s was acknowledged and is lost", c)
		}
	}
	for c := range w.refused { // order: any that is wrong will do
		if _, ok := at[c]; ok {
			w.failf("%s was definitely refused and is there", c)
		}
	}
}
