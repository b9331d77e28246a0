package index

import (
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/storage"
)

// Current is the published state of an engine. Embedded in one, it gives it the methods of
// storage.Reader, each of them on the view that is current when it is called.
type Current[V storage.Reader] struct{ p atomic.Pointer[V] }

// View returns the current view, which never changes.
func (c *Current[V]) View() V { return *c.p.Load() }

// Publish makes v the current view.
func (c *Current[V]) Publish(v V) { c.p.Store(&v) }

func (c *Current[V]) State() storage.State                          { return c.View().State() }
func (c *Current[V]) Err() error                                    { return c.View().Err() }
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
