package jetstream

import (
	"strconv"
	"sync"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
)

// untilGone calls done when a stream that was deleted is gone from so many servers that no other can
// read from it or write to it: a majority, or all if they were being changed. A server that does not
// answer is not waited for longer than holdFor, for it may never come back; what it has alone, a
// stream without other replicas, it may show to its own clients until it hears of the delete.
func (c *call) untilGone(was *meta.Stream, done func()) {
	members := was.Members()
	need := len(members)/2 + 1
	if was.Plan != nil {
		need = len(members)
	}
	var others []uint64
	for _, r := range members {
		if r.Server == c.svc.cluster.ServerID() {
			need--
		} else {
			others = append(others, r.Server)
		}
	}
	if need <= 0 || c.svc.elsewhere == nil {
		done()
		return
	}
	var mu sync.Mutex
	left := len(others)
	for _, id := range others {
		subject := goneSubject + was.Config.Name
		c.svc.elsewhere.ask(id, was.Account, subject, strconv.AppendUint(nil, was.Group, 10), holdFor, func(o outcome) {
			mu.Lock()
			before := need > 0 && left > 0
			left--
			if o.verdict == answered && !o.refused {
				need--
			}
			enough := before && (need == 0 || left == 0)
			mu.Unlock()
			if enough {
				done()
			}
		})
	}
}

// goneSubject, with the name of a stream behind it, is for servers alone.
const goneSubject = apiPrefix + "STREAM.GONE."

// streamGone tells the server that deleted a stream, whose group is in the body, when it is gone here.
func (c *call) streamGone() {
	group, err := strconv.ParseUint(string(c.body), 10, 64)
	if err != nil {
		c.refuse(api.ErrBadRequest)
		return
	}
	was := &meta.Stream{Account: c.account.broker.Name(), Group: group, Config: api.StreamConfig{Name: c.name()}}
	c.svc.cluster.AwaitGone(was, c.changed)
}
