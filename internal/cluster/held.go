package cluster

import (
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
type offer func(command []byte, w replica.Waiter) error

var errNoLeader = errors.New("cluster: no leader is known")

// held keeps the commands that arrive while a group has no leader: an election is short, and
// clients would only come again. Nothing held has been proposed, so giving up is definite.
// Commands are proposed in the order in which they came.
type held struct {
	offer offer
	count atomic.Int32  // of commands: the fast path looks here only
	total *atomic.Int64 // of those of all groups

	sync.Mutex
	commands []heldCommand
	bytes    int  // of all commands
	closed   bool // no leader will come any more
}

type heldCommand struct {
	command []byte
	waiter  replica.Waiter
	until   time.Time
}

// propose offers the command, or keeps it for the next leader.
func (h *held) propose(command []byte, w replica.Waiter) {
	if h.count.Load() == 0 {
		err := h.offer(command, w)
		if err == nil {
			return
		}
		if !errors.Is(err, errNoLeader) {
			w.Done(nil, err)
			return
		}
	}
	h.keep(heldCommand{slices.Clone(command), w, time.Now().Add(holdFor)})
	h.flush() // The leader may have come in between.
}

// keep puts a command that was not proposed behind those that wait.
func (h *held) keep(c heldCommand) {
	h.Lock()
	full, closed := len(h.commands) >= holdMax || h.bytes+len(c.command) > holdBytesMax, h.closed
	if !full && !closed {
		h.commands = append(h.commands, c)
		h.bytes += len(c.command)
		h.counted()
	}
	h.Unlock()
	switch {
	case closed:
		c.waiter.Done(nil, ErrUnavailable)
	case full:
		c.waiter.Done(nil, ErrOverloaded)
	}
}

// flush proposes what was held, as far as somebody takes it.
func (h *held) flush() {
	if h.count.Load() == 0 {
		return
	}
	type refusal struct {
		w   replica.Waiter
		err error
	}
	var refused []refusal
	h.Lock()
	n := 0
	for _, c := range h.commands {
		err := h.offer(c.command, c.waiter)
		if errors.Is(err, errNoLeader) {
			break
		}
		if err != nil {
			refused = append(refused, refusal{c.waiter, err})
		}
		n++
	}
	h.drop(n)
	h.Unlock()
	for _, f := range refused {
		f.w.Done(nil, f.err)
	}
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
