package memory

import (
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// Scan implements storage.Scanner.
func (e *Engine) Scan(filters []string, from uint64, _ int, fn func(m *storage.Message) bool) error {
	return e.View().scan(filters, from, fn)
}

func (v *view) scan(filters []string, from uint64, fn func(m *storage.Message) bool) error {
	v.Match(filters, from, func(en *index.Entry) bool {
		en.Subject = strings.Clone(en.Subject)
		m := v.message(en)
		return fn(&m)
	})
	return nil
}
