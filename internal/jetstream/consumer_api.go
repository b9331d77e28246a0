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
		{subject: "CONSUMER.INFO.*.*", kind: "consumer_info_response", handle: (*call).consumerInfo},
		{subject: "CONSUMER.NAMES.*", kind: "consumer_names_response", handle: (*call).consumerNames, failed: names},
		{subject: "CONSUMER.LIST.*", kind: "consumer_list_response", handle: (*call).consumerList, failed: list},
		{subject: "CONSUMER.DELETE.*.*", kind: "consumer_delete_response", handle: (*call).consumerDelete},
		{subject: "CONSUMER.PAUSE.*.*", kind: "consumer_pause_response", handle: (*call).consumerPause},
		{subject: "CONSUMER.RESET.*.*", kind: "consumer_reset_response", handle: (*call).consumerReset},
		{subject: "CONSUMER.UNPIN.*.*", kind: "consumer_unpin_response", handle: (*call).consumerUnpin},
	}
}

// findSet gives the consumers of a stream; if there is no such stream it is answered.
func (c *call) findSet(name string) *consumerSet {
	cs := c.find(name)
	if cs == nil {
		return nil
	}
	set := c.svc.setOf(cs)
	if set == nil {
		c.refuse(api.ErrUnavailable)
	}
	return set
}

// findFeed gives the consumer that the last two tokens of the subject name; if there is none it is
// answered.
func (c *call) findFeed() *feed {
	set := c.findSet(c.tokens[len(c.tokens)-2])
	if set == nil {
		return nil
	}
	f := set.get(c.name())
	if f == nil {
		c.refuse(api.ErrConsumerNotFound)
	}
	return f
}

func (c *call) consumerInfo() {
	if !c.empty() {
		return
	}
	if f := c.findFeed(); f != nil {
		c.respond(&api.ConsumerInfoResponse{Header: c.header(), ConsumerInfo: c.stampConsumer(f.info())})
	}
}

func (c *call) consumerNames() {
	resp := &api.ConsumerNamesResponse{Header: c.header(), Page: api.Page{Limit: api.NamesPage}, Consumers: []string{}}
	feeds, ok := c.consumerPage(&resp.Page)
	if !ok {
		return
	}
	for _, f := range feeds {
		resp.Consumers = append(resp.Consumers, f.name)
	}
	c.respond(resp)
}

func (c *call) consumerList() {
	resp := &api.ConsumerListResponse{Header: c.header(), Page: api.Page{Limit: api.ListPage}, Consumers: []*api.ConsumerInfo{}}
	feeds, ok := c.consumerPage(&resp.Page)
	if !ok {
		return
	}
	for _, f := range feeds {
		resp.Consumers = append(resp.Consumers, c.stampConsumer(f.info()))
	}
	c.respond(resp)
}

// consumerPage reads a paging request and gives that part of the stream's consumers, or answers.
func (c *call) consumerPage(p *api.Page) ([]*feed, bool) {
	var q struct {
		Offset int `json:"offset"`
	}
	if !c.decodeOptional(&q) {
		return nil, false
	}
	set := c.findSet(c.name())
	if set == nil {
		return nil, false
	}
	feeds := set.list()
	p.Offset, p.Total = q.Offset, len(feeds)
	from, to := p.Slice()
	return feeds[from:to], true
}

func (c *call) consumerDelete() {
	if !c.empty() {
		return
	}
	f := c.findFeed()
	if f == nil {
		return
	}
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
}

func (c *call) consumerPause() {
	var q api.ConsumerPauseRequest
	if !api.EmptyRequest(c.body) && !c.decode(&q) {
		return
	}
	f := c.findFeed()
	if f == nil {
		return
	}
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

// consumerReset does not answer if there is no such consumer.
func (c *call) consumerReset() {
	cs := c.svc.cluster.Stream(c.account.broker.Name(), c.tokens[len(c.tokens)-2])
	if cs == nil {
		return
	}
	set := c.svc.setOf(cs)
	if set == nil {
		return
	}
	f := set.get(c.name())
	var q api.ConsumerResetRequest
	if f == nil || !api.EmptyRequest(c.body) && !c.decode(&q) {
		return
	}
	at, err := f.reset(q.Seq)
	if err != nil {
		c.refuse(err)
		return
	}
	c.respond(&api.ConsumerResetResponse{Header: c.header(), ConsumerInfo: c.stampConsumer(f.info()), ResetSeq: at})
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
	f := c.findFeed()
	if f == nil {
		return
	}
	if !slices.Contains(f.config().PriorityGroups, q.Group) {
		c.refuse(api.ErrPriorityGroupUnknown)
		return
	}
	f.unpin(q.Group)
	c.respond(&api.SuccessResponse{Header: c.header()})
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
	f.set.machine.View(func(r storage.Reader) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if at, err = f.machine.ResetPoint(r, seq); err == nil {
			f.machine.Reset(r, at)
			f.collect()
		}
	})
	f.propose()
	f.wake()
	return at, err
}

func (f *feed) unpin(group string) {
	t := consumer.Turn{Now: time.Now().UnixNano()}
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
