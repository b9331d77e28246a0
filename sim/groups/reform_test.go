package groups

import (
	"slices"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
)

// reforming is what a world has in which servers lose what nobody knows of their logs, until there is no majority.
type reforming struct {
	on      bool
	answers []remainsOnItsWay
	source  uint64 // what was decided, once

	lost, frozen, interrupted, begun int
}

type remainsOnItsWay struct {
	to *node
	r  replica.Remains
}

// reformNode is what a server knows of that.
type reformNode struct {
	lost   bool             // its replica is quarantined for good; durable
	frozen *replica.Remains // durable
	heard  map[uint64]replica.Remains
	alone  *wal.Update // the machine has executed all, the log does not know yet
	anew   bool        // durable: it is the only member
}

// TestSimReform has groups of two and four lose half of their logs for good. The others freeze themselves, agree on one
// and let it begin anew, with crashes at each step and answers that are late or lost; what was acknowledged has to be
// there.
func TestSimReform(t *testing.T) {
	var sum reforming
	all := chosen()
	for _, seed := range all {
		w := newWorldOf(t, seed, "", 2+2*(seed/2%2))
		w.reforming.on = true
		w.simulateReform()
		r := w.reforming
		sum.lost, sum.frozen, sum.interrupted, sum.begun = sum.lost+r.lost, sum.frozen+r.frozen, sum.interrupted+r.interrupted, sum.begun+r.begun
	}
	t.Logf("%d runs: %d logs lost, %d members frozen, %d groups begun anew, %d times interrupted", len(all), sum.lost, sum.frozen, sum.begun, sum.interrupted)
	if *seedFlag == 0 && (sum.begun == 0 || sum.interrupted == 0) {
		t.Error("a part of it never happened: the simulation shows nothing of that")
	}
}

// TestSimFindsWrongReform plants what the rules are there for.
func TestSimFindsWrongReform(t *testing.T) {
	for plant, world := range map[string]struct{ size, after uint64 }{
		"nobody freezes":        {4, 139}, // It is rare: the first seed that finds it is a little above.
		"any whole log will do": {3, 0},
	} {
		got := find(func(seed uint64) {
			w := newWorldOf(catcher{}, world.after+seed, plant, world.size)
			w.reforming.on = true
			w.simulateReform()
		})
		if !strings.Contains(got, "is lost") && !strings.Contains(got, "differ") {
			t.Errorf("%s: found %q", plant, got)
		}
		t.Logf("%s: %s", plant, got)
	}
}

// simulateReform ends when the group serves, with a majority or anew.
func (w *world) simulateReform() {
	for range *steps {
		w.now++
		w.event()
		w.turn()
	}
	clear(w.cut)
	served := len(w.acked)
	for round := range 3000 {
		w.now++
		for len(w.net) > 0 {
			w.deliver(0, false)
		}
		for _, n := range w.nodes {
			switch {
			case n.up:
				n.tick()
				n.sync()
			case !n.reform.lost && n.reform.frozen == nil:
				n.restart()
			}
			w.answerAll(n)
			n.beginAnew()
		}
		w.turn()
		for _, n := range w.nodes {
			if n.up && n.rep.Status().Leading {
				w.propose(n)
			}
		}
		if round > 400 && len(w.acked) > served {
			break
		}
	}
	if len(w.acked) == served {
		w.failf("the group does not serve again")
	}
	w.judgeReform()
}

// judgeReform holds what clients were told against what the member has that is furthest.
func (w *world) judgeReform() {
	best := w.nodes[0]
	for _, n := range w.nodes {
		if n.up && (!best.up || n.m.at.Index > best.m.at.Index) {
			best = n
		}
	}
	w.nodes[0] = best
	w.judge()
}

// loseLog quarantines the replica of a server that lost power, for good, as long as half of them is left.
func (w *world) loseLog(n *node) {
	lost := 0
	for _, o := range w.nodes {
		if o.reform.lost {
			lost++
		}
	}
	most := len(w.nodes) / 2
	if w.plant == "any whole log will do" {
		most = len(w.nodes) - 1
	}
	if !w.reforming.on || lost == most || n.reform.frozen != nil || n.reform.anew || w.rng.IntN(3) > 0 {
		return
	}
	w.note("log lost", n.id)
	w.reforming.lost++
	n.reform.lost = true
}

// reformEvent lets servers tell each other what they have, and do what follows, now and then.
func (w *world) reformEvent() {
	if !w.reforming.on {
		return
	}
	for _, n := range w.nodes {
		if w.rng.IntN(40) == 0 {
			w.answer(n, w.nodes[w.rng.IntN(len(w.nodes))])
		}
		if w.rng.IntN(40) == 0 {
			n.beginAnew()
		}
		if n.reform.frozen != nil && w.rng.IntN(400) == 0 {
			n.fail()
		}
	}
	if all := w.reforming.answers; len(all) > 0 && w.rng.IntN(10) == 0 {
		i := w.rng.IntN(len(all))
		a := all[i]
		w.reforming.answers = slices.Delete(all, i, i+1)
		if w.rng.IntN(4) > 0 {
			a.to.hear(a.r)
		}
	}
}

// answer has a server tell another one what its replica has.
func (w *world) answer(n, to *node) {
	if r, ok := n.remains(); ok && !w.cut[[2]uint64{n.id, to.id}] {
		w.reforming.answers = append(w.reforming.answers, remainsOnItsWay{to, r})
	}
}

func (w *world) answerAll(n *node) {
	if r, ok := n.remains(); ok {
		for _, to := range w.nodes {
			to.hear(r)
		}
	}
}

func (n *node) remains() (replica.Remains, bool) {
	switch {
	case n.reform.anew:
		return replica.Remains{}, false
	case n.reform.lost:
		return replica.Remains{Member: n.id, Lost: true}, true
	case n.reform.frozen != nil:
		return *n.reform.frozen, true
	case !n.up:
		return replica.Remains{}, false
	}
	r, err := replica.RemainsOf(n.log, group, n.id, n.m.at)
	if err != nil {
		n.w.failf("node %d: %v", n.id, err)
	}
	r.Frozen = n.w.plant == "nobody freezes"
	return r, true
}

// hear takes what a member has, and judges.
func (n *node) hear(r replica.Remains) {
	if n.reform.heard == nil {
		n.reform.heard = map[uint64]replica.Remains{}
	}
	if was, known := n.reform.heard[r.Member]; known && !was.Lost && !r.Lost && n.w.plant == "nobody freezes" {
		r = was // Nothing tells which is newer.
	}
	n.reform.heard[r.Member] = r
	var all []replica.Remains
	for _, r := range n.reform.heard { // order: Reform sorts
		all = append(all, r)
	}
	v := replica.Reform(all)
	if n.w.plant == "any whole log will do" && strings.Contains(v.Why, "were enough") {
		v = n.w.hastyReform(all)
	}
	switch {
	case v.Freeze && n.up && !n.reform.anew:
		n.freeze()
	case v.Source != 0 && n.w.reforming.source == 0:
		s := n.w.nodes[v.Source-1]
		if s.reform.frozen == nil { // Planted.
			if !s.up {
				return
			}
			s.freeze()
		}
		n.w.reforming.source = v.Source
	}
}

// hastyReform begins anew with whatever is left.
func (w *world) hastyReform(all []replica.Remains) replica.Verdict {
	for _, r := range all {
		if !r.Lost {
			return replica.Verdict{Freeze: !r.Frozen, Source: map[bool]uint64{true: r.Member}[r.Frozen]}
		}
	}
	return replica.Verdict{}
}

// freeze stops the replica, and then notes, durably, what it has.
func (n *node) freeze() {
	if n.up {
		n.shard.Close(n.rep)
		n.sync()
	}
	r, err := replica.RemainsOf(n.log, group, n.id, n.m.at)
	if err != nil {
		n.w.failf("node %d: %v", n.id, err)
	}
	r.Frozen = true
	n.w.note("frozen", n.id, r.LastTerm, r.LastIndex)
	n.w.reforming.frozen++
	n.up, n.reform.frozen = false, &r
}

// beginAnew takes the next step of the member that was chosen; a crash may fall behind each.
func (n *node) beginAnew() {
	if n.w.reforming.source != n.id || n.reform.frozen == nil || n.reform.anew {
		return
	}
	switch {
	case n.reform.alone == nil:
		u, err := replica.Alone(n.log, group, n.id, n.m, n.m.ApplyConf)
		if err != nil {
			n.w.failf("node %d: %v", n.id, err)
		}
		n.reform.alone = &u
	default:
		n.log.Submit([]wal.Update{*n.reform.alone}, nil)
		n.sync()
		n.w.note("anew", n.id)
		n.w.reforming.begun++
		n.reform.frozen, n.reform.anew, n.reform.alone = nil, true, nil
		n.open()
	}
	if n.w.rng.IntN(3) == 0 {
		n.w.reforming.interrupted++
		n.fail()
	}
}

// fail cuts the power of a server whose replica may be frozen, and starts it again.
func (n *node) fail() {
	n.crash(simfs.Outcome(n.w.rng.IntN(4)))
	n.openLog()
	if n.reform.frozen == nil {
		n.open()
	}
}
