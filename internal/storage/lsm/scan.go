package lsm

import (
	"bytes"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/search"
)

// Scan implements storage.Scanner: one pass of one iterator.
func (e *Engine) Scan(filters []string, from uint64, _ int, fn func(m *storage.Message) bool) error {
	if e.closed.Load() {
		return errClosed
	}
	g, v := e.read()
	v.scan(filters, from, fn)
	return e.end(g, v)
}

func (v *view) scan(filters []string, from uint64, fn func(m *storage.Message) bool) {
	matches := search.Matcher(filters)
	c := &seqCursor{v: v, it: v.over(kindMessage)}
	for ok := c.Seek(from); ok && v.err == nil; ok = c.Next() {
		if !matches(c.Subject()) {
			continue
		}
		m, decoded := decodeMessage(c.Seq(), bytes.Clone(c.value()))
		if !decoded {
			v.damaged(c.it.Key(), "a message")
			return
		}
		if !fn(&m) {
			return
		}
	}
}
