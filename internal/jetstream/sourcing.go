package jetstream

import (
	"sync"
	"sync/atomic"

	"github.com/cleatkv/cleat/internal/api"
)

// sourcing is the side of a stream that copies from other streams, and that others copy from. Where
// the local replica leads there is one copier for each source.
type sourcing struct {
	h *hosted

	mu        sync.Mutex
	stopped   bool
	copiers   map[string]*copier        // by key of the source
	followers atomic.Pointer[[]*copier] // of other streams, to be woken; replaced under mu
}

func newSourcing(h *hosted) part { return &sourcing{h: h, copiers: make(map[string]*copier)} }

// sourcing is that part of the stream.
func (h *hosted) sourcing() *sourcing {
	for _, p := range h.parts {
		if s, ok := p.(*sourcing); ok {
			return s
		}
	}
	return nil
}

func (s *sourcing) updated()       { s.reconcile() }
func (s *sourcing) leaderChanged() { s.reconcile() }

// reconcile runs a copier for each source while the replica here leads.
func (s *sourcing) reconcile() {
	s.mu.Lock()
	defer s.mu.Unlock() // From before the look at who leads: the last one to look decides.
	wanted := make(map[string]*api.StreamSource)
	cfg := s.h.stream.Config()
	if s.h.stream.IsLeader() {
		for _, o := range cfg.Origins() {
			wanted[o.Key()] = o
		}
	}
	for key, c := range s.copiers {
		if wanted[key] == nil || s.stopped {
			close(c.done)
			delete(s.copiers, key)
		}
	}
	if s.stopped {
		return
	}
	for key, source := range wanted {
		if s.copiers[key] == nil {
			c := newCopier(s.h, source, cfg.Mirror != nil)
			s.copiers[key] = c
			s.h.svc.copiers.Go(c.run)
		}
	}
}

func (s *sourcing) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.reconcile()
}

// applied wakes those who copy from this stream.
func (s *sourcing) applied() {
	if f := s.followers.Load(); f != nil {
		for _, c := range *f {
			c.kick()
		}
	}
}

// follow has a copier woken, from now on, when something is applied to this stream.
func (s *sourcing) follow(c *copier, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*copier
	if f := s.followers.Load(); f != nil {
		for _, other := range *f {
			if other != c {
				all = append(all, other)
			}
		}
	}
	if on {
		all = append(all, c)
	}
	if len(all) == 0 {
		s.followers.Store(nil)
		return
	}
	s.followers.Store(&all)
}

// describe adds the progress of the copies to what is told of the stream.
func (s *sourcing) describe(info *api.StreamInfo) {
	if s == nil {
		return
	}
	cfg := s.h.stream.Config()
	for _, o := range cfg.Origins() {
		s.mu.Lock()
		c := s.copiers[o.Key()]
		s.mu.Unlock()
		i := &api.StreamSourceInfo{Name: o.Name, External: o.External, Active: -1, FilterSubject: o.FilterSubject, SubjectTransforms: o.SubjectTransforms}
		if c != nil {
			c.describe(i)
		}
		if cfg.Mirror != nil {
			info.Mirror = i
		} else {
			info.Sources = append(info.Sources, i)
		}
	}
}

// alternates lists a stream with its mirrors, if it has any. Only a cluster tells them.
func (c *call) alternates(cfg *api.StreamConfig) (all []api.StreamAlternate) {
	m := c.svc.cluster.Meta()
	if !c.svc.opts.Clustered || m == nil {
		return nil
	}
	for _, ms := range m.Streams(c.account.broker.Name()) {
		if ms.Config.Name == cfg.Name || ms.Config.Mirror != nil && ms.Config.Mirror.Name == cfg.Name {
			all = append(all, api.StreamAlternate{Name: ms.Config.Name, Domain: c.svc.opts.Domain, Cluster: c.svc.cluster.Name()})
		}
	}
	if len(all) < 2 {
		return nil
	}
	return all
}
