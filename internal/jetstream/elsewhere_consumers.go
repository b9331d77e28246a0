package jetstream

import (
	"cmp"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/consumer"
)

// Where a consumer lives: a replicated one with the stream's leader; any other where it was created,
// which is the server of the client if that has a replica, and else the leader's. Nobody keeps a
// book of these: who looks for one asks.

// withFeed calls fn with the consumer that the last two tokens of the subject name, if this server
// delivers for it. Otherwise the request is answered where it lives; missing is called if it is
// certain that there is none.
func (c *call) withFeed(cs *cluster.Stream, fn func(*feed), missing func()) {
	if f := c.svc.feedOf(cs, c.name()); f != nil {
		fn(f)
		return
	}
	s := &search{c: c, cs: cs, found: fn, missing: missing, until: time.Now().Add(holdFor)}
	switch {
	case c.svc.elsewhere == nil:
		s.settle(func() { missing() })
	case c.via != nil && cs.IsLeader():
		s.settle(func() { c.refer(cs) })
	case c.via != nil:
		c.refer(cs)
	default:
		s.hold()
	}
}

func (s *Service) feedOf(cs *cluster.Stream, name string) *feed {
	if set := s.setOf(cs); set != nil {
		return set.get(name)
	}
	return nil
}

// search looks for the server where a consumer lives: with the leader first, then with every other
// that has a replica.
type search struct {
	c       *call
	cs      *cluster.Stream
	found   func(*feed)
	missing func()
	until   time.Time

	servers []uint64 // still to be asked
	denied  bool     // the leader does not know of it
}

// hold begins a round as soon as there is a leader to ask.
func (s *search) hold() {
	again := time.Now()
	s.c.svc.elsewhere.hold(&held{until: s.until, late: func() { s.c.refuse(api.ErrUnavailable) }, try: func() bool {
		if time.Now().Before(again) {
			return false
		}
		return s.round()
	}})
}

func (s *search) round() bool {
	if s.cs.Gone() {
		s.c.again()
		return true
	}
	here := s.cs.IsLeader()
	to := s.cs.Nearest()
	if !here && to == 0 {
		return false
	}
	s.servers, s.denied = nil, false
	for _, id := range s.cs.Servers() {
		if s.c.svc.cluster.Reachable(id) {
			s.servers = append(s.servers, id)
		}
	}
	if here {
		s.settle(func() {
			s.denied = s.cs.IsLeader()
			s.next()
		})
		return true
	}
	slices.SortStableFunc(s.servers, func(a, b uint64) int { return cmp.Compare(rank(a, to), rank(b, to)) })
	s.next()
	return true
}

func rank(server, first uint64) int {
	if server == first {
		return 0
	}
	return 1
}

// settle looks once more when the local replica, which leads, has caught up with what was decided
// before it did.
func (s *search) settle(otherwise func()) {
	set := s.c.svc.setOf(s.cs)
	s.cs.ReadIndex(func(err error) {
		if err != nil || set == nil {
			s.c.refuse(api.ErrUnavailable) // Nothing was done, whatever happened.
			return
		}
		s.c.svc.sched.do(func(*worker) {
			set.follow()
			if f := set.get(s.c.name()); f != nil {
				s.found(f)
				return
			}
			otherwise()
		})
	})
}

// next asks the next server.
func (s *search) next() {
	if len(s.servers) == 0 {
		if s.denied {
			s.missing()
			return
		}
		s.wait()
		return
	}
	to := s.servers[0]
	s.servers = s.servers[1:]
	within := askFor
	if s.c.route.reads {
		within = lookFor
	}
	s.c.svc.elsewhere.ask(to, s.cs.Account(), s.c.subject(), s.c.body, within, s.heard)
}

func (s *search) heard(o outcome) {
	switch {
	case o.verdict == answered:
		s.c.relay(o)
		return
	case o.verdict == lost && !s.c.route.reads:
		return // It may have been done.
	case o.verdict == notHere && o.leader == o.from:
		s.denied = true
	case o.verdict == notHere:
		s.cs.LeaderHint(o.leader)
	}
	s.next()
}

// wait begins another round later.
func (s *search) wait() {
	again := time.Now().Add(retryGap)
	s.c.svc.elsewhere.hold(&held{until: s.until, late: func() { s.c.refuse(api.ErrUnavailable) }, try: func() bool {
		return time.Now().After(again) && s.round()
	}})
}

// whereCreated calls fn if the consumer that is asked for is to be created or updated here, and
// otherwise passes the request on.
func (c *call) whereCreated(cs *cluster.Stream, q *api.ConsumerCreateRequest, fn func()) {
	name := q.Config.Name
	switch f := c.svc.feedOf(cs, name); {
	case c.svc.elsewhere == nil, f != nil && !f.logged:
		fn()
	case c.forLeader(cs, q):
		c.atLeader(cs, func() { c.afterFollowing(cs, fn) })
	case c.via != nil && (cs.IsLeader() || c.via.pass && (name == "" || ordered(&q.Config))):
		fn() // Not with a leader that can not send to the client.
	case c.via != nil:
		c.refer(cs)
	case name == "" || ordered(&q.Config):
		fn() // Nobody else has made up that name.
	default:
		c.unlessElsewhere(cs, name, fn)
	}
}

// ordered tells whether a consumer is a watcher's, which the client names at random and replaces at
// will. Not all clients ask for memory.
func ordered(cfg *api.ConsumerConfig) bool {
	return cfg.AckPolicy == api.AckNone && cfg.Replicas == 1 && (cfg.MemoryStorage || revives(cfg))
}

// forLeader tells whether only the leader can create a consumer: its log has to know, there is no
// replica here to read from, its name is that of a replicated one, or consumers have to be counted.
func (c *call) forLeader(cs *cluster.Stream, q *api.ConsumerCreateRequest) bool {
	m := cs.Machine()
	if m == nil {
		return true
	}
	cfg := q.Config
	consumer.Normalize(&cfg, cs.Config())
	if replicatedIn(&cfg, cs.Config()) || cs.Config().MaxConsumers > 0 || c.limits.MaxConsumers > 0 || c.svc.opts.Limits.MaxConsumers > 0 {
		return true
	}
	_, known := m.Consumers().Get(q.Config.Name)
	return known
}

// afterFollowing calls fn when the feeds of this leader agree with the log.
func (c *call) afterFollowing(cs *cluster.Stream, fn func()) {
	set := c.svc.setOf(cs)
	if set == nil {
		c.refuse(api.ErrUnavailable)
		return
	}
	cs.ReadIndex(func(err error) {
		if err != nil {
			c.refuse(api.ErrUnavailable)
			return
		}
		c.svc.sched.do(func(*worker) {
			set.follow()
			fn()
		})
	})
}

// unlessElsewhere calls fn unless another server has a consumer of that name, which then gets the
// request.
func (c *call) unlessElsewhere(cs *cluster.Stream, name string, fn func()) {
	c.gather(cs, apiPrefix+"CONSUMER.INFO."+cs.Name()+"."+name, nil, func(all []outcome) {
		if len(all) == 0 {
			fn()
			return
		}
		c.svc.elsewhere.ask(all[0].from, cs.Account(), c.subject(), c.body, askFor, func(o outcome) {
			switch o.verdict {
			case answered:
				c.relay(o)
			case notHere, unsent:
				fn() // It has gone meanwhile.
			}
		})
	})
}

// consumersEverywhere gives done the consumers of a stream, by name: those of this server and, unless
// another one asks, of all others. missing are those that nobody who answered delivers for.
func (c *call) consumersEverywhere(cs *cluster.Stream, done func(infos []*api.ConsumerInfo, missing []string)) {
	var infos []*api.ConsumerInfo
	if set := c.svc.setOf(cs); set != nil {
		for _, f := range set.list() {
			infos = append(infos, c.stampConsumer(f.info()))
		}
	}
	if c.via != nil {
		done(infos, nil)
		return
	}
	c.gather(cs, apiPrefix+"CONSUMER.LIST."+cs.Name(), nil, func(all []outcome) {
		for _, o := range all {
			var r api.ConsumerListResponse
			if api.DecodeLenient(o.body, &r) == nil {
				infos = append(infos, r.Consumers...)
			}
		}
		byName := func(a, b *api.ConsumerInfo) int { return cmp.Compare(a.Name, b.Name) }
		slices.SortStableFunc(infos, byName)
		infos = slices.CompactFunc(infos, func(a, b *api.ConsumerInfo) bool { return a.Name == b.Name })
		var missing []string
		if m := cs.Machine(); m != nil {
			for _, e := range m.Consumers().List() {
				if _, ok := slices.BinarySearchFunc(infos, &api.ConsumerInfo{Name: e.Name()}, byName); !ok {
					missing = append(missing, e.Name())
				}
			}
		}
		done(infos, missing)
	})
}
