package wal

import (
	"sync/atomic"
	"time"
)

// This file has what the simulator does not run: the goroutines of an open log and their clock. With
// Options.Stepped nothing here is used.

// start starts the writer and the keeper; Close waits for both.
func (l *Log) start() {
	l.clock.epoch = time.Now()
	go l.keep()
	go l.Run()
}

// clock measures how long the write or sync under way takes.
type clock struct {
	epoch time.Time    // zero in a stepped log, which knows no time
	since atomic.Int64 // nanoseconds from epoch, 0 if nothing is under way

	batches, submissions, bytes, nanoseconds atomic.Int64 // written since the log was opened
}

// Figures say what a log has written since it was opened.
type Figures struct {
	Batches     int64 // each with one sync
	Submissions int64 // that shared them
	Bytes       int64
	Time        time.Duration // of writing and syncing
}

// Figures may be asked by any goroutine.
func (l *Log) Figures() Figures {
	c := &l.clock
	return Figures{
		Batches: c.batches.Load(), Submissions: c.submissions.Load(), Bytes: c.bytes.Load(),
		Time: time.Duration(c.nanoseconds.Load()),
	}
}

// count is called after a batch of so many submissions and bytes, before stop.
func (c *clock) count(submissions, bytes int) {
	c.batches.Add(1)
	c.submissions.Add(int64(submissions))
	c.bytes.Add(int64(bytes))
	c.nanoseconds.Add(int64(c.age()))
}

func (c *clock) start() {
	if !c.epoch.IsZero() && c.since.Load() == 0 {
		c.since.Store(int64(time.Since(c.epoch)) | 1)
	}
}

func (c *clock) stop() { c.since.Store(0) }

func (c *clock) age() time.Duration {
	since := c.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(c.epoch) - time.Duration(since)
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run writes what is submitted until Close. Open starts it.
func (l *Log) Run() {
	defer close(l.stopped)
	again := time.AfterFunc(spaceRetry, l.signal)
	defer again.Stop()
	for range l.wake {
		for l.Step() {
		}
		if l.queue.isClosed() && !l.w.waiting() {
			return
		}
		if l.w.waiting() {
			again.Reset(spaceRetry)
		}
	}
}

// spaceRetry is how often a writer without room looks whether there is some.
const spaceRetry = 50 * time.Millisecond

func (q *queue) isClosed() bool {
	q.Lock()
	defer q.Unlock()
	return q.closed && len(q.subs) == 0
}

// SyncAge is how long the write or sync under way has been running, 0 if none is. A disk that
// stalls shows here.
func (l *Log) SyncAge() time.Duration {
	return l.clock.age()
}

// keep runs jobs until stopKeeper.
func (l *Log) keep() {
	k := &l.keeper
	defer close(k.stopped)
	for {
		k.Lock()
		for len(k.jobs) == 0 && !k.closed {
			k.work.Wait()
		}
		jobs := k.jobs
		k.jobs = nil
		k.Unlock()
		if len(jobs) == 0 {
			return
		}
		l.runJobs(jobs)
	}
}
