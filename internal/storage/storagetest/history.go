package storagetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/cleatkv/cleat/internal/storage"
)

// history makes random changes with background work in between, and remembers the state after
// each commit, to find the one that a reopened engine came back to. An engine may have goroutines
// of its own that meet the crash, so what a check needs is guarded.
type history struct {
	*writer

	mu     sync.Mutex
	states map[uint64]*model // by applied index
	floor  uint64            // the highest durable index that was reported
}

func newHistory(seed uint64) *history {
	h := &history{writer: newWriter(seed), states: make(map[uint64]*model)}
	h.large = 3000
	h.remember(h.model)
	h.committing = h.remember
	return h
}

func (h *history) remember(m *model) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states[m.applied.Index] = m
}

func (h *history) state(index uint64) *model {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[index]
}

// durable is a position that no crash from now on may fall behind.
func (h *history) durable() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.floor
}

// step makes a change, or does background work. An error is the engine's.
func (h *history) step(e storage.Engine) error {
	if err := h.change(e); err != nil {
		return err
	}
	err := h.background(e)
	durable := e.Durable().Index
	h.mu.Lock()
	defer h.mu.Unlock()
	h.floor = max(h.floor, durable)
	return err
}

func (h *history) background(e storage.Engine) error {
	switch n := h.rng.IntN(30); {
	case n < 3:
		return e.Checkpoint()
	case n < 9:
		_, err := e.Compact()
		return err
	case n == 9:
		return e.Verify()
	case n == 10:
		var b bytes.Buffer
		if _, err := e.WriteSnapshot(&b); err != nil {
			return err
		}
		if h.rng.IntN(2) == 0 {
			return e.InstallSnapshot(&b)
		}
	}
	return nil
}

// check says what is wrong with a reopened engine, or "": it is at a commit, not before floor, and
// all of it is there.
func (h *history) check(e storage.Engine, floor uint64, rng *rand.Rand) string {
	at := e.Applied().Index
	m := h.state(at)
	switch {
	case m == nil:
		return fmt.Sprintf("it came back to %d, which is no commit", at)
	case at < floor:
		return fmt.Sprintf("it came back to %d, though %d was durable", at, floor)
	}
	if d := difference(m, e, rng, true); d != "" {
		return d
	}
	if err := e.Verify(); err != nil {
		return err.Error()
	}
	return ""
}

// after returns a history that goes on where a reopened engine is.
func (h *history) after(e storage.Engine, seed uint64) *history {
	n := newHistory(seed)
	n.model = h.state(e.Applied().Index)
	n.index = n.model.applied.Index
	n.remember(n.model)
	return n
}
