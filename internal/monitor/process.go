package monitor

import (
	"math"
	"sync"
	"time"
)

// process measures the resources this process uses.
type process struct {
	mu   sync.Mutex
	at   time.Time     // of the last measurement; zero before
	used time.Duration // processor time then
	cpu  float64
}

// sampleMin is the shortest time between two measurements of the processor; more often the figure
// would be noise, so the last one is given again.
const sampleMin = 500 * time.Millisecond

// usage returns the share of the processors used since the last call, in percent of one, and the
// resident memory in bytes.
func (p *process) usage(now time.Time) (cpu float64, mem int64) {
	used, mem := resources()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at.IsZero() {
		p.at, p.used = now, used
		return 0, mem
	}
	if passed := now.Sub(p.at); passed >= sampleMin {
		percent := 100 * float64(used-p.used) / float64(passed)
		p.cpu = math.Round(percent*10) / 10
		p.at, p.used = now, used
	}
	return p.cpu, mem
}
