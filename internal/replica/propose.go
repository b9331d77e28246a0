package replica

import (
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Propose offers one command. It copies the command and returns nil if the waiter will hear the
// outcome; on an error the command was not taken and the waiter will not be called. Any goroutine.
func (r *Replica) Propose(command []byte, w Waiter) error {
	r.intake.Lock()
	if err := r.mayPropose(); err != nil {
		r.intake.Unlock()
		return err
	}
	if r.intake.bytes+len(command) > intakeBytesMax {
		r.intake.Unlock()
		return ErrOverloaded
	}
	var p *pack
	if n := len(r.intake.packs); n > 0 {
		p = r.intake.packs[n-1]
	}
	if p == nil || p.full(len(command)) {
		p = newPack()
		r.intake.packs = append(r.intake.packs, p)
	}
	p.add(command, w)
	r.intake.bytes += len(command)
	wake := !r.intake.queued
	r.intake.queued = true
	r.intake.Unlock()
	if wake {
		r.shard.push(event{kind: evProposals, r: r})
	}
	return nil
}

// mayPropose tells why nothing can be proposed here. The caller holds the intake's lock.
func (r *Replica) mayPropose() error {
	st := r.status.Load()
	switch {
	case r.intake.returning:
		return ErrReturning
	case !st.Leading || st.CutOff:
		return ErrNotLeader // Cut off, it will hardly be that for much longer.
	}
	return r.intake.closed
}

// proposePacks hands what waits to Raft: one message a turn, one log entry a pack. While a round is
// under way packs are left to grow.
func (r *Replica) proposePacks(now int64) {
	if r.failed != nil {
		return
	}
	if r.held = r.lead == r.cfg.ID && r.full(); r.held {
		return
	}
	packs := r.takePacks()
	if len(packs) == 0 {
		return
	}
	defer r.rescue()
	m := &pb.Message{Type: pb.MsgProp.Enum(), From: &r.cfg.ID, To: &r.cfg.ID}
	for _, p := range packs {
		r.counter++
		p.seal(now, r.cfg.Incarnation, r.counter)
		p.bornTick = r.ticks
		m.Entries = append(m.Entries, &pb.Entry{Data: p.data})
		r.inflight[p.counter] = p
		r.bytesFlying += len(p.data)
	}
	r.round = r.counter
	err := r.raft.Step(m)
	if err != nil {
		r.giveBack(packs) // Dropped by Raft: definite.
	}
	for _, p := range packs {
		p.data = nil // Raft has its own copy.
	}
}

// takePacks takes what waits to be proposed.
func (r *Replica) takePacks() []*pack {
	r.intake.Lock()
	defer r.intake.Unlock()
	packs := r.intake.packs
	r.intake.packs, r.intake.bytes, r.intake.queued, r.intake.returning = nil, 0, false, false
	return packs
}

// retire shows that this replica has ceased to lead, and has what waits given back before anything that comes later
// can go elsewhere.
func (r *Replica) retire(st *Status) {
	r.intake.Lock()
	r.intake.returning = len(r.intake.packs) > 0
	returning := r.intake.returning
	r.status.Store(st)
	r.intake.Unlock()
	if returning {
		r.shard.push(event{kind: evProposals, r: r})
	}
}

// giveBack gives the commands of packs, which were not proposed, back to who may ask another leader, with those that
// came meanwhile.
func (r *Replica) giveBack(packs []*pack) {
	for _, p := range packs {
		r.settle(p, len(p.data))
	}
	r.intake.Lock()
	for _, p := range r.intake.packs {
		p.seal(0, 0, 0) // So that it can be read.
		packs = append(packs, p)
	}
	r.intake.packs, r.intake.bytes, r.intake.returning = nil, 0, true
	r.intake.Unlock()
	var commands [][]byte
	var waiters []Waiter
	for _, p := range packs {
		var err error
		waiters = append(waiters, p.waiters...)
		if _, commands, err = openPack(commands, p.data); err != nil || len(commands) != len(waiters) {
			panic(fmt.Sprintf("replica: a pack of %d commands that was just made reads as %d: %v", len(waiters), len(commands), err))
		}
		if r.cfg.Again == nil {
			p.refuse(ErrUnavailable)
		}
		p.waiters = nil
	}
	if r.cfg.Again != nil {
		r.cfg.Again(commands, waiters)
	}
	r.intake.Lock()
	r.intake.returning = false
	r.intake.Unlock()
}

// Queued is how many packs of commands wait to be proposed.
func (r *Replica) Queued() int {
	r.intake.Lock()
	defer r.intake.Unlock()
	return len(r.intake.packs)
}

// full tells whether packs have to wait. What makes room again is a finished write or an apply:
// both come through the shard, which looks at held then.
//
// One round is under way at a time, because a round costs every member a sync, two messages and
// several wake-ups, however much it carries: under load this decides how many writes a server
// bears. Who does not lead holds nothing up: Raft gives it back at once.
func (r *Replica) full() bool {
	round := r.lead == r.cfg.ID && r.inflight[r.round] != nil
	return round || r.appends >= appendsMax || r.bytesFlying >= inflightBytesMax
}

// noteAppended remembers where packs of ours landed in the log, so that one which is replaced
// there by another entry can be called definitely lost.
func (r *Replica) noteAppended(entries []*pb.Entry) {
	if len(r.inflight) == 0 {
		return
	}
	for _, e := range entries {
		if p := r.ours(e); p != nil {
			p.index, p.term = e.GetIndex(), e.GetTerm()
		}
	}
}

// ours finds the waiting pack that an entry carries.
func (r *Replica) ours(e *pb.Entry) *pack {
	if e.GetType() != pb.EntryNormal || len(e.GetData()) < packOverhead {
		return nil
	}
	h, ok := peekPack(e.GetData())
	if !ok || h.incarnation != r.cfg.Incarnation {
		return nil
	}
	return r.inflight[h.counter]
}

// settle removes a pack that came to its end.
func (r *Replica) settle(p *pack, size int) {
	delete(r.inflight, p.counter)
	r.bytesFlying = max(0, r.bytesFlying-size)
	if len(r.inflight) == 0 {
		r.bytesFlying = 0
	}
}

// dropReplaced tells the waiters of packs whose place in the log was taken by other committed
// entries that nothing was done.
func (r *Replica) dropReplaced() {
	for _, p := range r.sortedInflight() {
		if p.index != 0 && p.index <= r.applied {
			r.settle(p, 0)
			p.refuse(ErrUnavailable)
		}
	}
}

// forgetCovered tells the waiters of packs whose place in the log a snapshot covers that nobody knows: what
// was committed there did not come by here.
func (r *Replica) forgetCovered() {
	for _, p := range r.sortedInflight() {
		if p.index != 0 && p.index <= r.applied {
			r.settle(p, 0)
			p.refuse(ErrUnknown)
		}
	}
}

// forgetOld gives up on packs that neither committed nor were replaced.
func (r *Replica) forgetOld() {
	for _, p := range r.sortedInflight() {
		if r.ticks-p.bornTick > waiterTicksMax {
			r.settle(p, 0)
			p.refuse(ErrUnknown)
		}
	}
}

func (r *Replica) sortedInflight() []*pack {
	if len(r.inflight) == 0 {
		return nil
	}
	all := make([]*pack, 0, len(r.inflight))
	for _, p := range r.inflight { // order: sorted below
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pack) int {
		if a.counter < b.counter {
			return -1
		}
		return 1
	})
	return all
}
