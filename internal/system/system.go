package system

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/server"
)

const (
	// requestsMax is how many requests may wait; those beyond are refused.
	requestsMax = 256
	// statszInterval is how often a server tells how it does.
	statszInterval = 10 * time.Second
)

// Options are what a Service speaks for.
type Options struct {
	Broker  *broker.Broker
	Monitor *monitor.Monitor
	// Describe names the server; each call is for one message.
	Describe func() server.ServerInfo
	// Reload reads the configuration again, Kick closes a client's connection if there is one.
	Reload func() error
	Kick   func(id uint64) bool
	Logger *slog.Logger
}

// Service answers and tells. Close ends it.
type Service struct {
	opts   Options
	id     string // of the server
	queue  chan func()
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	events atomic.Uint64 // numbers them

	mu   sync.Mutex
	subs []*broker.Sub
}

// New makes a service, which takes requests at once.
func New(o Options) *Service {
	s := &Service{opts: o, id: o.Describe().ID, queue: make(chan func(), requestsMax)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.work)
	s.serveSystem()
	o.Broker.WatchAccounts(s.serveAccount)
	return s
}

// Close ends all subscriptions and waits until nothing is under way.
func (s *Service) Close() {
	s.cancel()
	s.mu.Lock()
	for _, sub := range s.subs {
		sub.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// work is the goroutine that makes answers, and tells how the server does.
func (s *Service) work() {
	tick := time.NewTicker(statszInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case do := <-s.queue:
			do()
		case <-tick.C:
			s.tellStatsz()
		}
	}
}

// subscribe has requests on a subject answered by answer, which runs on the worker. The client that asks
// may be on any server.
func (s *Service) subscribe(a *broker.Account, subject string, answer func(*request)) {
	sub := a.SubscribeWide(subject, "", func(m *broker.Msg) {
		r := &request{account: a, subject: m.Subject, reply: m.Reply, compress: accepts(m.Header), service: s}
		r.body = append(r.body, m.Data...)
		select {
		case s.queue <- func() { answer(r) }:
		default:
			r.refuse(503, "too many requests are waiting")
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs = append(s.subs, sub)
	if s.ctx.Err() != nil {
		sub.Close()
	}
}

// publish sends a message in an account, to clients on whichever server.
func (s *Service) publish(a *broker.Account, subject string, header []byte, message any) {
	data, err := json.Marshal(message)
	if err != nil {
		s.opts.Logger.Error("A message of the system account cannot be written", "subject", subject, "error", err)
		return
	}
	header, data = encode(header, data)
	a.Publish(nil, subject, "", header, data)
}
