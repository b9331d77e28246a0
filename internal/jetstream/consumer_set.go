package jetstream

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// consumerSet is the consumers of one stream that this server delivers for: all ephemeral ones that
// were created here, and the replicated ones while the local replica leads.
type consumerSet struct {
	svc      *Service
	sched    *scheduler
	st       *cluster.Stream
	account  *broker.Account
	interest func(subject, queue string) bool

	mu      sync.Mutex
	feeds   map[string]*feed
	awaited map[string]int // names whose creation is under way and will be answered
	closed  bool

	following sync.Mutex     // held while feeds are made to agree with the registry
	leading   bool           // as far as feeds know; under following
	source    *stream.Stream // that they follow; under following

	interrupted atomic.Bool   // leadership was lost, or may have been, since feeds last followed
	followed    atomic.Uint64 // version of the registry they agree with

	// wakes are the feeds to wake once the change of the stream in progress is done.
	wakes struct {
		sync.Mutex
		list, spare []runner
	}

	// recent shares what is loaded near the end of the stream: a message that a hundred
	// watchers are waiting for is read once.
	recent [recentMsgs]atomic.Pointer[storage.Message]
}

const recentMsgs = 128

// newConsumerSet makes the part of a hosted stream that runs its consumers.
func newConsumerSet(h *hosted) part {
	s := &consumerSet{
		svc: h.svc, sched: h.svc.sched, st: h.stream,
		account: h.account, interest: h.account.Interest,
		feeds: make(map[string]*feed), awaited: make(map[string]int),
	}
	s.followSoon()
	return s
}

// Drain tells those who wait for messages that the server goes. It is for the time before their
// connections are closed; nothing is delivered to consumers afterwards.
func (s *Service) Drain() {
	s.revival.save(time.Now(), true)
	s.mu.RLock()
	var sets []*consumerSet
	for cs := range s.hosted {
		sets = append(sets, s.hosted[cs].set())
	}
	s.mu.RUnlock()
	for _, set := range sets {
		if set != nil {
			set.end(consumer.EndShutdown)
		}
	}
}

// setOf returns the consumers of a stream, nil if it has no replica here.
func (s *Service) setOf(st *cluster.Stream) *consumerSet {
	if h := s.of(st); h != nil {
		return h.set()
	}
	return nil
}

func (h *hosted) set() *consumerSet {
	for _, p := range h.parts {
		if set, ok := p.(*consumerSet); ok {
			return set
		}
	}
	return nil
}

// updated, leaderChanged and stop are called by the hosted stream, see part. A local replica may
// have come or gone; who followed one that has gone must look for another server.
func (s *consumerSet) updated() {
	now := s.st.Machine()
	for _, f := range s.list() {
		if f.source != now {
			s.remove(f, consumer.EndLeader)
		}
	}
	s.followSoon()
}

func (s *consumerSet) leaderChanged() {
	if !s.st.IsLeader() {
		s.interrupted.Store(true)
	}
	s.followSoon()
}

func (s *consumerSet) stop() { s.end(consumer.EndDeleted) }

// end removes all feeds for good.
func (s *consumerSet) end(status string) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, f := range s.list() {
		s.remove(f, status)
	}
}

// consumers is how many there are here.
func (s *consumerSet) consumers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.feeds)
}

// load reads a message that is known to be in the stream.
func (s *consumerSet) load(r storage.Reader, seq uint64) (storage.Message, error) {
	slot := &s.recent[seq%recentMsgs]
	if m := slot.Load(); m != nil && m.Seq == seq {
		return *m, nil
	}
	m, err := r.Load(seq)
	if err == nil && seq+recentMsgs > r.State().LastSeq {
		shared := m // Only a message that is kept is worth an allocation.
		slot.Store(&shared)
	}
	return m, err
}

func (s *consumerSet) wakeLater(f *feed) {
	s.wakes.Lock()
	s.wakes.list = append(s.wakes.list, f)
	s.wakes.Unlock()
}

// applied runs after a change of the stream.
func (s *consumerSet) applied() {
	s.wakes.Lock()
	list := s.wakes.list
	s.wakes.list, s.wakes.spare = s.wakes.spare, nil
	s.wakes.Unlock()
	if len(list) > 0 {
		s.sched.wakeAll(list)
		clear(list)
		s.wakes.Lock()
		s.wakes.spare = list[:0]
		s.wakes.Unlock()
	}
	if m := s.st.Machine(); m != nil && m.Consumers().Version() != s.followed.Load() {
		s.followSoon()
	}
}

// get returns the feed of that name.
func (s *consumerSet) get(name string) *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeds[name]
}

// list returns the feeds ordered by name.
func (s *consumerSet) list() []*feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*feed, 0, len(s.feeds))
	for _, f := range s.feeds {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b *feed) int { return cmp.Compare(a.name, b.name) })
	return list
}

// enter adds a feed unless its name is taken.
func (s *consumerSet) enter(f *feed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.feeds[f.name] != nil {
		return false
	}
	s.feeds[f.name] = f
	f.mu.Lock()
	f.held = s.awaited[f.name] > 0
	f.mu.Unlock()
	return true
}

// await has the feed of that name, should it come to be, deliver nothing until answered was called
// as often, so that the answer to its creation is the first thing the client hears.
func (s *consumerSet) await(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited[name]++
}

func (s *consumerSet) answered(name string) {
	s.mu.Lock()
	s.awaited[name]--
	done := s.awaited[name] == 0
	if done {
		delete(s.awaited, name)
	}
	f := s.feeds[name]
	s.mu.Unlock()
	if done && f != nil {
		f.release()
	}
}

// remove takes a feed out and ends it.
func (s *consumerSet) remove(f *feed, status string) {
	s.mu.Lock()
	had := s.feeds[f.name] == f
	if had {
		delete(s.feeds, f.name)
	}
	s.mu.Unlock()
	if had {
		var out broker.Batch
		f.end(&out, status)
		s.svc.revival.ended(f, status)
		out.Flush()
	}
}

// expire deletes a consumer that nobody has used for too long.
func (s *consumerSet) expire(f *feed) {
	if !f.logged {
		s.remove(f, "")
		return
	}
	s.proposeGone(f)
	s.sched.wakeAt(f, s.sched.clock.in(5*time.Second)) // Should that fail.
}

// followSoon makes the feeds agree with the registry: where the local replica leads, once it has caught
// up with everything that was decided before it did; where it does not, at once, because it may be cut
// off from the server that delivers now.
func (s *consumerSet) followSoon() {
	if s.st.Machine() == nil {
		return
	}
	follow := func() { s.sched.do(func(*worker) { s.follow() }) }
	if !s.st.IsLeader() {
		follow()
		return
	}
	s.st.ReadIndex(func(err error) {
		switch {
		case err == nil:
			follow()
		case s.st.IsLeader():
			s.sched.wakeAt(&job{fn: func(*worker) { s.followSoon() }}, s.sched.clock.in(retryAfter))
		}
	})
}

// follow makes the feeds of replicated consumers agree with the registry: all of them if the local
// replica leads, none if it does not.
func (s *consumerSet) follow() {
	s.following.Lock()
	defer s.following.Unlock()
	source := s.st.Machine()
	if source == nil {
		return
	}
	if s.interrupted.Swap(false) {
		// Another server may have delivered meanwhile: what feeds remember is not what the log says.
		s.leave()
	}
	registry := source.Consumers()
	names, version, all := registry.ChangedSince(s.followed.Load())
	if leads := s.st.IsLeader(); leads != s.leading || source != s.source {
		s.leading, s.source, all = leads, source, true
	}
	if all {
		names = names[:0]
		for _, f := range s.list() {
			names = append(names, f.name)
		}
		for _, e := range registry.List() {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		s.followOne(source, name)
	}
	s.followed.Store(version)
}

// leave ends the feeds of all replicated consumers. s.following is held.
func (s *consumerSet) leave() {
	for _, f := range s.list() {
		if f.logged {
			s.remove(f, consumer.EndLeader)
		}
	}
	s.leading = false
}

// followOne makes the feed of one replicated consumer agree with the registry. s.following is held.
func (s *consumerSet) followOne(source *stream.Stream, name string) {
	e, exists := source.Consumers().Get(name)
	f := s.get(name)
	switch {
	case f != nil && !f.logged:
	case f != nil && !s.leading:
		s.remove(f, consumer.EndLeader)
	case f != nil && (!exists || e.Created != f.created):
		s.remove(f, consumer.EndDeleted)
		if exists {
			s.startLogged(source, e)
		}
	case f != nil:
		f.update(&e.Config)
		f.propose() // What found no leader before.
	case exists && s.leading:
		s.startLogged(source, e)
	}
}

// restart has feeds forget what they did since the log last heard of it, and go on from there.
func (s *consumerSet) restart() {
	s.interrupted.Store(true)
	s.followSoon()
}

// startLogged delivers for a replicated consumer.
func (s *consumerSet) startLogged(source *stream.Stream, e *consumer.Entry) {
	f := &feed{set: s, source: source, name: e.Name(), created: e.Created, logged: true}
	if !s.begin(f, &e.Config, func(r storage.Reader) *consumer.Consumer {
		spec := consumer.Spec{Stream: s.st.Name(), Name: e.Name(), Config: e.Config, Created: e.Created, Start: e.Start}
		return consumer.New(r, spec, source.Consumers().Acks(e), s.sched.clock.now())
	}) {
		return
	}
	f.wake()
}

// begin makes a feed's machine in the moment from which on the feed follows the stream, and enters
// it. It returns false if its name is taken, or if the stream can not be read.
func (s *consumerSet) begin(f *feed, cfg *api.ConsumerConfig, create func(storage.Reader) *consumer.Consumer) bool {
	if s.get(f.name) != nil {
		return false
	}
	if err := f.source.Observe(f, consumer.Filters(cfg), func(r storage.Reader) { f.machine = create(r) }); err != nil {
		f.machine.Release()
		s.svc.log.Error(fmt.Sprintf("start consumer %s > %s: %v", s.st.Name(), f.name, err))
		return false
	}
	if !s.enter(f) {
		f.source.Unobserve(f)
		f.machine.Release()
		return false
	}
	f.subscribe()
	if f.source != s.st.Machine() {
		s.remove(f, consumer.EndLeader) // The replica went while the feed was made.
	}
	return true
}
