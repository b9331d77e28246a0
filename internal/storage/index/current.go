package index

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/storage"
)

// Current is the published state of an engine. Embedded in one, it gives it the methods of
// storage.Reader, each of them on the view that is current when it is called.
//
// A view that a reader has taken never changes. One that nobody has taken may be claimed by the
// engine's one writer, who then makes the next state of it in place, which saves the copies of all
// nodes that the change touches; who reads meanwhile waits for the next Publish.
type Current[V storage.Reader] struct {
	p       atomic.Pointer[published[V]] // nil while the view is claimed
	gate    sync.RWMutex                 // held to write while the view is claimed
	claimed bool                         // the writer's
	broken  atomic.Bool
}

type published[V storage.Reader] struct {
	view  V
	taken bool
}

// View returns the current view, which does not change from now on.
func (c *Current[V]) View() V {
	if p := c.p.Load(); p != nil && p.taken {
		return p.view
	}
	return c.take()
}

func (c *Current[V]) take() V {
	for {
		switch p := c.p.Load(); {
		case p == nil:
			c.gate.RLock() // Held by the writer until there is a view again.
			c.gate.RUnlock()
		case p.taken || c.p.CompareAndSwap(p, &published[V]{p.view, true}):
			return p.view
		}
	}
}

// Claim returns the current view to the writer, and whether it may be changed in place because nobody
// has taken it.
func (c *Current[V]) Claim() (v V, sole bool) {
	p := c.p.Load()
	if p.taken {
		return p.view, false
	}
	c.gate.Lock()
	if !c.p.CompareAndSwap(p, nil) { // Somebody has just taken it.
		c.gate.Unlock()
		return p.view, false
	}
	c.claimed = true
	return p.view, true
}

// Publish makes v the current view. Others may hold on to parts of it.
func (c *Current[V]) Publish(v V) { c.p.Store(&published[V]{v, true}) }

// Release makes v, of which nobody else has what a claim would change, the current view. It ends a
// claim.
func (c *Current[V]) Release(v V) {
	c.p.Store(&published[V]{view: v})
	if c.claimed {
		c.claimed = false
		c.gate.Unlock()
	}
}

// Abandon ends a claim whose change was not completed: v is what it left. From now on Err tells.
func (c *Current[V]) Abandon(v V) {
	c.broken.Store(true)
	c.Release(v)
}

// Whole takes back what Abandon said: the current view has nothing to do with the one left then.
func (c *Current[V]) Whole() { c.broken.Store(false) }

var errBroken = errors.New("storage: a change was given up half way; open the bucket again, the log has all of it")

// Err implements storage.Reader. What an answer is made of lies in memory, and reading that does
// not fail.
func (c *Current[V]) Err() error {
	if c.broken.Load() {
		return errBroken
	}
	return nil
}

func (c *Current[V]) State() storage.State                          { return c.View().State() }
func (c *Current[V]) Applied() storage.Applied                      { return c.View().Applied() }
func (c *Current[V]) Load(seq uint64) (storage.Message, error)      { return c.View().Load(seq) }
func (c *Current[V]) Subject(s string) (storage.SubjectState, bool) { return c.View().Subject(s) }
func (c *Current[V]) SeqAtTime(t int64) uint64                      { return c.View().SeqAtTime(t) }
func (c *Current[V]) NextExpiry() (uint64, int64, bool)             { return c.View().NextExpiry() }
func (c *Current[V]) Aux(key string) ([]byte, bool)                 { return c.View().Aux(key) }

func (c *Current[V]) Subjects(filters []string, after string, fn func(string, storage.SubjectState) bool) {
	c.View().Subjects(filters, after, fn)
}

func (c *Current[V]) SubjectSeqs(subject string, from uint64, fn func(uint64) bool) {
	c.View().SubjectSeqs(subject, from, fn)
}

func (c *Current[V]) LastSeq(filter string, upTo uint64) (uint64, bool) {
	return c.View().LastSeq(filter, upTo)
}

func (c *Current[V]) NextSeq(filters []string, from uint64) (uint64, string, bool) {
	return c.View().NextSeq(filters, from)
}

func (c *Current[V]) Count(filters []string, from uint64, lastOnly bool) uint64 {
	return c.View().Count(filters, from, lastOnly)
}

func (c *Current[V]) AuxRange(prefix string, fn func(string, []byte) bool) {
	c.View().AuxRange(prefix, fn)
}
