package groups

import (
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
)

// blinding is what a world has in which servers lose the states of their replicas at power cuts, and not the logs.
type blinding struct {
	on     bool
	states []stateOnItsWay

	lost, most, regained, late, stood int
}

type stateOnItsWay struct {
	n     *node
	life  uint64
	state *ledger
}

// TestSimLostStates has servers lose their states, all but one at the same time. They go on to vote and to append, and
// get the state of whoever has one; nothing that was acknowledged may be lost by that, and all come back.
func TestSimLostStates(t *testing.T) {
	var sum blinding
	all := chosen()
	for _, seed := range all {
		w := newWorldOf(t, seed, "", 3+2*(seed/2%2))
		w.blinding.on = true
		w.simulate()
		b := w.blinding
		sum.lost, sum.regained, sum.late, sum.stood, sum.most = sum.lost+b.lost, sum.regained+b.regained, sum.late+b.late, sum.stood+b.stood, max(sum.most, b.most)
	}
	t.Logf("%d runs: %d states lost, up to %d at a time, %d regained, %d came too late, %d writes acknowledged without a majority of states",
		len(all), sum.lost, sum.most, sum.regained, sum.late, sum.stood)
	if *seedFlag == 0 && (sum.regained == 0 || sum.most < 2 || sum.stood == 0) {
		t.Error("a part of it never happened: the simulation shows nothing of that")
	}
}

// TestSimFindsForgottenLog plants servers that begin a new log with the new state.
func TestSimFindsForgottenLog(t *testing.T) {
	got := find(func(seed uint64) {
		w := newWorldOf(catcher{}, seed, "the log goes with the state", 3)
		w.blinding.on = true
		w.simulate()
	})
	if got == "" {
		t.Error("found nothing")
	}
	t.Log(got)
}

// loseState takes the state of a server that lost power, as long as another one has a state that all logs of those
// without one go on from.
func (w *world) loseState(n *node) {
	if !w.blinding.on || n.blind || w.rng.IntN(2) == 0 {
		return
	}
	newest, begin, blind := uint64(0), uint64(0), 1
	for _, o := range w.nodes {
		if o == n || o.blind {
			st, _ := o.log.State(group)
			begin = max(begin, st.First)
		} else {
			newest = max(newest, o.m.saved.at.Index)
		}
		if o.blind {
			blind++
		}
	}
	if newest == 0 || newest+1 < begin {
		return // Too much would be gone.
	}
	w.note("state lost", n.id)
	n.blind, n.m = true, &ledger{w: w}
	w.blinding.lost, w.blinding.most = w.blinding.lost+1, max(w.blinding.most, blind)
}

// blindEvent lets those without a state ask for one, and states arrive, now and then.
func (w *world) blindEvent() {
	if !w.blinding.on {
		return
	}
	for _, n := range w.nodes {
		if n.up && n.blind && w.rng.IntN(60) == 0 {
			if o := w.nodes[w.rng.IntN(len(w.nodes))]; !w.cut[[2]uint64{n.id, o.id}] && !w.cut[[2]uint64{o.id, n.id}] {
				w.askState(n, o)
			}
		}
	}
	if len(w.blinding.states) > 0 && w.rng.IntN(30) == 0 {
		i := w.rng.IntN(len(w.blinding.states))
		s := w.blinding.states[i]
		w.blinding.states = slices.Delete(w.blinding.states, i, i+1)
		if s.n.up && s.n.lives == s.life && s.n.blind && w.rng.IntN(5) > 0 {
			s.n.regain(s.state)
		}
	}
}

// askState has a server send its state to one that has none.
func (w *world) askState(n, o *node) {
	if o.up && !o.blind {
		w.blinding.states = append(w.blinding.states, stateOnItsWay{n, n.lives, o.state()})
	}
}

// state is what a server sends of what it has.
func (n *node) state() *ledger {
	return &ledger{at: n.m.at, commands: n.m.commands[:len(n.m.commands):len(n.m.commands)]}
}

// regain opens a member that was blind with a state, if its log goes on from that.
func (n *node) regain(state *ledger) bool {
	n.shard.Close(n.rep)
	n.sync()
	err := replica.Fits(n.log, group, state.at)
	if err == nil {
		n.w.note("state regained", n.id, state.at.Index)
		n.w.blinding.regained++
		n.blind, n.m = false, &ledger{w: n.w, at: state.at, commands: state.commands}
		_ = n.m.Checkpoint()
	} else {
		n.w.blinding.late++
	}
	n.open()
	return err == nil
}

// regainAtLast gives a state to who has none when all is whole otherwise.
func (w *world) regainAtLast(n *node) {
	for _, o := range w.nodes {
		if n.blind && o.up && !o.blind {
			n.regain(o.state())
		}
	}
}

// checkBlind holds that nobody leads without a state, and counts what is acknowledged without a majority of states.
func (w *world) checkBlind(before int) {
	blind := 0
	for _, n := range w.nodes {
		if n.blind {
			blind++
		}
		if n.up && n.blind && n.rep.Status().Leader == n.id {
			w.failf("node %d leads without a state", n.id)
		}
	}
	if blind > len(w.nodes)/2 {
		w.blinding.stood += len(w.acked) - before
	}
}

// forgetLog is a planted fault.
func (n *node) forgetLog() {
	if n.blind && n.w.plant == "the log goes with the state" {
		n.log.Submit([]wal.Update{replica.Joining(group)}, nil)
		n.sync()
	}
}
