package storagetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/cleatkv/cleat/internal/storage"
)

// history makes random changes with background work in between, and remembers the state after
// each commit, to find the one that a reopened engine came back to.
type history struct {
	*writer
	states map[uint64]*model // by applied index
	floor  uint64            // a durable index that was reported
}

func newHistory(seed uint64) *history {
	h := &history{writer: newWriter(seed), states: make(map[uint64]*model)}
	h.large = 3000
	h.states[0] = h.model
	return h
}

// step makes a change, or does background work. An error is the engine's.
func (h *history) step(e storage.Engine) error {
	if err := h.change(e); err != nil {
		return err
	}
	h.states[h.index] = h.model
	err := h.background(e)
	h.floor = max(h.floor, e.Durable().Index)
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

// check says what is wrong with a reopened engine, or "": it is at a commit, not before what was
// durable, and all of it is there.
func (h *history) check(e storage.Engine, rng *rand.Rand) string {
	at := e.Applied().Index
	m := h.states[at]
	switch {
	case m == nil:
		return fmt.Sprintf("it came back to %d, which is no commit", at)
	case at < h.floor:
		return fmt.Sprintf("it came back to %d, though %d was durable", at, h.floor)
	}
	if d := difference(m, e, rng, true); d != "" {
		return d
	}
	if err := e.Verify(); err != nil {
		return err.Error()
	}
	return ""
}

// resume makes the state that an engine came back to the one to go on from.
func (h *history) resume(e storage.Engine) {
	h.index = e.Applied().Index
	h.model = h.states[h.index]
	for index := range h.states {
		if index > h.index {
			delete(h.states, index)
		}
	}
}
