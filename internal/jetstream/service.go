// Package jetstream is the front of streams and consumers: it answers the requests under
// $JS.API, turns publishes into commands and their results into acknowledgements, serves direct
// gets, and runs the delivery loops of consumers.
//
// It promises that what it answers is true: an acknowledgement follows the commit, a refusal
// says that nothing was changed and never will be, and what is unknown is not answered at all.
// Default reads show every write that was acknowledged before they began. Nothing here blocks the
// goroutine of a publisher.
//
// It decides nothing about streams itself: whether a publish fits is judged by package stream when
// it is applied, whether a stream may exist by package meta.
package jetstream

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
)

// Options say whom the service works for and within which bounds.
type Options struct {
	Broker *broker.Broker
	Logger *slog.Logger

	Version   string // of the protocol, as told to clients
	Domain    string // "" for none
	Clustered bool   // this server is one of several

	// Account gives the JetStream limits of an account; false: JetStream is not for it.
	Account func(name string) (api.AccountLimits, bool)

	// Quota is how many bytes the streams of an account may hold in each storage, below 0: as many as the servers
	// hold. It may change. nil: no account has any.
	Quota func(account string) (memory, file int64)

	Limits   Limits
	Defaults Defaults

	clocks clocks // of tests
}

// Limits are the server's own bounds on what users may ask for; 0 is none.
type Limits struct {
	DuplicateWindow time.Duration
	MaxAckPending   int
	MaxRequestBatch int
	MaxConsumers    int // of a stream that sets no limit itself
}

// Service is the front. It implements cluster.Hooks, so it is made before the cluster is opened;
// requests are served from Start on.
type Service struct {
	opts      Options
	log       *slog.Logger
	cluster   *cluster.Cluster // set by Attach or Start, before the first request
	elsewhere *elsewhere       // the other servers; nil if there are none
	replies   replies
	jobs      *jobs
	sched     *scheduler // of the consumers
	makers    []func(*hosted) part
	copiers   sync.WaitGroup // of the streams with sources
	ops       operations
	revival   *revival
	backups   *backups
	quotas    *quotas

	mu       sync.RWMutex
	hosted   map[*cluster.Stream]*hosted
	accounts map[string]*account
	closed   bool
}

var _ cluster.Hooks = (*Service)(nil)

// part is one side of serving a stream: taking publishes, answering direct gets, running
// consumers. updated and stop are called by one goroutine at a time, leaderChanged and applied on
// the one that owns the stream's replica; none may block.
type part interface {
	updated()       // the configuration may have changed; called when there is one first, too
	leaderChanged() // the local replica may have begun or ceased to lead
	applied()       // something was applied
	stop()          // the stream is no longer served here
}

// hosted is one stream as this package serves it.
type hosted struct {
	svc     *Service
	stream  *cluster.Stream
	account *broker.Account
	quota   *quota // of the account
	bucket  bool   // its messages are keys, which are counted
	parts   []part

	ready atomic.Bool // the parts were told of a configuration
	led   atomic.Bool // when LeaderChanged was called last
	mu    struct {
		sync.Mutex // held while the parts are updated or stopped
		stopped    bool
	}
}

// New makes the service. Its workers run until Close.
func New(o Options) *Service {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		opts:     o,
		log:      o.Logger,
		hosted:   make(map[*cluster.Stream]*hosted),
		accounts: make(map[string]*account),
		jobs:     newJobs(),
		backups:  newBackups(),
		sched:    newScheduler(runtime.GOMAXPROCS(0), o.clocks),
	}
	s.quotas = newQuotas(s)
	s.makers = []func(*hosted) part{newIngest, newDirect, newConsumerSet, newSourcing}
	return s
}

// Start begins to serve requests, in the accounts there are and in those to come.
func (s *Service) Start(c *cluster.Cluster) {
	if s.cluster == nil {
		s.cluster = c
		s.revival = newRevival(s, c)
	}
	s.revival.start()
	s.quotas.start()
	s.opts.Broker.WatchAccounts(func(a *broker.Account) { s.openAccount(a) })
}

// Ready waits until every stream that exists serves. A server should wait for it, for a while, before
// it listens to clients: until then a publish to a stream may find nobody who takes it.
func (s *Service) Ready(ctx context.Context) error {
	wait := func(begin func(done func(error))) error {
		c := make(chan error, 1)
		begin(func(err error) { c <- err })
		select {
		case err := <-c:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(s.cluster.ReadMeta); err != nil {
		return err
	}
	for _, ms := range s.cluster.Meta().Streams("") {
		err := wait(func(done func(error)) {
			s.cluster.FindStream(ms.Account, ms.Config.Name, func(_ *cluster.Stream, err error) { done(err) })
		})
		if err != nil {
			return fmt.Errorf("stream %s > %s: %w", ms.Account, ms.Config.Name, err)
		}
	}
	return nil
}

// Close stops serving and waits for what is under way. The cluster should be closed first, so that
// whoever waits for an outcome has heard it.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	streams, accounts := s.hosted, s.accounts
	s.hosted, s.accounts = nil, nil
	s.mu.Unlock()
	if s.revival != nil {
		s.revival.close()
	}
	for _, a := range accounts {
		a.close()
	}
	for _, h := range streams {
		h.stop()
	}
	s.copiers.Wait()
	s.backups.close()
	s.quotas.close()
	if s.elsewhere != nil {
		s.elsewhere.close()
	}
	s.sched.close()
	s.jobs.close()
	s.TurnEnd()
}

// StreamStarted begins to serve a stream. See cluster.Hooks.
func (s *Service) StreamStarted(cs *cluster.Stream) {
	h := &hosted{svc: s, stream: cs, account: s.opts.Broker.Account(cs.Account()), quota: s.quotas.of(cs.Account()), bucket: isBucket(cs.Name())}
	for _, newPart := range s.makers {
		h.parts = append(h.parts, newPart(h))
	}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.hosted[cs] = h
	}
	s.mu.Unlock()
	if !closed {
		h.updated()
	}
}

// StreamUpdated follows a change of configuration.
func (s *Service) StreamUpdated(cs *cluster.Stream) {
	if h := s.of(cs); h != nil {
		h.updated()
	}
}

// StreamStopped ends serving a stream.
func (s *Service) StreamStopped(cs *cluster.Stream) {
	s.mu.Lock()
	h := s.hosted[cs]
	delete(s.hosted, cs)
	s.mu.Unlock()
	if h != nil {
		h.stop()
	}
}

// LeaderChanged tells the parts that the local replica began or ceased to lead.
func (s *Service) LeaderChanged(cs *cluster.Stream) {
	if s.elsewhere != nil {
		s.elsewhere.kick()
	}
	if h := s.of(cs); h != nil {
		leads := cs.IsLeader()
		if !h.led.Swap(leads) && leads && s.elsewhere != nil {
			s.adviseElected(cs)
		}
		for _, p := range h.parts {
			p.leaderChanged()
		}
	}
}

// Applied tells the parts that something was applied.
func (s *Service) Applied(cs *cluster.Stream) {
	h := s.of(cs)
	if h == nil {
		return
	}
	if !h.ready.Load() {
		h.updated()
	}
	for _, p := range h.parts {
		p.applied()
	}
}

// TurnEnd sends the acknowledgements that were gathered.
func (s *Service) TurnEnd() { s.replies.send() }

func (s *Service) of(cs *cluster.Stream) *hosted {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.hosted[cs]
}

// updated tells the parts of a configuration. On a single server a stream that was created but does not
// have its first one yet would refuse every publish, so nobody shall find it before. In a cluster the
// leader may have it already, and so do clients: they shall find the stream on all servers. What they
// publish goes to the leader, and gets wait until the replica here is as far.
func (h *hosted) updated() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.stopped {
		return
	}
	if m := h.stream.Machine(); m != nil && m.ConfigRevision() == 0 {
		if h.svc.elsewhere == nil {
			return
		}
	} else if !h.ready.Swap(true) && h.svc.elsewhere != nil {
		defer h.svc.elsewhere.kick()
	}
	for _, p := range h.parts {
		p.updated()
	}
}

func (h *hosted) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.stopped = true
	for _, p := range h.parts {
		p.stop()
	}
}

// consumers is the number of consumers that this server runs for the stream.
func (h *hosted) consumers() (n int) {
	for _, p := range h.parts {
		if c, ok := p.(interface{ consumers() int }); ok {
			n += c.consumers()
		}
	}
	return n
}

// account is one account as this package serves it.
type account struct {
	svc    *Service
	broker *broker.Account
	subs   []*broker.Sub

	total, errors atomic.Uint64 // API calls
}

// limits of the account; false if JetStream is not for it.
func (a *account) limits() (api.AccountLimits, bool) { return a.svc.opts.Account(a.broker.Name()) }

func (s *Service) openAccount(b *broker.Account) {
	a := &account{svc: s, broker: b}
	s.mu.Lock()
	if s.closed || s.accounts[b.Name()] != nil {
		s.mu.Unlock()
		return
	}
	s.accounts[b.Name()] = a
	s.mu.Unlock()
	a.subscribe()
}

func (a *account) close() {
	for _, sub := range a.subs {
		sub.Close()
	}
}
