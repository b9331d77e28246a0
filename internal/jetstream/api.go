package jetstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/stream"
)

// apiPrefix begins the subjects of all requests.
const apiPrefix = "$JS.API."

// route is one kind of request.
type route struct {
	subject string // behind apiPrefix, with wildcards
	kind    string // of the reply's type
	handle  func(*call)
	// failed shapes the reply of a refusal where it is more than the header.
	failed func(api.Header) any
	// decides is set where the meta group decides whether the stream exists, not this server.
	decides bool
	reads   bool // it changes nothing
	system  bool // it is for the system account alone
	servers bool // it is for other servers alone
}

// stream is the position of the stream's name in the subject, -1 if there is none.
func (r *route) stream() int {
	if r.decides {
		return -1
	}
	return slices.Index(strings.Split(r.subject, "."), "*")
}

// Requests that belong to a stream or a consumer there is (DIRECT.GET, CONSUMER.MSG.NEXT) are not
// here: they have subscriptions of their own, so that a request to one there is not finds no
// responders.
func routes() []route {
	return slices.Concat(accountRoutes(), streamRoutes(), consumerRoutes(), clusterRoutes())
}

// call is one request. What it holds may be kept.
type call struct {
	svc     *Service
	account *account
	limits  api.AccountLimits
	route   *route
	tokens  []string // of the subject, behind apiPrefix
	reply   string
	via     *asker // the server that sent the request here, which gets the reply; nil for a client of ours
	body    []byte
	refused bool // the reply is a refusal
}

// subscribe listens for requests of the account.
func (a *account) subscribe() {
	all := routes()
	for i := range all {
		r := &all[i]
		if r.servers || r.system && a.broker != a.broker.Broker().System() {
			continue
		}
		a.subs = append(a.subs, a.broker.Subscribe(apiPrefix+r.subject, "", func(m *broker.Msg) { a.dispatch(r, m) }))
	}
	if d := a.svc.opts.Domain; d != "" {
		prefix := "$JS." + d + ".API."
		a.subs = append(a.subs, a.broker.Subscribe(prefix+">", "", func(m *broker.Msg) { a.alias(prefix, m) }))
	}
}

// dispatch runs on the publisher's goroutine.
func (a *account) dispatch(r *route, m *broker.Msg) {
	c := &call{
		svc: a.svc, account: a, route: r,
		tokens: strings.Split(strings.TrimPrefix(m.Subject, apiPrefix), "."),
		reply:  m.Reply,
		body:   bytes.Clone(m.Data),
	}
	var enabled bool
	if c.limits, enabled = a.limits(); !enabled && !r.system {
		switch {
		case a.broker.Imported(m.Subject): // The account that exports its API answers.
		case a.broker.Imported(apiPrefix + "INFO"): // It does not export this part of it.
			a.noResponders(m)
		default:
			c.refuse(api.ErrNotEnabledForAccount)
		}
		return
	}
	if err := api.CheckLevel(stream.HeaderValue(m.Header, api.RequiredLevelHeader)); err != nil {
		c.refuse(err)
		return
	}
	if a.svc.cluster.Meta() == nil {
		c.refuse(api.ErrUnavailable) // This server does not belong to its cluster yet.
		return
	}
	c.whenKnown(r.stream(), func() { r.handle(c) })
}

// whenKnown calls fn at once if this server has the stream that the request names. If not, it first
// makes sure that there is no such stream: after a start it may not be open yet, and in a cluster
// this server may not have heard of it yet.
func (c *call) whenKnown(token int, fn func()) {
	account := c.account.broker.Name()
	if token < 0 || c.svc.cluster.Stream(account, c.tokens[token]) != nil {
		fn()
		return
	}
	c.svc.cluster.FindStream(account, c.tokens[token], func(_ *cluster.Stream, err error) {
		if err != nil {
			c.refuse(api.ErrUnavailable)
			return
		}
		fn()
	})
}

// alias serves the subjects that clients use who were told a domain: requests with the domain in
// the prefix, and writes to buckets with the whole prefix in front.
func (a *account) alias(prefix string, m *broker.Msg) {
	rest := strings.TrimPrefix(m.Subject, prefix)
	to := apiPrefix + rest
	if strings.HasPrefix(rest, "$KV.") || strings.HasPrefix(rest, "$OBJ.") {
		to = rest
	}
	if a.broker.Publish(m.Out, to, m.Reply, m.Header, m.Data) == 0 {
		a.noResponders(m)
	}
}

// noResponders answers as if nobody had subscribed to the request's subject.
func (a *account) noResponders(m *broker.Msg) {
	if m.Reply != "" {
		a.broker.Publish(m.Out, m.Reply, "", []byte("NATS/1.0 503\r\n\r\n"), nil)
	}
}

// respond sends a reply. A call counts when it is answered.
func (c *call) respond(body any) {
	if c.via == nil {
		c.account.total.Add(1)
	}
	if c.reply == "" && c.via == nil {
		return
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("jetstream: encode %T: %v", body, err)) // Our own types, always encodable.
	}
	if c.via != nil {
		c.respondFar(b)
		return
	}
	c.account.broker.Publish(nil, c.reply, "", nil, b)
}

// header begins a reply that is no refusal.
func (c *call) header() api.Header { return api.ReplyHeader(c.route.kind) }

// success is the reply of calls that have nothing else to say.
func (c *call) success() { c.respond(&api.SuccessResponse{Header: c.header(), Success: true}) }

// refuse sends a refusal.
func (c *call) refuse(err *api.Error) {
	if c.refused = true; c.via == nil {
		c.account.errors.Add(1)
	}
	h := c.header()
	h.Error = err
	if c.route.failed != nil {
		c.respond(c.route.failed(h))
		return
	}
	c.respond(&api.SuccessResponse{Header: h})
}

// failed answers a command that has no result, if it may be answered.
func (c *call) failed(err error) {
	if refused := refusal(err); refused != nil {
		c.refuse(refused)
	}
}

// decode reads the body strictly and tells whether that went well; if not it is answered.
func (c *call) decode(into any) bool {
	if err := api.Decode(c.body, into); err != nil {
		c.refuse(err)
		return false
	}
	return true
}

// decodeOptional is decode for calls that take anything but an object for no request at all.
func (c *call) decodeOptional(into any) bool {
	return !api.IsObject(c.body) || c.decode(into)
}

// empty tells whether the body is an empty request; if not it is answered.
func (c *call) empty() bool {
	if !api.EmptyRequest(c.body) {
		c.refuse(api.ErrNotEmptyRequest)
		return false
	}
	return true
}

// name is the last token of the subject: the stream, or the consumer.
func (c *call) name() string { return c.tokens[len(c.tokens)-1] }

// find gives the stream of that name; if there is none it is answered.
func (c *call) find(name string) *cluster.Stream {
	cs := c.svc.cluster.Stream(c.account.broker.Name(), name)
	if cs == nil {
		c.refuse(api.ErrStreamNotFound)
	}
	return cs
}

// propose offers a command to a stream's leader; done gets its result unless that is a refusal or
// there is none, which are answered.
func (c *call) propose(cs *cluster.Stream, command []byte, done func(*stream.Result)) {
	cs.Propose(command, cluster.WaiterFunc(func(result any, err error) {
		if err != nil {
			c.failed(err)
			return
		}
		r := result.(*stream.Result)
		if r.Err != nil {
			c.refuse(r.Err)
			return
		}
		done(r)
	}))
}

// broken answers a call whose stream could not be read: that is never taken for something not there.
func (c *call) broken(cs *cluster.Stream, err error) {
	c.svc.log.Error(fmt.Sprintf("read stream %s > %s: %v", cs.Account(), cs.Name(), err))
	c.refuse(api.ErrStreamOffline)
}

// later runs fn on a worker. It may be called by any goroutine.
func (c *call) later(fn func()) {
	if !c.svc.jobs.do(func(*broker.Batch) { fn() }) {
		c.refuse(api.ErrTooManyRequests)
	}
}

// readMeta runs fn on a worker once the local meta machine shows every decision that was acknowledged
// before.
func (c *call) readMeta(fn func(*meta.Machine)) {
	c.svc.cluster.ReadMeta(func(err error) {
		if err != nil {
			c.refuse(api.ErrUnavailable)
			return
		}
		c.later(func() { fn(c.svc.cluster.Meta()) })
	})
}

// read runs fn on a worker once the local machine of the stream shows every write that was
// acknowledged before.
func (c *call) read(cs *cluster.Stream, fn func(*stream.Stream)) {
	cs.ReadIndex(func(err error) {
		m := cs.Machine()
		if err == nil && m == nil {
			err = cluster.ErrUnavailable
		}
		switch {
		case err == nil:
			c.later(func() { fn(m) })
		case cs.Gone():
			c.again()
		case c.svc.leaving(cs):
			c.afterLeaving(cs)
		default:
			c.refuse(api.ErrUnavailable) // A read has no effect: it is safe to say so, whatever happened.
		}
	})
}

// metaLimits are the account's limits as the meta group judges them.
func (c *call) metaLimits() meta.Limits {
	l := &c.limits
	return meta.Limits{
		Streams:      l.MaxStreams,
		StoreBytes:   l.MaxStorage,
		MemoryBytes:  l.MaxMemory,
		StreamStore:  l.StoreMaxStreamBytes,
		StreamMemory: l.MemoryMaxStreamBytes,
		BytesNeeded:  l.MaxBytesRequired,
	}
}
