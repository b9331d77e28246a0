package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
)

// cut is what a power cut leaves: a disk, and what the client knew by then.
type cut struct {
	before string // the call that did not happen any more
	disk   *simfs.FS
	after  simfs.Outcome
	seed   uint64
	torn   bool // a sector may have been cut in the middle, now or by an earlier cut

	// How many effects on each bucket were acknowledged before the cut and right after it, and the
	// messages of the consumer that were.
	acked, later map[*bucket]int
	floor        uint64
}

// TestPowerCutEveryCall cuts the power before every call that changes the disk, in a run on a disk whose
// names are durable only once their directory was synced. After a start everything acknowledged is there, nothing is
// that nobody asked for, and every bucket serves. A second cut hits the start itself.
func TestPowerCutEveryCall(t *testing.T) {
	cuts, buckets := cutEverywhere(t)
	for _, c := range cuts {
		t.Run(c.before, func(t *testing.T) {
			t.Parallel()
			second := &cut{}
			bubble(t, func(t *testing.T) *journal { return c.check(t, buckets, second) })
			if second.disk != nil && !t.Failed() {
				bubble(t, func(t *testing.T) *journal { return second.check(t, buckets, nil) })
			}
		})
	}
	t.Logf("%d cuts", len(cuts))
}

// cutEverywhere lets one run go on to its end, and returns what each cut on its way would have left.
func cutEverywhere(t *testing.T) (cuts []*cut, buckets []*bucket) {
	every, first := *step, 1
	if every == 0 {
		every = max(1, countCalls(t)/(3*shortRuns))
		first += rand.IntN(every)
	}
	var mu sync.Mutex
	synctest.Test(t, func(t *testing.T) {
		r := newRun(1)
		r.disk.SetHook(func(op simfs.Op) error {
			due := op.Seq%every == first%every
			if *call > 0 {
				due = op.Seq == *call
			}
			if due && op.Writes() {
				c := r.cut(op)
				mu.Lock()
				defer mu.Unlock()
				cuts = append(cuts, c)
			}
			return nil
		})
		if err := r.work(*operations); err != nil {
			t.Error(err)
		}
		r.close()
		buckets = r.client.buckets
	})
	return cuts, buckets
}

func (r *run) cut(op simfs.Op) *cut {
	c := &cut{before: op.String(), after: simfs.Outcome(op.Seq % 5), seed: uint64(op.Seq)}
	c.torn = c.after == simfs.Torn
	c.acked, c.floor = r.client.known()
	c.disk = r.disk.CrashClone(c.after, c.seed)
	c.later, _ = r.client.known()
	return c
}

// known returns how many effects on each bucket are acknowledged, and the consumer's floor.
func (c *client) known() (acked map[*bucket]int, floor uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	acked = map[*bucket]int{}
	for _, b := range c.buckets {
		acked[b] = len(b.states) - 1
	}
	return acked, c.buckets[0].floor
}

// check starts a server on what is left. Somewhere in the start it notes what a second cut would leave.
func (c *cut) check(t *testing.T, buckets []*bucket, second *cut) *journal {
	r := &run{disk: c.disk, log: &journal{}}
	r.client = newClient(r.log, c.seed)
	if second != nil {
		at := c.disk.Ops() + 1 + int(c.seed%97)
		c.disk.SetHook(func(op simfs.Op) error {
			if op.Seq == at {
				*second = *c
				second.before, second.after, second.seed = op.String(), simfs.Outcome(c.seed/5%5), c.seed+1
				second.torn = c.torn || second.after == simfs.Torn
				second.disk = c.disk.CrashClone(second.after, second.seed)
			}
			return nil
		})
	}
	err := r.start()
	c.disk.SetHook(nil)
	if err == nil {
		err = c.judge(r, buckets)
	}
	// A disk that does not write sectors whole breaks its promise, and what is left of one can not be told
	// from damage to what was acknowledged: the server may refuse to go on, if it says so.
	var damage *wal.DamageError
	if c.torn && errors.As(err, &damage) {
		t.Logf("cut before %s, a sector torn: %v", c.before, err)
		err = nil
	}
	if err != nil {
		t.Errorf("cut before %s, %s of what was not synced is left: %v\n%s", c.before, c.after, err, r.log)
	}
	r.close()
	return r.log
}

// judge holds each bucket against the states that it may be in, and then uses it.
func (c *cut) judge(r *run, buckets []*bucket) error {
	for i, b := range buckets {
		found, err := r.server.read(b)
		if err != nil {
			return fmt.Errorf("read %s: %w", b.name, err)
		}
		// One more effect than was known right after the cut may have been under way.
		if err := judge(b.name, found, b.states[c.acked[b]:min(len(b.states), c.later[b]+2)]); err != nil {
			return err
		}
		if found == nil {
			continue
		}
		use := newBucket(b.name, b.engine, b.history)
		use.states = append(use.states, found)
		cl := r.client
		cl.put(use, effect{kind: puts, key: "k0", value: "after"}, "")
		cl.get(use, "k0")
		if i == 0 {
			use.floor = c.floor
			cl.consume(use)
		}
		if cl.wrong != nil || cl.refused+cl.silent > 0 {
			return fmt.Errorf("%s: %d requests refused, %d not answered, wrong: %w", b.name, cl.refused, cl.silent, cl.wrong)
		}
	}
	return nil
}
