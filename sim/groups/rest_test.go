package groups

import "github.com/cleatkv/cleat/sim/simfs"

// quietTick is a tick of all servers in which nobody asks for anything and every message that may arrive does.
func (w *world) quietTick() {
	w.now++
	for len(w.net) > 0 {
		for range len(w.net) {
			w.deliver(0, false)
		}
		w.turn()
		for _, n := range w.nodes {
			if n.up {
				n.sync()
			}
		}
		w.turn()
	}
	for _, n := range w.nodes {
		if n.up {
			n.tick()
			n.sync()
		}
	}
	w.turn()
}

// lull is a time in which nobody asks for anything, in the midst of all that goes wrong. What goes on next may find
// a group at rest.
func (w *world) lull() {
	for range 60 + w.rng.IntN(60) {
		w.quietTick()
	}
	for _, n := range w.nodes {
		if n.up && n.rep.Status().Resting {
			w.rests++
		}
	}
}

// miss has the others learn that a server is gone by their connections to it, at times.
func (w *world) miss(gone *node) {
	if !w.mayRest() || w.rng.IntN(2) == 0 {
		return
	}
	for _, n := range w.nodes {
		if n.up {
			n.shard.Lost(gone.id)
		}
	}
}

// Ticks that things may take when all is well: an election, with votes that were split, most elections, and
// to rest again. An election timeout is 15 to 29.
const (
	electionMax  = 150
	electionMean = 30
	restMax      = 300
)

// wakeFromRest lets a healed group rest, and takes a member from it in each way: it dies, others do not hear
// it, it does not hear others, or both. A leader has to be replaced, anybody to get what was missed.
func (w *world) wakeFromRest() {
	for _, fault := range []string{"dead", "mute", "deaf", "isolated"} {
		for _, leader := range []bool{true, false} {
			w.untilRest()
			victim := w.nodes[w.rng.IntN(members)]
			for i := 0; victim.rep.Status().Leading != leader; i++ {
				victim = w.nodes[i]
			}
			w.wakeFrom(victim, fault)
		}
	}
	w.untilRest()
}

func (w *world) wakeFrom(victim *node, fault string) {
	w.note(fault, victim.id)
	if fault == "dead" {
		victim.crash(simfs.Outcome(w.rng.IntN(4)))
		w.miss(victim)
	}
	for _, n := range w.nodes {
		if n != victim {
			w.cut[[2]uint64{victim.id, n.id}] = fault == "mute" || fault == "isolated"
			w.cut[[2]uint64{n.id, victim.id}] = fault == "deaf" || fault == "isolated"
		}
	}
	began := w.now
	w.until("nobody leads", electionMax, func() bool {
		if w.plant == "the dead go on to beat" && fault == "dead" {
			victim.beat()
		}
		return w.leading(victim) != nil
	})
	if took := int(w.now - began); took > 0 {
		w.elections = append(w.elections, took)
	}
	before := len(w.acked)
	w.propose(w.leading(victim))
	w.until("nothing is acknowledged", electionMax, func() bool { return len(w.acked) > before })
	clear(w.cut)
	if !victim.up {
		victim.restart()
	}
}

// leading is a node other than one that leads, or nil.
func (w *world) leading(other *node) *node {
	for _, n := range w.nodes {
		if n != other && n.up && n.rep.Status().Leading {
			return n
		}
	}
	return nil
}

// untilRest waits until all replicas have the same and rest.
func (w *world) untilRest() {
	w.until("not all replicas rest", restMax, func() bool {
		for _, n := range w.nodes {
			if !n.rep.Status().Resting {
				return false
			}
		}
		return w.converged()
	})
}

func (w *world) until(what string, ticks int, cond func() bool) {
	for range ticks {
		if cond() {
			return
		}
		w.quietTick()
	}
	w.failf("%s after %d ticks", what, ticks)
}
