package jetstream

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/subject"
)

// serveFor answers a request that another server sent here because this one may be able to. What it
// cannot answer itself it refers back. It returns false for a request that it does not know.
func (a *account) serveFor(to asker, subj string, body []byte) bool {
	all := routes()
	i := slices.IndexFunc(all, func(r route) bool { return subject.Match(apiPrefix+r.subject, subj) })
	if i < 0 {
		return false
	}
	c := &call{
		svc: a.svc, account: a, route: &all[i], via: &to, body: body,
		tokens: strings.Split(strings.TrimPrefix(subj, apiPrefix), "."),
	}
	c.limits, _ = a.limits()
	c.whenKnown(c.route.stream(), func() { c.route.handle(c) })
	return true
}

// subject is what the request was sent to, without a domain.
func (c *call) subject() string { return apiPrefix + strings.Join(c.tokens, ".") }

// respondFar sends the reply to the server that asked.
func (c *call) respondFar(body []byte) {
	c.svc.elsewhere.answer(*c.via, answered, 0, func(b []byte) []byte {
		flag := byte(0)
		if c.refused {
			flag = 1
		}
		return append(append(b, flag), body...)
	})
}

// refer tells the server that asked that this one cannot answer, and who leads.
func (c *call) refer(cs *cluster.Stream) {
	c.svc.elsewhere.answer(*c.via, notHere, cs.LeaderHere(), nil)
}

// relay publishes the reply that another server gave, or sends it to the one that asked.
func (c *call) relay(o outcome) {
	if c.via != nil {
		c.refused = o.refused
		c.respondFar(o.body)
		return
	}
	c.account.total.Add(1)
	if o.refused {
		c.account.errors.Add(1)
	}
	if c.reply != "" {
		c.account.broker.Publish(nil, c.reply, "", nil, o.body)
	}
}

// atLeader calls fn if the stream's leader is here, and otherwise has the request answered where it
// is.
func (c *call) atLeader(cs *cluster.Stream, fn func()) {
	c.where(cs, func() bool { return leadsHere(cs) }, fn)
}

// atReplica calls fn if there is a replica here, and otherwise has the request answered where one is.
func (c *call) atReplica(cs *cluster.Stream, fn func()) {
	c.where(cs, func() bool { return cs.Machine() != nil }, fn)
}

// leadsHere tells whether this server leads the stream and works under the newest configuration it
// knows of.
func leadsHere(cs *cluster.Stream) bool {
	m := cs.Machine()
	return m != nil && cs.IsLeader() && m.ConfigRevision() >= cs.Assignment().Revision
}

func (c *call) where(cs *cluster.Stream, here func() bool, fn func()) {
	switch {
	case c.svc.elsewhere == nil || here(): // A single server has everything.
		fn()
	case c.via != nil && cs.Machine() != nil && (cs.Leader() == 0 || cs.IsLeader()):
		// This may be the one in a moment: it is new, or there is an election.
		c.svc.elsewhere.hold(&held{until: time.Now().Add(expectFor), late: func() { c.refer(cs) }, try: func() bool {
			if here() {
				fn()
				return true
			}
			return false
		}})
	case c.via != nil && !(c.via.pass && cs.Machine() != nil):
		c.refer(cs)
	default:
		until := time.Now().Add(holdFor)
		if c.route.reads {
			until = until.Add(secondTry)
		}
		e := &errand{
			svc: c.svc, cs: cs, subject: c.subject(), body: c.body, reads: c.route.reads, until: until,
			here: here, run: fn, gone: c.again, answered: c.relay, failed: func() { c.refuse(api.ErrUnavailable) },
		}
		e.start()
	}
}

// again handles the request from the start: the stream that it was about was deleted meanwhile.
func (c *call) again() {
	c.whenKnown(c.route.stream(), func() { c.route.handle(c) })
}

// leaving tells whether this server is not to have a replica of the stream any more, if it has one still. Such
// a replica takes part in nothing: what waits for it fails.
func (s *Service) leaving(cs *cluster.Stream) bool {
	return s.elsewhere != nil && !slices.Contains(cs.Servers(), s.cluster.ServerID())
}

// afterLeaving handles the request from the start once the replica here is gone: then it finds another server.
func (c *call) afterLeaving(cs *cluster.Stream) {
	c.svc.elsewhere.hold(&held{
		until: time.Now().Add(holdFor),
		late:  func() { c.refuse(api.ErrUnavailable) },
		try: func() bool {
			if cs.Machine() != nil && c.svc.leaving(cs) {
				return false
			}
			c.later(c.again)
			return true
		},
	})
}

// errand is a request that is answered here as soon as it can be, or else elsewhere.
type errand struct {
	svc     *Service
	cs      *cluster.Stream
	subject string
	body    []byte
	reads   bool // it may be sent again when its outcome is unknown
	until   time.Time

	here     func() bool
	run      func()        // here
	gone     func()        // the stream was deleted
	answered func(outcome) // elsewhere
	failed   func()        // definitely not done; nothing is called when that is not certain
}

func (e *errand) start() {
	e.svc.elsewhere.hold(&held{until: e.until, try: e.try, late: e.failed})
}

// try gets the request on its way, if there is one.
func (e *errand) try() bool {
	switch {
	case e.cs.Gone():
		e.gone()
		return true
	case e.here():
		e.run()
		return true
	}
	to := e.cs.Nearest()
	if to == 0 {
		return false
	}
	e.svc.elsewhere.askLeader(e.cs, to, e.subject, e.body, e.patience(time.Now()), e.heard)
	return true
}

// patience is how long to wait for an answer. That to a read may be lost, with the connection that it was to
// come over: there is time for a second one, and for that as long as for the only one of others.
func (e *errand) patience(now time.Time) time.Duration {
	if !e.reads {
		return askFor
	}
	left := max(e.until.Sub(now), lookFor)
	if left > holdFor {
		left -= holdFor
	}
	return left
}

func (e *errand) heard(o outcome) {
	switch {
	case o.verdict == answered:
		e.answered(o)
		return
	case o.verdict == lost && !e.reads:
		return
	case o.verdict == notHere:
		e.cs.LeaderHint(o.leader)
	}
	// Not at once: whoever was asked needs a moment to learn who leads.
	again := time.Now().Add(retryGap)
	e.svc.elsewhere.hold(&held{until: e.until, late: e.failed, try: func() bool {
		return time.Now().After(again) && e.try()
	}})
}

// gather asks all other servers with a replica and calls done with the replies that are no refusals.
func (c *call) gather(cs *cluster.Stream, subj string, body []byte, done func([]outcome)) {
	c.account.gatherFrom(cs.Servers(), subj, body, done)
}

// gatherFrom asks those of the servers that can be reached, and calls done with the replies that are no
// refusals. A server that does not answer soon is left out.
func (a *account) gatherFrom(all []uint64, subj string, body []byte, done func([]outcome)) {
	var servers []uint64
	if a.svc.elsewhere != nil {
		for _, id := range all {
			if a.svc.cluster.Reachable(id) {
				servers = append(servers, id)
			}
		}
	}
	if len(servers) == 0 {
		done(nil)
		return
	}
	var mu sync.Mutex
	var got []outcome
	left := len(servers)
	for _, id := range servers {
		a.svc.elsewhere.ask(id, a.broker.Name(), subj, body, lookFor, func(o outcome) {
			mu.Lock()
			if o.verdict == answered && !o.refused {
				got = append(got, o)
			}
			left--
			last := left == 0
			mu.Unlock()
			if last {
				done(got)
			}
		})
	}
}
