package cluster

import (
	"sync/atomic"
	"testing"
	"time"
)

// What waits for a leader is bounded in number and in bytes, and the room of what has gone is there again.
func TestHeldIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ size, room int }{"many": {100, holdMax}, "large": {8 << 20, holdBytesMax / (8 << 20)}} {
		t.Run(name, func(t *testing.T) {
			leads := false
			h := &held{total: new(atomic.Int64), offer: func(heldCommand) error {
				if leads {
					return nil
				}
				return errNoLeader
			}}
			refused := map[error]int{}
			command, waiter := make([]byte, c.size), WaiterFunc(func(_ any, err error) { refused[err]++ })
			fill := func() {
				t.Helper()
				for range c.room + 3 {
					h.propose(command, waiter)
				}
				if refused[ErrOverloaded] != 3 || len(refused) != 1 || int(h.count.Load()) != c.room {
					t.Fatalf("%d wait, of %d; refused: %v", h.count.Load(), c.room, refused)
				}
				clear(refused)
			}
			fill()
			h.expire(time.Now().Add(2 * holdFor))
			if refused[ErrUnavailable] != c.room {
				t.Fatalf("refused: %v", refused)
			}
			clear(refused)
			fill()
			leads = true
			h.flush()
			leads = false
			fill()
			h.fail(ErrUnavailable)
			clear(refused)
			fill()
		})
	}
}
