package filelog

import (
	"math"

	"github.com/cleatkv/cleat/internal/storage"
)

var _ storage.Scrubber = (*Engine)(nil)

// Scrub implements storage.Scrubber: it reads the messages in order. What is dead is not read, nor missed.
func (e *Engine) Scrub(limit int64) (read int64, done bool, err error) {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return 0, false, errClosed
	}
	done = true
	err = e.Scan(nil, e.scrubbed, math.MaxInt, func(m *storage.Message) bool {
		read += int64(m.Size())
		e.scrubbed = m.Seq + 1
		done = read < limit
		return done
	})
	if done || err != nil {
		e.scrubbed = 0
	}
	return read, done && err == nil, err
}
