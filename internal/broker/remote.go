package broker

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/cleatkv/cleat/internal/subject"
)

// Remote is another server whose clients have subscriptions here by proxy.
type Remote interface {
	// Forward takes one copy of a message there, to be given to DeliverLocal. It is for the plain
	// subscriptions if plain is set, and for one member of each of the queue groups. Everything is
	// valid during the call only. It must neither block nor call the broker.
	Forward(a *Account, to string, m *Msg, plain bool, queues []string)
}

// SubscribeRemote makes a subscription that stands for interest on another server. A message goes
// to a server once, however many of its subscriptions match, and to a queue group there only if no
// member here takes it.
func (a *Account) SubscribeRemote(subj, queue string, r Remote) *Sub {
	s := &Sub{account: a, subject: subj, queue: queue, remote: r}
	a.insert(s)
	return s
}

// SubscribeWide makes an internal subscription that is announced to other servers as those of
// clients are. Subscribe makes one that only clients of this server reach.
func (a *Account) SubscribeWide(subj, queue string, fn func(*Msg)) *Sub {
	s := &Sub{account: a, subject: subj, queue: queue, fn: fn, wide: true}
	a.insert(s)
	return s
}

// Far tells whether a message to the subject would go to another server.
func (a *Account) Far(subj string) bool {
	var r subject.Result[*Sub]
	a.subs.Match(subj, &r)
	return anyRemote(r.Plain)
}

func anyRemote(plain [][]*Sub) bool {
	return slices.ContainsFunc(plain, func(list []*Sub) bool {
		return slices.ContainsFunc(list, func(s *Sub) bool { return s.remote != nil })
	})
}

// DeliverLocal delivers what another server forwarded, to subscriptions of this server that were
// announced to it. The others are such as every server has, and the first has served its own.
func (a *Account) DeliverLocal(out *Batch, to, subj, reply string, hdr, data []byte, plain bool, queues []string) (delivered int) {
	f := out.push()
	defer out.pop(f)
	a.subs.Match(to, &f.found)
	f.msg = Msg{Account: a, Subject: subj, Reply: reply, Header: hdr, Data: data, Out: out}
	d := delivery{batch: out, msg: &f.msg, to: to, arrived: true, plain: f.found.Plain}
	if plain {
		delivered = d.sendPlain(f.found.Plain)
	}
	for _, q := range queues {
		if d.sendOne(f.found.Group(q)) {
			delivered++
		}
	}
	return delivered
}

// copies are the servers that a message goes to, each once.
type copies []farCopy

type farCopy struct {
	remote Remote
	plain  bool
	queues []string
}

// to returns the copy for a server.
func (c *copies) to(r Remote) *farCopy {
	for i := range *c {
		if (*c)[i].remote == r {
			return &(*c)[i]
		}
	}
	*c = append(*c, farCopy{remote: r})
	return &(*c)[len(*c)-1]
}

func (c *copies) forward(d *delivery) {
	for _, far := range *c {
		far.remote.Forward(d.msg.Account, d.to, d.msg, far.plain, far.queues)
	}
	clear(*c)
	*c = (*c)[:0]
}

// plan notes the servers that plain subscriptions are on and returns how many there are.
func (c *copies) plan(plain [][]*Sub) (n int) {
	for _, list := range plain {
		for _, s := range list {
			if s.remote == nil {
				continue
			}
			far := c.to(s.remote)
			if !far.plain {
				far.plain = true
				n++
			}
		}
	}
	return n
}

// planOne notes a server with members of a queue group, any one of them, and tells whether there is
// one.
func (c *copies) planOne(g string, members []*Sub) bool {
	first := rand.IntN(len(members))
	for i := range members {
		s := members[(first+i)%len(members)]
		if s.remote != nil && !s.closed.Load() {
			far := c.to(s.remote)
			far.queues = append(far.queues, g)
			return true
		}
	}
	return false
}

// Interest of this server's own that others are to know.
type announcements struct {
	mu       sync.Mutex // Held while watchers are called, so that they hear of changes in order.
	counts   map[interest]int
	watchers []*func(subj, queue string, on bool)
}

type interest struct{ subject, queue string }

// announced tells whether other servers are to know of the subscription: it is a client's, or
// stands for a client's in another account, or was made for it.
func (s *Sub) announced() bool {
	for ; s != nil; s = s.shadowOf {
		if s.client != nil || s.wide {
			return true
		}
	}
	return false
}

// WatchLocal calls fn for each subject and queue that other servers are to know of, now and as the
// first subscription to it comes or the last one goes. Calls follow one another in the order of the
// changes; fn must neither block nor subscribe.
func (a *Account) WatchLocal(fn func(subj, queue string, on bool)) (cancel func()) {
	n := &a.announcements
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.counts {
		fn(i.subject, i.queue, true)
	}
	n.watchers = append(n.watchers, &fn)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for i, w := range n.watchers {
			if w == &fn {
				n.watchers = append(n.watchers[:i:i], n.watchers[i+1:]...)
				return
			}
		}
	}
}

// announce counts a subscription that came (1) or went (-1).
func (a *Account) announce(s *Sub, by int) {
	if !s.announced() {
		return
	}
	n := &a.announcements
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.counts == nil {
		n.counts = make(map[interest]int)
	}
	key := interest{s.subject, s.queue}
	was := n.counts[key]
	if n.counts[key] = was + by; was+by == 0 {
		delete(n.counts, key)
	}
	if was == 0 || was+by == 0 {
		for _, fn := range n.watchers {
			(*fn)(s.subject, s.queue, by > 0)
		}
	}
}
