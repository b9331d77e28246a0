package groups

import (
	"io"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
)

// mending is what a world has in which disks are damaged at power cuts.
type mending struct {
	on      bool
	answers []mendAnswer // on their way to suspects

	suspects, restored, dropped, waited int
}

type mendAnswer struct {
	n    *node
	mend *replica.Mend
	take func()
}

// TestSimSuspects damages logs at power cuts. Suspects ask the others; what comes of it must never lose what was
// acknowledged, with three members and with four, of which two are no quorum and yet can tell what is not
// committed.
func TestSimSuspects(t *testing.T) {
	var sum mending
	all := chosen()
	if *seedFlag == 0 {
		all = append(all, 173) // A tail is dropped, which is rare.
	}
	for _, seed := range all {
		w := newWorldOf(t, seed, "", 3+seed/2%2)
		w.mending.on = true
		w.simulate()
		sum.suspects, sum.restored = sum.suspects+w.mending.suspects, sum.restored+w.mending.restored
		sum.dropped, sum.waited = sum.dropped+w.mending.dropped, sum.waited+w.mending.waited
	}
	t.Logf("%d runs: %d suspects, %d logs restored, %d with a tail dropped, %d waited to the end", len(all), sum.suspects, sum.restored, sum.dropped, sum.waited)
	if sum.restored == 0 || *seeds > 20 && sum.dropped == 0 {
		t.Error("a part of it never happened: the simulation shows nothing of that")
	}
}

// TestSimFindsHastyNack plants suspects that take the word of one member for that of enough.
func TestSimFindsHastyNack(t *testing.T) {
	got := find(func(seed uint64) {
		w := newWorldOf(catcher{}, seed, "one word is enough", 3)
		w.mending.on = true
		w.simulate()
	})
	if got == "" {
		t.Error("found nothing")
	}
	t.Log(got)
}

// damage changes a bit of what was written last to the log of a server that lost power.
func (w *world) damage(n *node) {
	if !w.mending.on || n.whole != nil || w.rng.IntN(2) == 0 {
		return
	}
	names, err := n.disk.List("wal")
	if err != nil {
		w.failf("node %d: %v", n.id, err)
	}
	last, sectors := "", 0
	for _, name := range names { // Sorted: the last one that was written to counts.
		if !strings.HasSuffix(name, ".wal") {
			continue
		}
		f, err := n.disk.Open("wal/" + name)
		if err != nil {
			w.failf("node %d: %v", n.id, err)
		}
		text, err := io.ReadAll(f)
		if err != nil || f.Close() != nil {
			w.failf("node %d: %v", n.id, err)
		}
		if used := len(strings.TrimRight(string(text[:len(text)-512]), "\x00")); used > 512 {
			last, sectors = name, (used+511)/512
		}
	}
	if sectors < 2 {
		return
	}
	n.whole = n.disk.CrashClone(simfs.Everything, 1)
	at := max(1, sectors-1-w.rng.IntN(12))
	if err := n.disk.FlipBit("wal/"+last, int64(at)*512+w.rng.Int64N(500), uint(w.rng.IntN(8))); err != nil {
		w.failf("node %d: %v", n.id, err)
	}
	w.note("damage", n.id, last, at)
}

// suspect looks whether the log that was opened is damaged, and in a way that can be mended. What is worse is not
// of this simulation: the disk is as it was before.
func (n *node) suspect() bool {
	st, ok := n.log.State(group)
	if ok && st.Damage == nil {
		n.whole = nil
		return false
	}
	var err error
	if n.mend, err = replica.NewMend(n.log, group, n.id, n.m.at); err != nil {
		n.recoverDisk()
		n.openLog()
		return false
	}
	n.w.mending.suspects++
	n.w.note("suspect", n.id)
	return true
}

func (n *node) recoverDisk() { n.disk, n.whole, n.mend = n.whole, nil, nil }

// mendEvent lets suspects ask and be answered, now and then.
func (w *world) mendEvent() {
	if !w.mending.on {
		return
	}
	for _, n := range w.nodes {
		if n.mend == nil || w.rng.IntN(4) > 0 {
			continue
		}
		if o := w.nodes[w.rng.IntN(len(w.nodes))]; o != n && !w.cut[[2]uint64{n.id, o.id}] && !w.cut[[2]uint64{o.id, n.id}] {
			w.ask(n, o)
		}
		if _, more := n.mend.Wants(); !more {
			n.mended()
		}
	}
	if len(w.mending.answers) > 0 && w.rng.IntN(3) == 0 {
		w.takeAnswer(w.rng.IntN(len(w.mending.answers)))
	}
}

func (w *world) takeAnswer(i int) {
	all := &w.mending.answers
	a := (*all)[i]
	*all = append((*all)[:i], (*all)[i+1:]...)
	if a.n.mend == a.mend {
		a.take()
	}
}

// ask has a server answer what a suspect wants next.
func (w *world) ask(n, o *node) {
	mend := n.mend
	a, more := mend.Wants()
	if !more || !o.up && o.mend == nil {
		return
	}
	answer := func(take func()) { w.mending.answers = append(w.mending.answers, mendAnswer{n, mend, take}) }
	if entries := replica.Wanted(o.log, group, a); len(entries) > 0 {
		answer(func() { mend.Restore(entries) })
		return
	}
	if !o.up {
		return
	}
	conf, never, early := o.rep.NeverHad(a)
	if early {
		o.shard.Call(func() { o.rep.Outgrow(a.Above, n.id) })
	}
	if !never {
		return
	}
	o.sync() // What makes it true has to be durable.
	member := o.id
	answer(func() {
		mend.Nack(a, member, conf)
		if w.plant == "one word is enough" {
			for id := range uint64(len(w.nodes)) {
				mend.Nack(a, id+1, conf)
			}
		}
	})
}

// mended lets a suspect go on with the log that it has now.
func (n *node) mended() {
	u, dropped, err := n.mend.Update()
	if err != nil {
		n.w.failf("node %d: %v", n.id, err)
	}
	n.w.note("mended", n.id, dropped)
	if dropped > 0 {
		n.w.mending.dropped++
	} else {
		n.w.mending.restored++
	}
	n.log.Submit([]wal.Update{u}, nil)
	n.sync()
	n.mend, n.whole = nil, nil
	n.open()
}

// mendAtLast lets a suspect ask everybody when all is whole otherwise. One that has to wait gets its disk back.
func (w *world) mendAtLast(n *node, round int) {
	for _, o := range w.nodes {
		if o != n && n.mend != nil {
			w.ask(n, o)
		}
	}
	for len(w.mending.answers) > 0 {
		w.takeAnswer(0)
	}
	if _, more := n.mend.Wants(); !more {
		n.mended()
	} else if round > 200 {
		w.mending.waited++
		n.recoverDisk()
		n.openLog()
		n.open()
	}
}
