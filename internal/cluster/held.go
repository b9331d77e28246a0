package cluster

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/replica"
)

// How long a command waits for a leader before it is refused as unavailable, and how many, of how many
// bytes, may wait in one group.
const (
	holdFor      = 3 * time.Second
	holdMax      = 4096
	holdBytesMax = 64 << 20
)

// offer proposes a command somewhere. It returns nil if the waiter will hear the outcome,
// errNoLeader if there is nobody to propose to right now, and any other error for a definite refusal.
type offer func(heldCommand) error

var errNoLeader = errors.New("cluster: no leader is known")

// held keeps the commands that arrive while a group has no leader: an election is short, and
// clients would only come again. Nothing held has been proposed, so giving up is definite.
//
// Commands are proposed in the order in which they came, also those that somebody was asked to propose and did not:
// they come before all that came after them.
type held struct {
	offer  offer
	count  atomic.Int32  // of commands: the fast path looks here only
	total  *atomic.Int64 // of those of all groups
	orders atomic.Int64  // the last order that was given out

	sync.Mutex
	commands []heldCommand // by order
	bytes    int           // of all commands
	closed   bool          // no leader will come any more
}

type heldCommand struct {
	command []byte
	waiter  replica.Waiter
	until   time.Time
	order   int64 // among those of this group that came to this server; 0: it has none yet
}

// propose offers the command, or keeps it for the next leader.
func (h *held) propose(command []byte, w replica.Waiter) {
	if h.count.Load() == 0 {
		err := h.offer(heldCommand{command: command, waiter: w})
		if err == nil {
			return
		}
		if !errors.Is(err, errNoLeader) {
			w.Done(nil, err)
			return
		}
	}
	h.keep(heldCommand{command: slices.Clone(command), waiter: w, until: time.Now().Add(holdFor)})
	h.flush() // The leader may have come in between.
}

// keep puts a command that was not proposed where it belongs among those that wait.
func (h *held) keep(c heldCommand) {
	h.Lock()
	if c.order == 0 {
		c.order = h.orders.Add(1)
	}
	at, _ := slices.BinarySearchFunc(h.commands, c.order, func(c heldCommand, order int64) int { return cmp.Compare(c.order, order) })
	err := h.insert(at, c)
	h.Unlock()
	if err != nil {
		c.waiter.Done(nil, err)
	}
}

// insert puts a command among the others, if there is room. The caller holds the lock.
func (h *held) insert(at int, c heldCommand) error {
	if err := h.room(len(h.commands), c.command); err != nil {
		return err
	}
	h.commands = slices.Insert(h.commands, at, c)
	h.bytes += len(c.command)
	h.counted()
	return nil
}

// room tells why one more command besides so many can not be kept. The caller holds the lock.
func (h *held) room(count int, command []byte) error {
	switch {
	case h.closed:
		return ErrUnavailable
	case count >= holdMax, h.bytes+len(command) > holdBytesMax:
		return ErrOverloaded
	}
	return nil
}

// back puts commands that the local replica gives back before all others, which came later. Where there is no room
// for all it is the last of them that are refused.
func (h *held) back(commands [][]byte, waiters []replica.Waiter) {
	var first []heldCommand
	var refused []unwanted
	until := time.Now().Add(holdFor)
	h.Lock()
	for i, w := range waiters {
		if err := h.room(len(first)+len(h.commands), commands[i]); err != nil {
			refused = append(refused, unwanted{w, err})
			continue
		}
		first = append(first, heldCommand{command: slices.Clone(commands[i]), waiter: w, until: until})
		h.bytes += len(commands[i])
	}
	h.commands = append(first, h.commands...)
	for i := range h.commands { // None is at another server, or it is not taken back from there.
		h.commands[i].order = h.orders.Add(1)
	}
	h.counted()
	h.Unlock()
	refuseAll(refused)
}

// unwanted is who is to be told that nothing was done, and why.
type unwanted struct {
	w   replica.Waiter
	err error
}

func refuseAll(all []unwanted) {
	for _, r := range all {
		r.w.Done(nil, r.err)
	}
}

// flush proposes what was held, as far as somebody takes it.
func (h *held) flush() {
	if h.count.Load() == 0 {
		return
	}
	var refused []unwanted
	h.Lock()
	n := 0
	for _, c := range h.commands {
		err := h.offer(c)
		if errors.Is(err, errNoLeader) {
			break
		}
		if err != nil {
			refused = append(refused, unwanted{c.waiter, err})
		}
		n++
	}
	h.drop(n)
	h.Unlock()
	refuseAll(refused)
}

// counted notes how many there are. The caller holds the lock.
func (h *held) counted() {
	n := int32(len(h.commands))
	h.total.Add(int64(n - h.count.Swap(n)))
}

// drop forgets the first n commands. The caller holds the lock.
func (h *held) drop(n int) {
	for _, c := range h.commands[:n] {
		h.bytes -= len(c.command)
	}
	clear(h.commands[:n])
	if h.commands = h.commands[n:]; len(h.commands) == 0 {
		h.commands = nil
	}
	h.counted()
}

// expire refuses what has waited too long.
func (h *held) expire(now time.Time) {
	if h.count.Load() == 0 {
		return
	}
	var old []heldCommand
	h.Lock()
	h.commands = slices.DeleteFunc(h.commands, func(c heldCommand) bool {
		late := c.until.Before(now)
		if late {
			old = append(old, c)
			h.bytes -= len(c.command)
		}
		return late
	})
	h.counted()
	h.Unlock()
	for _, c := range old {
		c.waiter.Done(nil, ErrUnavailable)
	}
}

// close refuses everything that waits, and that still comes.
func (h *held) close() {
	h.Lock()
	h.closed = true
	h.Unlock()
	h.fail(ErrUnavailable)
}

// fail refuses everything.
func (h *held) fail(err error) {
	h.Lock()
	all := slices.Clone(h.commands)
	h.drop(len(all))
	h.Unlock()
	for _, c := range all {
		c.waiter.Done(nil, err)
	}
}
