package jetstream

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// feed is a consumer that this server delivers for: its machine with a lock, a place in the run
// queue, and subscriptions. It follows the stream as an observer.
//
// Locks are taken in the order stream, feed; nothing is sent while either is held.
type feed struct {
	task
	set     *consumerSet
	source  *stream.Stream // of the local replica, which the feed follows
	name    string
	created int64
	logged  bool // its state is replicated, see journal

	mu      sync.Mutex
	machine *consumer.Consumer
	closed  bool
	held    bool // nothing is delivered before its creation is answered
	journal journal
	subs    []*broker.Sub
	flowSub *broker.Sub
	unwatch func()

	// The rest belongs to the worker that runs the feed.
	pause       time.Duration // how long it last waited for a slow client
	pausedUntil int64
}

// retryAfter is how long a journal waits that found no leader.
const retryAfter = 200 * time.Millisecond

// journal is what happened to a replicated consumer and is not in the stream's log yet. One piece
// is under way at a time; what happens meanwhile gathers for the next.
type journal struct {
	next     []byte
	replies  []string // to be answered once next is applied
	sent     []byte
	answers  []string // to be answered once sent is applied
	underway bool
	// broken: what became of a piece is not known, so that the machine may be ahead of the log by what is
	// in no piece any more. Nothing may follow, and nothing be answered: the feed is about to be replaced.
	broken bool
}

// Stored, Removed, Settle and Replaced make the feed an observer of its stream.
func (f *feed) Stored(seq uint64, _ string) {
	f.mu.Lock()
	wake := f.machine.Stored(seq)
	f.mu.Unlock()
	if wake && f.state.Load() != taskQueued {
		f.set.wakeLater(f)
	}
}

func (f *feed) Removed(r storage.Reader, seq uint64, subject string) {
	f.mu.Lock()
	f.machine.Removed(r, seq, subject)
	f.mu.Unlock()
}

func (f *feed) Settle() {
	f.mu.Lock()
	f.machine.Settle()
	f.mu.Unlock()
}

func (f *feed) Replaced(r storage.Reader) {
	f.mu.Lock()
	f.machine.Recount(r)
	f.mu.Unlock()
	f.set.wakeLater(f)
}

// release ends the time in which the feed is held.
func (f *feed) release() {
	f.mu.Lock()
	f.held = false
	f.mu.Unlock()
	f.wake()
}

func (f *feed) wake() { f.set.sched.wake(f) }

// run is one turn: choose and load a batch of messages in one view of the stream, then send them.
func (f *feed) run(w *worker) (again bool) {
	now := f.set.sched.clock.now()
	if now < f.pausedUntil {
		f.set.sched.wakeAt(f, f.pausedUntil)
		return false
	}
	t := &w.turn
	t.Reset(now)
	t.Interest, t.Load = f.set.interest, f.set.load
	w.feed, w.did = f, did{}
	_ = f.source.View(w.view) // The consumer has asked already.
	did := w.did
	w.feed, t.Reader = nil, nil
	if did.askFlow {
		f.listenForFlow()
	}
	f.send(&w.out, t)
	f.propose()
	switch {
	case t.Err != nil:
		f.set.svc.log.Error(fmt.Sprintf("consumer %s > %s: %v", f.set.st.Name(), f.name, t.Err))
		did.deadline = now + int64(time.Second)
	case did.expired:
		f.set.expire(f)
		return false
	case did.more || t.Bytes() > turnBytesMax/4:
		if f.slow(w, now) {
			return false
		}
	}
	if did.deadline != 0 && !did.more {
		f.set.sched.wakeAt(f, did.deadline)
	}
	return did.more
}

// did is what came out of a feed's turn besides messages.
type did struct {
	more     bool  // the turn was full
	expired  bool  // nobody has used the consumer for too long
	askFlow  bool  // the first flow control request is among the messages
	deadline int64 // when the next turn is due at the latest
}

// act lets the machine act. The stream does not change meanwhile.
func (f *feed) act(t *consumer.Turn) (d did) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.held || f.journal.broken {
		return d
	}
	d.more = f.machine.Run(t)
	d.expired = f.machine.Expired(t.Now)
	d.deadline = f.machine.Deadline()
	d.askFlow = f.machine.AwaitsFlow() && f.flowSub == nil
	if f.source.Err() == nil {
		f.collect()
	}
	return d
}

// send delivers what a turn wants sent.
func (f *feed) send(out *broker.Batch, t *consumer.Turn) {
	a := f.set.account
	for i := range t.Out {
		if o := &t.Out[i]; o.Advisory != nil {
			f.set.advise(out, f.name, o.Advisory)
		} else {
			a.Deliver(out, o.To, o.Queue, o.Subject, o.Reply, o.Header, o.Data)
		}
	}
}

// slow flushes and tells whether the feed has to wait for a client that does not keep up.
func (f *feed) slow(w *worker, now int64) bool {
	w.out.Flush()
	if w.out.Backlog() < backlogMax {
		f.pause = 0
		return false
	}
	f.pause = min(max(2*f.pause, pauseMin), pauseMax)
	f.pausedUntil = now + int64(f.pause)
	f.set.sched.wakeAt(f, f.pausedUntil)
	return true
}

// collect moves what the machine has journaled into the journal. f.mu is held.
func (f *feed) collect() {
	if !f.logged {
		return
	}
	j := f.machine.TakeJournal()
	if f.journal.next == nil {
		f.journal.next = j
	} else {
		f.journal.next = append(f.journal.next, j...)
	}
}

// propose puts the journal on its way through the stream's log, if there is something in it and
// nothing under way. Without the lead it stays here: this feed is about to end, and whoever leads begins from
// what the log has, behind which it must not come.
func (f *feed) propose() {
	if !f.logged || !f.set.st.IsLeader() {
		return
	}
	f.mu.Lock()
	j := &f.journal
	if f.closed || j.broken || j.underway || len(j.next) == 0 {
		f.mu.Unlock()
		return
	}
	j.sent, j.answers, j.next, j.replies = j.next, j.replies, nil, nil
	j.underway = true
	command := append([]byte{byte(stream.KindConsumerState)}, consumer.EncodeState(f.name, f.created, j.sent)...)
	f.mu.Unlock()
	f.set.st.Propose(command, cluster.WaiterFunc(f.proposed))
}

// proposed hears what became of a piece of the journal. It runs on the replica's owner.
func (f *feed) proposed(result any, err error) {
	if r, ok := result.(*stream.Result); err == nil && ok && r.Err != nil {
		err = r.Err // The log has gone on without this feed.
	}
	f.mu.Lock()
	j := &f.journal
	sent, answers := j.sent, j.answers
	j.sent, j.answers, j.underway = nil, nil, false
	if errors.Is(err, cluster.ErrUnavailable) {
		// Certainly not in the log: it goes first next time.
		j.next = append(sent, j.next...)
		j.replies = append(answers, j.replies...)
		answers = nil
	} else {
		j.broken = err != nil
	}
	more := len(j.next) > 0
	f.mu.Unlock()
	switch {
	case errors.Is(err, cluster.ErrUnavailable):
		f.set.sched.wakeAt(f, f.set.sched.clock.in(retryAfter)) // Unless another leads by then.
	case err != nil:
		// The log may have it or not: only the log knows where the consumer is now.
		f.set.sched.do(func(*worker) { f.set.restart() })
	default:
		if len(answers) > 0 {
			f.set.sched.do(func(w *worker) {
				for _, reply := range answers {
					f.set.account.Publish(&w.out, reply, "", nil, nil)
				}
			})
		}
		if more {
			f.propose()
		}
	}
}

// subscribe makes the subscriptions that the consumer needs.
func (f *feed) subscribe() {
	cfg, a := f.machine.Config(), f.set.account
	own := f.set.st.Name() + "." + f.name
	var subs []*broker.Sub
	var unwatch func()
	if cfg.DeliverSubject == "" {
		subs = append(subs, a.SubscribeWide("$JS.API.CONSUMER.MSG.NEXT."+own, "", f.onNext))
	} else {
		unwatch = a.WatchInterest(cfg.DeliverSubject, cfg.DeliverGroup, func(bool) { f.wake() })
	}
	if cfg.AckPolicy != api.AckNone {
		subs = append(subs, a.SubscribeWide("$JS.ACK."+own+".>", "", f.onAck))
	}
	f.mu.Lock()
	old, oldWatch := f.subs, f.unwatch
	f.subs, f.unwatch = subs, unwatch
	if f.closed {
		old, oldWatch = append(old, subs...), both(oldWatch, unwatch)
	}
	f.mu.Unlock()
	for _, s := range old {
		s.Close()
	}
	if oldWatch != nil {
		oldWatch()
	}
}

func both(a, b func()) func() {
	return func() {
		for _, fn := range []func(){a, b} {
			if fn != nil {
				fn()
			}
		}
	}
}

// listenForFlow subscribes to the answers to flow control requests. Most watchers never send one.
func (f *feed) listenForFlow() {
	sub := f.set.account.SubscribeWide("$JS.FC."+f.set.st.Name()+"."+f.name+".*", "", f.onFlow)
	f.mu.Lock()
	closed := f.closed
	f.flowSub = sub
	f.mu.Unlock()
	if closed {
		sub.Close()
	}
}

func (f *feed) onFlow(m *broker.Msg) {
	f.mu.Lock()
	wake := f.machine.FlowReply(m.Subject, f.set.sched.clock.now())
	f.collect()
	f.mu.Unlock()
	f.propose()
	if wake {
		f.wake()
	}
}

// update changes the configuration of the consumer.
func (f *feed) update(cfg *api.ConsumerConfig) {
	f.mu.Lock()
	same := consumer.SameConfig(f.machine.Config(), cfg)
	f.mu.Unlock()
	if same {
		return
	}
	err := f.source.Observe(f, consumer.Filters(cfg), func(r storage.Reader) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.machine.Update(r, *cfg)
	})
	if err != nil {
		return // It says nothing any more, and its creator is told.
	}
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	if closed {
		f.source.Unobserve(f)
		return
	}
	f.subscribe()
	f.wake()
}

// end closes the feed and tells those who wait for messages why, if status is not empty.
func (f *feed) end(out *broker.Batch, status string) {
	f.source.Unobserve(f)
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.closed = true
	t := consumer.Turn{Now: f.set.sched.clock.now()}
	if status != "" {
		f.machine.EndPulls(&t, status)
	}
	f.machine.Release()
	subs, unwatch, flow := f.subs, f.unwatch, f.flowSub
	f.subs, f.unwatch, f.flowSub = nil, nil, nil
	f.mu.Unlock()
	for _, s := range subs {
		s.Close()
	}
	if flow != nil {
		flow.Close()
	}
	if unwatch != nil {
		unwatch()
	}
	f.set.sched.forget(f)
	f.send(out, &t)
}

// info describes the consumer as of now. Its counts are worthless once the stream could not be read.
func (f *feed) info() *api.ConsumerInfo {
	where := f.set.svc.consumerCluster(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.machine.Info(f.set.sched.clock.now())
	i.Cluster = where
	if where != nil && i.Config.Replicas == 1 {
		where.Replicas = nil // What was asked for; that the log keeps more is our affair.
	}
	if cfg := &i.Config; cfg.DeliverSubject != "" {
		i.PushBound = f.set.interest(cfg.DeliverSubject, cfg.DeliverGroup) // Fresher than what the last turn saw.
	}
	return i
}
