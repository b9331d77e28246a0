package jetstream

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/storage"
)

// Delivery loops share a few workers. A consumer that has something to do stands in the run queue
// once; a worker takes it, lets it do a bounded piece of work, flushes, and puts it back at the end
// if there is more. A consumer that waits for something to be stored, acknowledged or asked for is
// in no queue; one that waits for a time is in one heap with all the others. So an idle consumer
// costs its state and nothing else.

const (
	turnMsgsMax  = 256
	turnBytesMax = 256 << 10
	takeMax      = 16 // consumers a worker takes at a time and flushes together

	// A consumer pauses while one of its clients has this much unsent.
	backlogMax = 4 << 20
	pauseMin   = 2 * time.Millisecond
	pauseMax   = 256 * time.Millisecond
)

// task is something the workers run. It is embedded in what implements runner.
type task struct {
	state atomic.Uint32
	timer timerSlot // under the scheduler's timer lock
}

// States of a task. A wake-up while it runs makes it run once more.
const (
	taskIdle uint32 = iota
	taskQueued
	taskRunning
	taskAgain
)

// runner is a task with its work.
type runner interface {
	base() *task
	// run does a bounded piece of work and returns whether to be run again at once.
	run(w *worker) (again bool)
}

func (t *task) base() *task { return t }

// worker is the memory that the goroutines of the scheduler reuse.
type worker struct {
	sched *scheduler
	out   broker.Batch
	turn  consumer.Turn

	// What view works on; it is made once, since it runs for each message of each watcher.
	view func(storage.Reader)
	feed *feed
	did  did
}

func newWorker(s *scheduler) *worker {
	w := &worker{sched: s}
	w.turn.MsgsMax, w.turn.BytesMax = turnMsgsMax, turnBytesMax
	w.view = func(r storage.Reader) {
		w.turn.Reader = r
		w.did = w.feed.act(&w.turn)
	}
	return w
}

// scheduler runs tasks until it is closed.
type scheduler struct {
	clock clock // of all times here, and of the consumers

	mu     sync.Mutex
	ready  sync.Cond
	queue  []runner // from head on
	head   int
	idle   int
	closed bool

	timers struct {
		sync.Mutex
		heap   timerHeap
		armed  int64 // what the clock goroutine waits for, 0: nothing
		change chan struct{}
	}
	done  chan struct{}
	group sync.WaitGroup
}

func newScheduler(workers int, clocks clocks) *scheduler {
	s := &scheduler{clock: clock{read: clocks}, done: make(chan struct{})}
	s.ready.L = &s.mu
	s.timers.change = make(chan struct{}, 1)
	for range workers {
		s.group.Go(s.work)
	}
	s.group.Go(s.watchClock)
	return s
}

// close stops the workers and waits for them.
func (s *scheduler) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.ready.Broadcast()
	close(s.done)
	s.group.Wait()
}

// wake makes the task run soon, at least once after this call began.
func (s *scheduler) wake(r runner) {
	if !r.base().enqueue() {
		return
	}
	s.mu.Lock()
	s.push(r)
	idle := s.idle
	s.mu.Unlock()
	if idle > 0 {
		s.ready.Signal()
	}
}

// wakeAll wakes many tasks at the price of one lock.
func (s *scheduler) wakeAll(list []runner) {
	s.mu.Lock()
	pushed := 0
	for _, r := range list {
		if r.base().enqueue() {
			s.push(r)
			pushed++
		}
	}
	idle := s.idle
	s.mu.Unlock()
	for range min(idle, (pushed+takeMax-1)/takeMax) {
		s.ready.Signal()
	}
}

// enqueue moves an idle task to the queue state; it returns false if it stands there already, or
// runs and will run again.
func (t *task) enqueue() bool {
	for {
		switch state := t.state.Load(); state {
		case taskIdle:
			if t.state.CompareAndSwap(taskIdle, taskQueued) {
				return true
			}
		case taskRunning:
			if t.state.CompareAndSwap(taskRunning, taskAgain) {
				return false
			}
		default:
			return false
		}
	}
}

func (s *scheduler) push(r runner) {
	if s.head > 64 && s.head*2 > len(s.queue) {
		n := copy(s.queue, s.queue[s.head:])
		clear(s.queue[n:])
		s.queue, s.head = s.queue[:n], 0
	}
	s.queue = append(s.queue, r)
}

// take waits for tasks and returns some, none once the scheduler is closed.
func (s *scheduler) take(into []runner) []runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.head == len(s.queue) && !s.closed {
		s.idle++
		s.ready.Wait()
		s.idle--
	}
	if s.closed {
		return nil
	}
	n := min(takeMax, len(s.queue)-s.head)
	into = append(into[:0], s.queue[s.head:s.head+n]...)
	clear(s.queue[s.head : s.head+n])
	s.head += n
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	return into
}

// work is the loop of one worker.
func (s *scheduler) work() {
	w := newWorker(s)
	var list, again []runner
	for {
		if list = s.take(list); list == nil {
			return
		}
		again = again[:0]
		for _, r := range list {
			t := r.base()
			t.state.Store(taskRunning)
			more := r.run(w)
			if more || !t.state.CompareAndSwap(taskRunning, taskIdle) {
				t.state.Store(taskQueued)
				again = append(again, r)
			}
		}
		w.out.Flush()
		clear(list)
		s.requeue(again)
		clear(again)
	}
}

func (s *scheduler) requeue(list []runner) {
	if len(list) == 0 {
		return
	}
	s.mu.Lock()
	for _, r := range list {
		s.push(r)
	}
	s.mu.Unlock()
}

// A timerSlot is the place of a task in the heap.
type timerSlot struct {
	at    int64 // by the scheduler's clock; 0: not in the heap
	index int
}

// wakeAt makes the task run at a time or earlier. A task has one timer: a later time than the one
// that is set is ignored, as the task sets its timer anew each time it runs.
func (s *scheduler) wakeAt(r runner, at int64) {
	s.timers.Lock()
	defer s.timers.Unlock()
	slot := &r.base().timer
	switch {
	case slot.at == 0:
		slot.at = at
		heap.Push(&s.timers.heap, r)
	case slot.at <= at:
		return
	default:
		slot.at = at
		heap.Fix(&s.timers.heap, slot.index)
	}
	if s.timers.armed == 0 || at < s.timers.armed {
		select {
		case s.timers.change <- struct{}{}:
		default:
		}
	}
}

// forget takes the task's timer away.
func (s *scheduler) forget(r runner) {
	s.timers.Lock()
	defer s.timers.Unlock()
	if slot := &r.base().timer; slot.at != 0 {
		heap.Remove(&s.timers.heap, slot.index)
		slot.at = 0
	}
}

// watchClock wakes the tasks whose time has come.
func (s *scheduler) watchClock() {
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	var due []runner
	for {
		var next time.Duration
		due, next = s.expired(due[:0], s.clock.now())
		if len(due) > 0 {
			s.wakeAll(due)
			clear(due)
		}
		clock.Reset(next)
		select {
		case <-clock.C:
		case <-s.timers.change:
		case <-s.done:
			return
		}
	}
}

// expired takes the tasks that are due out of the heap and returns how long until the next one is.
func (s *scheduler) expired(due []runner, now int64) ([]runner, time.Duration) {
	s.timers.Lock()
	defer s.timers.Unlock()
	h := &s.timers.heap
	for h.Len() > 0 && (*h)[0].base().timer.at <= now {
		r := heap.Pop(h).(runner)
		r.base().timer.at = 0
		due = append(due, r)
	}
	s.timers.armed = 0
	if h.Len() == 0 {
		return due, time.Hour
	}
	s.timers.armed = (*h)[0].base().timer.at
	return due, time.Duration(s.timers.armed - now)
}

type timerHeap []runner

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].base().timer.at < h[j].base().timer.at }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].base().timer.index, h[j].base().timer.index = i, j
}
func (h *timerHeap) Push(x any) {
	r := x.(runner)
	r.base().timer.index = len(*h)
	*h = append(*h, r)
}
func (h *timerHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return r
}

// job is a task that is run once: work that must not be done where it was asked for.
type job struct {
	task
	fn func(w *worker)
}

func (j *job) run(w *worker) bool {
	j.fn(w)
	return false
}

// do runs fn on a worker soon.
func (s *scheduler) do(fn func(w *worker)) { s.wake(&job{fn: fn}) }
