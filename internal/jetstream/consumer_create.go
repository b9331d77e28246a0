package jetstream

import (
	"crypto/rand"
	"strings"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

// consumerCreate answers the CONSUMER.CREATE family:
//
//	CREATE.<stream>                        ephemeral, perhaps with a name in the body
//	CREATE.<stream>.<consumer>             the name in the subject wins
//	CREATE.<stream>.<consumer>.<filter>    likewise, and the filter has to be the body's
//	DURABLE.CREATE.<stream>.<consumer>     of older clients
//
// Whether the stream's log has to know of the consumer decides what follows. An ephemeral consumer
// lives in this server's memory; it begins with what was acknowledged before the request.
func (c *call) consumerCreate()        { c.createConsumer(c.tokens[2:], false) }
func (c *call) consumerCreateDurable() { c.createConsumer(c.tokens[3:], true) }

func (c *call) createConsumer(tokens []string, durable bool) {
	var q api.ConsumerCreateRequest
	if !c.decode(&q) {
		return
	}
	if q.Stream != tokens[0] {
		c.refuse(api.ErrStreamMismatch)
		return
	}
	if err := checkCreateSubject(tokens, durable, &q.Config); err != nil {
		c.refuse(err)
		return
	}
	cs, set := c.findSet(tokens[0])
	if cs == nil {
		return
	}
	stayDurable(cs, &q)
	if err := c.completeConsumer(set, &q); err != nil {
		c.refuse(err)
		return
	}
	c.whereCreated(cs, &q, func() {
		if q.Config.Name == "" {
			q.Config.Name = randomName()
		}
		if replicatedIn(&q.Config, cs.Config()) {
			c.createLogged(set, &q)
		} else {
			c.createEphemeral(set, &q)
		}
	})
}

// stayDurable lets an update of a durable consumer leave out that it is one: some clients name it in
// the subject alone.
func stayDurable(cs *cluster.Stream, q *api.ConsumerCreateRequest) {
	m := cs.Machine()
	if m == nil || q.Action == api.ActionCreate || q.Config.Durable != "" {
		return
	}
	if old, ok := m.Consumers().Get(q.Config.Name); ok {
		q.Config.Durable = old.Config.Durable
	}
}

// createEphemeral creates a consumer that only this server knows of.
func (c *call) createEphemeral(set *consumerSet, q *api.ConsumerCreateRequest) {
	c.read(set.st, func(source *stream.Stream) {
		set.await(q.Config.Name)
		defer set.answered(q.Config.Name)
		info, err := set.createLocal(source, q, c.limits.MaxConsumers)
		if err != nil {
			c.refuse(err)
			return
		}
		c.consumerCreated(info)
	})
}

func (c *call) consumerCreated(info *api.ConsumerInfo) {
	c.respond(&api.ConsumerInfoResponse{Header: c.header(), ConsumerInfo: c.stampConsumer(info)})
}

// completeConsumer fills in what a request left out and checks it.
func (c *call) completeConsumer(set *consumerSet, q *api.ConsumerCreateRequest) *api.Error {
	cfg := set.st.Config()
	if q.Pedantic {
		if err := checkPedantic(&q.Config); err != nil {
			return err
		}
	}
	asked := q.Config.MaxAckPending
	consumer.Normalize(&q.Config, cfg)
	limits := consumer.Limits{MaxAckPending: c.limits.MaxAckPending, MaxRequestBatch: c.svc.opts.Limits.MaxRequestBatch}
	if l := c.svc.opts.Limits.MaxAckPending; l > 0 && (limits.MaxAckPending <= 0 || l < limits.MaxAckPending) {
		limits.MaxAckPending = l
	}
	if l := limits.MaxAckPending; asked == 0 && l > 0 && q.Config.MaxAckPending > l {
		q.Config.MaxAckPending = l // The default gives way to a limit.
	}
	if err := consumer.Check(&q.Config, cfg, limits); err != nil {
		return err
	}
	return nil
}

// replicatedIn tells whether a consumer's state goes through the log of such a stream: durable ones,
// those that have acknowledgements to remember unless they ask for memory, and all where an
// acknowledgement removes the message. A watcher is none of these.
func replicatedIn(cfg *api.ConsumerConfig, stream *api.StreamConfig) bool {
	return cfg.Durable != "" || cfg.AckPolicy != api.AckNone && !cfg.MemoryStorage || stream.Retention != api.LimitsRetention
}

// checkCreateSubject holds the names and the filter in the subject against the body.
func checkCreateSubject(tokens []string, durable bool, cfg *api.ConsumerConfig) *api.Error {
	switch {
	case durable && len(tokens) < 2:
		return api.ErrDurableNotInSubject
	case durable && cfg.Durable == "":
		return api.ErrDurableNotSet
	case len(tokens) == 1 && cfg.Durable != "":
		return api.ErrEphemeralWithDurableName
	case len(tokens) == 1:
		return nil
	}
	name := tokens[1]
	if strings.ContainsAny(name, `/\`) {
		return api.ErrConsumerNamePathSeparators
	}
	if cfg.Durable != "" && cfg.Durable != name {
		return api.ErrDurableNameMismatch
	}
	cfg.Name = name
	if len(tokens) > 2 && !durable {
		switch {
		case len(cfg.FilterSubjects) > 0:
			return api.ErrMultipleFiltersInSubject
		case cfg.FilterSubject != strings.Join(tokens[2:], "."):
			return api.ErrCreateFilterMismatch
		}
	}
	return nil
}

// checkPedantic refuses what would otherwise be adjusted silently.
func checkPedantic(cfg *api.ConsumerConfig) *api.Error {
	switch {
	case len(cfg.BackOff) > 0 && cfg.AckWait != 0 && cfg.AckWait != cfg.BackOff[0]:
		return api.ErrPedantic.With("first backoff value has to equal batch AckWait")
	case cfg.MaxDeliver < -1:
		return api.ErrPedantic.With("max_deliver must be set to -1")
	}
	return nil
}

func randomName() string { return rand.Text()[:8] }

// createLocal creates or updates an ephemeral consumer.
func (s *consumerSet) createLocal(source *stream.Stream, q *api.ConsumerCreateRequest, most int) (*api.ConsumerInfo, *api.Error) {
	now := s.sched.clock.now()
	cfg := q.Config
	old := s.get(cfg.Name)
	same := func() bool {
		was := old.config()
		return consumer.SameConfig(&was, &cfg)
	}
	if err := consumer.CheckAction(q.Action, old != nil, same); err != nil {
		return nil, err
	}
	if old != nil {
		return s.updateLocal(old, &cfg)
	}
	if _, ok := source.Consumers().Get(cfg.Name); ok {
		return nil, api.ErrConsumerNameInUse
	}
	if s.full(most) {
		return nil, api.ErrMaximumConsumers
	}
	f, info := s.beginLocal(source, now, func(r storage.Reader) consumer.Spec {
		spec := consumer.Spec{Config: cfg, Start: consumer.StartOf(r, &cfg)}
		if consumer.HoldsFirst(&cfg) {
			spec.First = source.Freeze()
		}
		return spec
	}, &cfg)
	if f == nil {
		if s.get(cfg.Name) == nil {
			return nil, api.ErrUnavailable // The stream, or the server, is about to go, or can not be read.
		}
		return nil, api.ErrConsumerNameInUse
	}
	s.svc.revival.began(f, &cfg, false)
	s.adviseAction(f.name, "CREATED", "create")
	return info, nil
}

// beginLocal makes an ephemeral consumer of a configuration, and of what the spec says beside it.
func (s *consumerSet) beginLocal(source *stream.Stream, now int64, spec func(storage.Reader) consumer.Spec, cfg *api.ConsumerConfig) (*feed, *api.ConsumerInfo) {
	f := &feed{set: s, source: source, name: cfg.Name, created: now}
	var info *api.ConsumerInfo
	if !s.begin(f, cfg, func(r storage.Reader) *consumer.Consumer {
		what := spec(r)
		what.Stream, what.Name, what.Created = s.st.Name(), cfg.Name, now
		m := consumer.New(r, what, nil, now)
		m.Bind(&consumer.Turn{Interest: s.interest, Now: now})
		info = m.Info(now)
		return m
	}) {
		return nil, nil
	}
	return f, info
}

// revive makes a consumer again that another server had, unless its name is taken meanwhile. See revival.
func (s *consumerSet) revive(source *stream.Stream, w *watch) {
	spec := func(storage.Reader) consumer.Spec {
		return consumer.Spec{Config: w.Config, Start: w.Start, Delivered: w.Delivered}
	}
	if f, _ := s.beginLocal(source, s.sched.clock.now(), spec, &w.Config); f != nil {
		s.svc.revival.began(f, &w.Config, true)
		f.wake()
	}
}

func (s *consumerSet) updateLocal(f *feed, cfg *api.ConsumerConfig) (*api.ConsumerInfo, *api.Error) {
	if err := f.checkUpdate(cfg); err != nil {
		return nil, err
	}
	if f.logged {
		return nil, api.ErrConsumerNameInUse
	}
	f.update(cfg)
	if f.source.Err() != nil {
		return nil, api.ErrUnavailable
	}
	return f.info(), nil
}

// checkUpdate refuses what can not change, and to turn away from a subscriber that is there.
func (f *feed) checkUpdate(cfg *api.ConsumerConfig) *api.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.machine.Config()
	if err := consumer.CheckUpdate(old, cfg); err != nil {
		return err
	}
	if old.DeliverSubject != cfg.DeliverSubject && f.set.interest(old.DeliverSubject, old.DeliverGroup) {
		return api.ErrConsumerNameInUse
	}
	return nil
}

// full tells whether the stream has as many consumers as it may.
func (s *consumerSet) full(account int) bool {
	limit := s.svc.opts.Limits.MaxConsumers
	if cfg := s.st.Config(); cfg.MaxConsumers > 0 {
		limit = cfg.MaxConsumers
	} else if account > 0 {
		limit = account
	}
	return limit > 0 && s.consumers() >= limit
}

// createLogged creates or updates a replicated consumer. The stream's log decides; what is known
// here only, such as who listens, is checked before.
func (c *call) createLogged(set *consumerSet, q *api.ConsumerCreateRequest) {
	f := set.get(q.Config.Name)
	existed := f != nil
	switch {
	case existed && !f.logged:
		c.refuse(api.ErrConsumerNameInUse)
		return
	case existed && q.Action != api.ActionCreate:
		if err := f.checkUpdate(&q.Config); err != nil {
			c.refuse(err)
			return
		}
	case !existed && q.Action != api.ActionUpdate && set.full(c.limits.MaxConsumers):
		c.refuse(api.ErrMaximumConsumers)
		return
	}
	command := createCommand(&consumer.Create{Config: q.Config, Action: q.Action, Fresh: !existed})
	set.await(q.Config.Name)
	set.st.Propose(command, cluster.WaiterFunc(func(result any, err error) {
		c.svc.sched.do(func(*worker) {
			defer set.answered(q.Config.Name)
			c.loggedCreated(set, q.Config.Name, existed, result, err)
		})
	}))
}

// loggedCreated answers once the log has decided.
func (c *call) loggedCreated(set *consumerSet, name string, existed bool, result any, err error) {
	if err != nil {
		c.failed(err)
		return
	}
	if r := result.(*stream.Result); r.Err != nil {
		c.refuse(r.Err)
		return
	}
	set.follow()
	f := set.get(name)
	if f == nil {
		return // Leadership moved on; the client will ask again.
	}
	if !existed {
		set.adviseAction(name, "CREATED", "create")
	}
	c.respondConsumer(f)
}
