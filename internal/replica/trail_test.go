package replica

import "testing"

// busyTrio is a trio under so many writes that a member trails.
type busyTrio struct {
	*trio
	leader, quick, slow *Replica
}

func newBusyTrio(t *testing.T) *busyTrio {
	b := &busyTrio{trio: newTrio(t, nil)}
	b.until("a leader", 100, func() bool { return b.findLeader() != nil })
	b.leader = b.findLeader()
	b.deliver()
	b.busy()
	return b
}

func (b *busyTrio) findLeader() *Replica {
	for i, r := range b.reps {
		if r.Status().Leading && !b.dead[i] {
			return r
		}
	}
	return nil
}

// busy writes until somebody trails, and notes who.
func (b *busyTrio) busy() {
	b.t.Helper()
	for range 2 * trailFrom {
		b.write()
	}
	b.quick, b.slow = nil, nil
	for i := range b.leader.paces {
		p := &b.leader.paces[i]
		if r := b.reps[p.member-1]; b.leader.mayTrail(p) {
			b.slow = r
		} else {
			b.quick = r
		}
	}
	if b.quick == nil || b.slow == nil {
		b.t.Fatalf("of two members not one trails: quick %v, slow %v", b.quick != nil, b.slow != nil)
	}
}

// write is one round, which is acknowledged.
func (b *busyTrio) write() {
	b.t.Helper()
	if o := b.offer(); o.called != 1 || o.err != nil {
		b.t.Fatalf("not acknowledged: %+v", *o)
	}
}

func (b *busyTrio) offer() *outcome {
	b.t.Helper()
	o := b.bench(b.leader).propose(b.leader, "v")
	b.deliver()
	return o
}

func (b *busyTrio) bench(r *Replica) *bench { return b.nodes[r.ID()-1] }

func (b *busyTrio) last(r *Replica) uint64 {
	b.t.Helper()
	last, err := r.log.LastIndex()
	if err != nil {
		b.t.Fatal(err)
	}
	return last
}

// The member that the majority does not need is sent several rounds at once, and lacks nothing in the end.
func TestMemberBeyondTheMajorityTrails(t *testing.T) {
	b := newBusyTrio(t)
	const rounds = 10 * (trailRounds + 1)
	pieces := 0
	for range rounds {
		before := b.last(b.slow)
		b.write()
		if b.last(b.slow) != before {
			pieces++
		}
		if n := b.lag(); n > trailRounds {
			t.Fatalf("it lacks %d rounds", n)
		}
		if b.last(b.quick) != b.last(b.leader) {
			t.Fatal("who is needed lacks a round that was acknowledged")
		}
	}
	if pieces > rounds/trailRounds {
		t.Errorf("it was sent %d rounds in %d pieces", rounds, pieces)
	}
	for b.lag() == 0 {
		b.write()
	}
	for range trailTurns {
		b.bench(b.leader).shard.SendLate()
	}
	b.deliver()
	if b.lag() != 0 || b.slow.Status().Applied != b.leader.Status().Applied {
		t.Errorf("a moment later it lacks %d rounds, and has applied %d of %d", b.lag(), b.slow.Status().Applied, b.leader.Status().Applied)
	}
}

// A member trails no longer than to the end of the tick.
func TestTickEndsTrailing(t *testing.T) {
	b := newBusyTrio(t)
	for b.lag() == 0 {
		b.write()
	}
	b.tick()
	b.deliver()
	if n := b.lag(); n != 0 {
		t.Errorf("after a tick it lacks %d rounds", n)
	}
}

// Writes that do not follow one another closely go to all at once.
func TestNobodyTrailsInQuietTimes(t *testing.T) {
	b := newBusyTrio(t)
	b.tick()
	b.tick()
	for range 20 {
		b.write()
		if n := b.lag(); n != 0 {
			t.Fatalf("it lacks %d rounds", n)
		}
		b.tick()
	}
}

// If the one that is needed falls silent, the other one takes its place a moment later.
func TestWhoTrailsTakesOver(t *testing.T) {
	b := newBusyTrio(t)
	for b.lag() == 0 {
		b.write()
	}
	b.dead[b.quick.ID()-1] = true
	o := b.offer()
	if o.called != 0 {
		t.Fatal("acknowledged by nobody but the leader")
	}
	for range trailTurns {
		b.bench(b.leader).shard.SendLate()
	}
	b.deliver()
	if o.called != 1 || o.err != nil {
		t.Fatalf("not acknowledged by the one that is left: %+v", *o)
	}
	for range 20 {
		b.write()
	}
}

// A read of a member that trails brings what it lacks, and while it reads it does not trail.
func TestReaderDoesNotTrail(t *testing.T) {
	b := newBusyTrio(t)
	for b.lag() == 0 {
		b.write()
	}
	read := false
	b.slow.ReadIndex(func(err error) { read = err == nil })
	b.deliver()
	if !read || b.slow.Status().Applied != b.leader.Status().Applied {
		t.Fatalf("read: %v, applied %d of %d", read, b.slow.Status().Applied, b.leader.Status().Applied)
	}
	for range 20 {
		b.write()
		if n := b.lag(); n != 0 {
			t.Fatalf("it lacks %d rounds", n)
		}
	}
}

// A member that trails is not elected, and who campaigns in its place does so at once.
func TestSuccessorOfADeadLeaderDoesNotWaitForItsTurn(t *testing.T) {
	b := newBusyTrio(t)
	if b.quick.ID() < b.slow.ID() { // The first to campaign is to be the one that trails.
		i := b.quick.ID() - 1
		b.dead[i] = true
		b.offer()
		for range trailTurns {
			b.bench(b.leader).shard.SendLate()
		}
		b.deliver()
		b.write()
		b.dead[i] = false
		b.quick, b.slow = b.slow, b.quick
	}
	for b.lag() == 0 {
		b.write()
	}
	b.dead[b.leader.ID()-1] = true
	b.slow.PeerGone(b.leader.ID())
	b.quick.PeerGone(b.leader.ID())
	b.until("another leader", rushStagger, func() bool { return b.findLeader() != nil })
	if b.findLeader() != b.quick {
		t.Error("led by who lacked acknowledged writes")
	}
}

// lag is how many log entries the member that trails lacks.
func (b *busyTrio) lag() int { return int(b.last(b.leader) - b.last(b.slow)) }
