package replica

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Outgoing is a Raft message for another member of a replica's group.
type Outgoing struct {
	From    *Replica
	Message *pb.Message
}

// Env is what a shard needs of the world.
type Env interface {
	// Now is the wall clock, in Unix nanoseconds. It stamps commands and nothing else.
	Now() int64
	// Send hands messages to the peers, without blocking; what cannot be sent is dropped.
	Send(messages []Outgoing)
	// Applied is called once a turn for each replica that executed something, LeaderChanged
	// when a replica begins or ceases to lead or learns of another leader, TurnEnd after
	// every turn that answered somebody. All on the owner's goroutine; none may block.
	Applied(*Replica)
	LeaderChanged(*Replica)
	TurnEnd()

	// Install puts the received state that token names into the replica's machine, in the
	// background, and then calls done once, on any goroutine.
	Install(r *Replica, token []byte, done func(error))
}

// A bound on what peers may queue; beyond it Raft messages are dropped, which Raft tolerates.
const inboxMessagesMax = 64 << 10

// Shard owns a set of replicas and drives them from one goroutine.
type Shard struct {
	env    Env
	log    *wal.Log
	logger *slog.Logger

	inbox struct {
		sync.Mutex
		events   []event
		messages int
		wake     chan struct{}
		closed   bool
	}

	// The rest belongs to the owner.
	replicas   map[wal.GroupID]*Replica
	order      []*Replica    // of replicas, by opening
	ticks      atomic.Uint64 // written by the owner alone
	ticking    []*Replica    // those that do not rest, and some that just began to
	homes      []home        // servers that were heard of
	dirty      []*Replica
	lates      []*Replica // whose members wait for something
	spareLates []*Replica
	spare      []event
	spareDirty []*Replica
	out        turnOutput
	failed     error
	writes     int    // to the log, under way
	wrote      uint64 // tick at which one of them finished, or the first was begun

	ended chan struct{} // closed when the owner has closed everything
}

type eventKind uint8

const (
	evProposals eventKind = iota
	evRead
	evMessage
	evWritten
	evInstalled
	evBeat
	evLost
	evCall
)

type event struct {
	kind    eventKind
	r       *Replica
	read    func(error)
	message *pb.Message
	writers []writer
	err     error
	call    func()
	server  uint64
}

// writer is a replica that waits for a WAL write, with what Raft wants delivered afterwards.
type writer struct {
	r         *Replica
	responses []*pb.Message
}

// turnOutput gathers the effects of one turn.
type turnOutput struct {
	updates  []wal.Update
	writers  []writer
	messages []Outgoing
	applied  []*Replica
}

// NewShard makes a shard without replicas.
func NewShard(env Env, log *wal.Log, logger *slog.Logger) *Shard {
	s := &Shard{env: env, log: log, logger: logger, replicas: make(map[wal.GroupID]*Replica), ended: make(chan struct{})}
	s.inbox.wake = make(chan struct{}, 1)
	return s
}

// push queues an event. Any goroutine.
func (s *Shard) push(ev event) {
	s.inbox.Lock()
	if s.inbox.closed {
		s.inbox.Unlock()
		switch ev.kind {
		case evRead:
			ev.read(ErrStopped)
		case evCall:
			<-s.ended // The owner is gone for good: nothing runs beside the call.
			ev.call()
		}
		return
	}
	if ev.kind == evMessage {
		if s.inbox.messages >= inboxMessagesMax {
			s.inbox.Unlock()
			return
		}
		s.inbox.messages++
	}
	first := len(s.inbox.events) == 0
	s.inbox.events = append(s.inbox.events, ev)
	s.inbox.Unlock()
	if first {
		s.wakeUp()
	}
}

// Receive queues a Raft message from a peer for one of the shard's replicas. Any goroutine.
func (s *Shard) Receive(r *Replica, m *pb.Message) {
	s.push(event{kind: evMessage, r: r, message: m})
}

// Incoming is a Raft message for a replica of a shard.
type Incoming struct {
	To      *Replica
	Message *pb.Message
}

// ReceiveAll queues Raft messages that came together, so that one turn handles them all and what they are answered
// leaves together, too. Any goroutine.
func (s *Shard) ReceiveAll(all []Incoming) {
	s.inbox.Lock()
	if s.inbox.closed {
		s.inbox.Unlock()
		return
	}
	first := len(s.inbox.events) == 0
	for _, in := range all[:min(len(all), inboxMessagesMax-s.inbox.messages)] {
		s.inbox.events = append(s.inbox.events, event{kind: evMessage, r: in.To, message: in.Message})
		s.inbox.messages++
	}
	s.inbox.Unlock()
	if first {
		s.wakeUp()
	}
}

// wakeUp tells the loop that something is queued.
func (s *Shard) wakeUp() {
	select {
	case s.inbox.wake <- struct{}{}:
	default:
	}
}

// Call runs f on the owner's goroutine, between turns. Any goroutine.
func (s *Shard) Call(f func()) { s.push(event{kind: evCall, call: f}) }

// Open starts a replica. Owner only (use Call).
func (s *Shard) Open(cfg Config) (*Replica, error) {
	if s.stopped() || s.failed != nil {
		return nil, ErrStopped
	}
	if s.replicas[cfg.Group] != nil {
		return nil, fmt.Errorf("replica %s: group %d is open already", cfg.Name, cfg.Group)
	}
	r, err := s.open(cfg)
	if err != nil {
		return nil, err
	}
	s.replicas[cfg.Group] = r
	s.order = append(s.order, r)
	s.tickFromNowOn(r)
	s.mark(r)
	return r, nil
}

// Close stops a replica and answers all who wait. Writes of it that are under way finish without
// effect on it. Owner only.
func (s *Shard) Close(r *Replica) {
	if s.replicas[r.cfg.Group] != r {
		return
	}
	delete(s.replicas, r.cfg.Group)
	for i, o := range s.order {
		if o == r {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			break
		}
	}
	if r.failed == nil {
		r.failed = ErrStopped
		r.close(ErrStopped)
	}
}

// touch makes the turn look at the replica.
func (s *Shard) touch(r *Replica) {
	if !r.dirty && r.failed == nil {
		r.dirty = true
		s.dirty = append(s.dirty, r)
	}
}

// Turn does one round: everything that is queued, and a tick if one is due. It does not block on
// disk or network.
func (s *Shard) Turn(tick bool) {
	s.inbox.Lock()
	events := s.inbox.events
	s.inbox.events, s.inbox.messages = s.spare, 0
	s.inbox.Unlock()

	for i := range events {
		s.handle(&events[i])
	}
	clear(events)
	s.spare = events[:0]
	if tick {
		s.tick()
	}
	if len(s.dirty) == 0 {
		s.flush()
		return
	}
	now := s.env.Now()
	for _, r := range s.dirty {
		r.proposePacks(now)
		r.askReads()
		r.collect(&s.out)
	}
	// Write first, so that the disk works while we apply and answer.
	s.flush()
	s.settle()
	s.env.TurnEnd()
}

// tick advances the clocks of all that do not rest.
func (s *Shard) tick() {
	s.ticks.Add(1)
	s.sendLate(true)
	s.listen()
	awake := s.ticking[:0]
	for _, r := range s.ticking {
		if r.rest.asleep || r.failed != nil {
			r.rest.ticking = false
			continue
		}
		awake = append(awake, r)
		r.tick()
		s.touch(r)
	}
	clear(s.ticking[len(awake):])
	s.ticking = awake
	s.lookAfterResting()
}

// late notes that members of the replica wait for news, or trail.
func (s *Shard) late(r *Replica) {
	if !r.isLate {
		r.isLate = true
		s.lates = append(s.lates, r)
	}
}

// Late tells whether SendLate has something to do.
func (s *Shard) Late() bool { return len(s.lates) > 0 }

// SendLate tells members what is committed and was not told with new entries, and sends those that trail what
// waits for them after some calls. Whoever drives the shard calls it a moment after a turn; each tick sends all.
// Owner only.
func (s *Shard) SendLate() { s.sendLate(false) }

func (s *Shard) sendLate(all bool) {
	lates := s.lates
	s.lates = s.spareLates[:0]
	for _, r := range lates {
		r.isLate = false
		if r.sendLate(&s.out, all) {
			s.late(r)
		}
	}
	clear(lates)
	s.spareLates = lates
	s.flush()
}

// settle applies, and goes on until no replica has anything left to do.
func (s *Shard) settle() {
	for len(s.dirty) > 0 {
		batch := s.dirty
		for _, r := range batch {
			r.applyCommitted(&s.out)
		}
		s.dirty = s.spareDirty[:0]
		for _, r := range batch {
			r.dirty = false
			r.askReads()
			r.collect(&s.out)
			r.releaseReads()
			if r.publish() {
				s.env.LeaderChanged(r)
			}
			if r.failed == nil && (len(r.applies) > 0 || r.raft.HasReady()) {
				s.touch(r)
			}
			if r.held && !r.full() {
				r.held = false
				s.push(event{kind: evProposals, r: r})
			}
		}
		clear(batch)
		s.spareDirty = batch
		for _, r := range s.out.applied {
			s.env.Applied(r)
		}
		clear(s.out.applied)
		s.out.applied = s.out.applied[:0]
		s.flush()
	}
}

// flush submits the log writes and sends the messages gathered so far.
func (s *Shard) flush() {
	if len(s.out.updates) > 0 {
		writers := s.out.writers
		s.writeBegun()
		s.log.Submit(s.out.updates, func(err error) {
			s.push(event{kind: evWritten, writers: writers, err: err})
		})
		s.out.updates, s.out.writers = nil, nil
	}
	if len(s.out.messages) > 0 {
		s.env.Send(s.out.messages)
		clear(s.out.messages)
		s.out.messages = s.out.messages[:0]
	}
}

func (s *Shard) handle(ev *event) {
	switch ev.kind {
	case evProposals:
		s.mark(ev.r)
	case evRead:
		ev.r.addRead(ev.read)
		s.mark(ev.r)
	case evMessage:
		s.receive(ev.r, ev.message)
	case evWritten:
		s.writeDone()
		if ev.err != nil {
			s.stop(ev.err)
			return
		}
		for _, w := range ev.writers {
			if w.r.failed == nil {
				w.r.written(w.responses, &s.out)
				s.mark(w.r)
			}
		}
	case evInstalled:
		if ev.r.failed == nil {
			ev.r.installed(ev.message, ev.err, &s.out)
			s.mark(ev.r)
		}
	case evBeat:
		s.beat(ev.server)
	case evLost:
		s.lost(ev.server)
	case evCall:
		ev.call()
	}
}

// stop ends every replica: the log failed, so nothing may be acknowledged any more.
func (s *Shard) stop(err error) {
	if s.failed != nil {
		return
	}
	s.failed = err
	for _, r := range s.order {
		r.fail(fmt.Errorf("the log failed: %w", err))
	}
}

// closeAll answers everybody and takes no more events.
func (s *Shard) closeAll() {
	s.inbox.Lock()
	s.inbox.closed = true
	events := s.inbox.events
	s.inbox.events = nil
	s.inbox.Unlock()
	for i := range events {
		switch ev := &events[i]; ev.kind {
		case evRead:
			ev.read(ErrStopped)
		case evCall:
			ev.call()
		}
	}
	for len(s.order) > 0 {
		s.Close(s.order[len(s.order)-1])
	}
	close(s.ended)
}

// stopped tells whether the shard takes no more replicas.
func (s *Shard) stopped() bool {
	s.inbox.Lock()
	defer s.inbox.Unlock()
	return s.inbox.closed
}
