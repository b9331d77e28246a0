package jetstream

import (
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
)

func consumerRoutes() []route {
	names := func(h api.Header) any { return &api.ConsumerNamesResponse{Header: h, Consumers: []string{}} }
	list := func(h api.Header) any { return &api.ConsumerListResponse{Header: h, Consumers: []*api.ConsumerInfo{}} }
	return []route{
		{subject: "CONSUMER.CREATE.*", kind: "consumer_create_response", handle: (*call).consumerCreate},
		{subject: "CONSUMER.CREATE.*.*", kind: "consumer_create_response", handle: (*call).consumerCreate},
		{subject: "CONSUMER.CREATE.*.*.>", kind: "consumer_create_response", handle: (*call).consumerCreate},
		{subject: "CONSUMER.DURABLE.CREATE.*.*", kind: "consumer_create_response", handle: (*call).consumerCreateDurable},
		{subject: "CONSUMER.INFO.*.*", kind: "consumer_info_response", handle: (*call).consumerInfo, reads: true},
		{subject: "CONSUMER.NAMES.*", kind: "consumer_names_response", handle: (*call).consumerNames, failed: names, reads: true},
		{subject: "CONSUMER.LIST.*", kind: "consumer_list_response", handle: (*call).consumerList, failed: list, reads: true},
		{subject: "CONSUMER.DELETE.*.*", kind: "consumer_delete_response", handle: (*call).consumerDelete},
		{subject: "CONSUMER.PAUSE.*.*", kind: "consumer_pause_response", handle: (*call).consumerPause},
		{subject: "CONSUMER.RESET.*.*", kind: "consumer_reset_response", handle: (*call).consumerReset},
		{subject: "CONSUMER.UNPIN.*.*", kind: "consumer_unpin_response", handle: (*call).consumerUnpin},
	}
}

// findSet gives the stream with its consumers here; if there is no such stream it is answered.
func (c *call) findSet(name string) (*cluster.Stream, *consumerSet) {
	cs := c.find(name)
	if cs == nil {
		return nil, nil
	}
	set := c.svc.setOf(cs)
	if set == nil {
		c.refuse(api.ErrUnavailable)
		return nil, nil
	}
	return cs, set
}

// findFeed calls fn with the consumer that the last two tokens of the subject name, where it lives;
// if there is none it is answered.
func (c *call) findFeed(fn func(*feed)) {
	if cs := c.find(c.tokens[len(c.tokens)-2]); cs != nil {
		c.withFeed(cs, fn, func() { c.refuse(api.ErrConsumerNotFound) })
	}
}

func (c *call) consumerInfo() {
	if !c.empty() {
		return
	}
	c.findFeed(func(f *feed) {
		c.read(f.set.st, func(*stream.Stream) { c.respondConsumer(f) })
	})
}

// respondConsumer answers with a description of a consumer.
func (c *call) respondConsumer(f *feed) {
	info := f.info()
	if err := f.source.Err(); err != nil {
		c.broken(f.set.st, err)
		return
	}
	c.consumerCreated(info)
}

func (c *call) consumerNames() {
	p := api.Page{Limit: api.NamesPage}
	c.listConsumers(&p, func(infos []*api.ConsumerInfo, _ []string) {
		resp := &api.ConsumerNamesResponse{Header: c.header(), Page: p, Consumers: make([]string, len(infos))}
		for i, info := range infos {
			resp.Consumers[i] = info.Name
		}
		c.respond(resp)
	})
}

func (c *call) consumerList() {
	p := api.Page{Limit: api.ListPage}
	c.listConsumers(&p, func(infos []*api.ConsumerInfo, missing []string) {
		c.respond(&api.ConsumerListResponse{Header: c.header(), Page: p, Consumers: infos, Missing: missing})
	})
}

// listConsumers reads a paging request and gives done that part of the stream's consumers, or answers
// it. Another server, which merges what it hears, gets all of them.
func (c *call) listConsumers(p *api.Page, done func(infos []*api.ConsumerInfo, missing []string)) {
	var q struct {
		Offset int `json:"offset"`
	}
	if !c.decodeOptional(&q) {
		return
	}
	cs := c.find(c.name())
	if cs == nil {
		return
	}
	c.consumersEverywhere(cs, func(infos []*api.ConsumerInfo, missing []string) {
		p.Offset, p.Total = q.Offset, len(infos)
		if c.via != nil {
			p.Limit = p.Total
		}
		from, to := p.Slice()
		done(append([]*api.ConsumerInfo{}, infos[from:to]...), missing)
	})
}

func (c *call) consumerDelete() {
	if !c.empty() {
		return
	}
	c.findFeed(func(f *feed) {
		gone := func() {
			f.set.remove(f, consumer.EndDeleted)
			f.set.adviseAction(f.name, "DELETED", "delete")
			c.success()
		}
		if !f.logged {
			gone()
			return
		}
		c.propose(f.set.st, goneCommand(f), func(*stream.Result) { c.later(gone) })
	})
}

func (c *call) consumerPause() {
	var q api.ConsumerPauseRequest
	if !api.EmptyRequest(c.body) && !c.decode(&q) {
		return
	}
	c.findFeed(func(f *feed) { c.pause(f, &q) })
}

func (c *call) pause(f *feed, q *api.ConsumerPauseRequest) {
	now := time.Now()
	resp := &api.ConsumerPauseResponse{Header: c.header(), PauseUntil: q.PauseUntil}
	var until *time.Time
	if q.PauseUntil.After(now) {
		until = &q.PauseUntil
		resp.Paused, resp.PauseRemaining = true, q.PauseUntil.Sub(now)
	}
	paused := func() {
		f.pauseUntil(until)
		f.set.advisePause(f.name, until)
		c.respond(resp)
	}
	if !f.logged {
		paused()
		return
	}
	cfg := f.config()
	cfg.PauseUntil = until
	c.propose(f.set.st, createCommand(&consumer.Create{Config: cfg, Action: api.ActionUpdate}), func(*stream.Result) { c.later(paused) })
}

func (c *call) consumerReset() {
	var q api.ConsumerResetRequest
	if !api.EmptyRequest(c.body) && !c.decode(&q) {
		return
	}
	c.findFeed(func(f *feed) {
		at, err := f.reset(q.Seq)
		if err != nil {
			c.refuse(err)
			return
		}
		if err := f.source.Err(); err != nil {
			c.broken(f.set.st, err)
			return
		}
		c.respond(&api.ConsumerResetResponse{Header: c.header(), ConsumerInfo: c.stampConsumer(f.info()), ResetSeq: at})
	})
}

func (c *call) consumerUnpin() {
	var q api.ConsumerUnpinRequest
	if !c.decode(&q) {
		return
	}
	if q.Group == "" {
		c.refuse(api.ErrInvalidJSON.With("consumer group not specified"))
		return
	}
	if !consumer.ValidGroup(q.Group) {
		c.refuse(api.ErrPriorityGroupInvalid)
		return
	}
	c.findFeed(func(f *feed) {
		if !slices.Contains(f.config().PriorityGroups, q.Group) {
			c.refuse(api.ErrPriorityGroupUnknown)
			return
		}
		f.unpin(q.Group)
		c.respond(&api.SuccessResponse{Header: c.header()})
	})
}

// stampConsumer fills in what the server adds to the metadata of a consumer.
func (c *call) stampConsumer(i *api.ConsumerInfo) *api.ConsumerInfo {
	level := 0
	if i.Config.PauseUntil != nil || i.Config.PriorityPolicy != api.PriorityNone {
		level = 1
	}
	i.Config.Metadata = api.Stamp(i.Config.Metadata, level, c.svc.opts.Version)
	return i
}

// config returns a copy of the consumer's configuration.
func (f *feed) config() api.ConsumerConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.machine.Config()
}

func (f *feed) pauseUntil(until *time.Time) {
	f.mu.Lock()
	f.machine.Pause(until)
	f.mu.Unlock()
	f.wake()
}

// reset starts the consumer over at a sequence, or just above its floor if that is 0.
func (f *feed) reset(seq uint64) (at uint64, err *api.Error) {
	broken := f.source.View(func(r storage.Reader) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if at, err = f.machine.ResetPoint(r, seq); err == nil && r.Err() == nil {
			f.machine.Reset(r, at)
			f.collect()
		}
	})
	if broken != nil {
		return at, err
	}
	f.propose()
	f.wake()
	return at, err
}

func (f *feed) unpin(group string) {
	t := consumer.Turn{Now: f.set.sched.clock.now()}
	f.mu.Lock()
	f.machine.Unpin(group, &t)
	f.mu.Unlock()
	var out broker.Batch
	f.send(&out, &t)
	out.Flush()
	f.wake()
}

func createCommand(cmd *consumer.Create) []byte {
	return append([]byte{byte(stream.KindConsumer)}, cmd.Encode()...)
}

func goneCommand(f *feed) []byte {
	cmd := consumer.Gone{Name: f.name, Created: f.created}
	return append([]byte{byte(stream.KindConsumerGone)}, cmd.Encode()...)
}

// proposeGone deletes a replicated consumer that expired; if that fails it is tried again later.
func (s *consumerSet) proposeGone(f *feed) {
	s.st.Propose(goneCommand(f), cluster.WaiterFunc(func(any, error) {}))
}
