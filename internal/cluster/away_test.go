package cluster

import (
	"testing"
	"time"
)

// Within an epoch a group takes a first part of what a server sends, and nothing behind the first that it refused.
func TestGates(t *testing.T) {
	var g gates
	const from, life = 1, 77
	step := func(what string, life, epoch uint64, want bool) {
		t.Helper()
		if got := g.admit(from, life, epoch); got != want {
			t.Errorf("%s: admitted: %v", what, got)
		}
	}
	step("the first epoch", life, 3, true)
	step("more of it", life, 3, true)
	g.shut(from, life, 3)
	step("behind one that was refused", life, 3, false)
	step("the next epoch", life, 4, true)
	step("late, from the one before", life, 3, false)
	g.shut(from, life, 3)
	step("more of the next epoch", life, 4, true)
	step("after a restart of the sender", life+1, 1, true)
	if !g.admit(from+1, life, 1) {
		t.Error("another server is refused")
	}
}

// Commands go to another server when what was sent before is back, or has not come back for long. What comes back after
// that is not sent again: commands that came behind it are elsewhere.
func TestAwayKeepsOrder(t *testing.T) {
	var a away
	now := time.Now()
	send := func(to uint64, order int64, want bool) uint64 {
		t.Helper()
		a.Lock()
		defer a.Unlock()
		ok := a.send(to)
		if ok != want {
			t.Fatalf("command %d may go to %d: %v", order, to, ok)
		}
		if ok {
			a.last = order
		}
		return a.epoch
	}
	first := send(1, 1, true)
	send(1, 2, true)
	send(2, 3, false)
	if a.home() {
		t.Error("the local replica may be asked while commands are away")
	}
	if !a.current(first) || a.heard(first, true, now) {
		t.Error("one of two came back")
	}
	send(1, 3, false) // Also not to the same server: the second comes back, too.
	if !a.current(first) || !a.heard(first, true, now) || !a.home() {
		t.Error("both came back")
	}
	second := send(1, 1, true)
	if second == first {
		t.Error("the epoch goes on after one was refused")
	}
	send(1, 2, true)
	send(2, 3, false)
	a.Lock()
	a.since = a.since.Add(-2 * drainFor)
	a.Unlock()
	third := send(2, 3, true)
	if a.current(second) || a.heard(second, true, now) || !a.current(third) {
		t.Error("what comes back late is sent again")
	}
	if !a.stale(1) || !a.stale(2) || a.stale(3) {
		t.Error("who waits behind others that were given up: 1 and 2, not 3")
	}
}
