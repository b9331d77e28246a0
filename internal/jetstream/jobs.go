package jetstream

import (
	"runtime"
	"sync"

	"github.com/cleatkv/cleat/internal/broker"
)

// jobs runs what may take longer than a publisher's or a replica's goroutine can wait: reads that
// had to wait for a read index, descriptions of streams, listings. The queue is bounded; what does
// not fit is refused.
type jobs struct {
	queue chan func(*broker.Batch)
	done  chan struct{}
	group sync.WaitGroup
}

const (
	jobsMax       = 16384 // waiting at a time
	jobsFlushedBy = 64    // jobs whose answers are flushed together
)

func newJobs() *jobs {
	j := &jobs{queue: make(chan func(*broker.Batch), jobsMax), done: make(chan struct{})}
	for range max(4, runtime.GOMAXPROCS(0)) {
		j.group.Go(j.work)
	}
	return j
}

// do queues a job and tells whether there was room. The job sends with the batch it is given.
func (j *jobs) do(job func(*broker.Batch)) bool {
	select {
	case j.queue <- job:
		return true
	default:
		return false
	}
}

func (j *jobs) work() {
	var out broker.Batch
	for {
		select {
		case <-j.done:
			return
		case job := <-j.queue:
			job(&out)
		}
		for range jobsFlushedBy {
			select {
			case job := <-j.queue:
				job(&out)
				continue
			default:
			}
			break
		}
		out.Flush()
	}
}

// close ends the workers; jobs that wait are dropped.
func (j *jobs) close() {
	close(j.done)
	j.group.Wait()
}
