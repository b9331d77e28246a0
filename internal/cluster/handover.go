package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/replica"
)

// handOverPause is how long a leader may need, after its election, to know who could follow it.
const handOverPause = 50 * time.Millisecond

// HandOver gives away the lead of every group that this server leads and another could, so that
// nobody waits for an election when it goes. It returns when others lead, or cannot, or ctx is done.
func (c *Cluster) HandOver(ctx context.Context) {
	groups := c.groups()
	for {
		groups = slices.DeleteFunc(groups, func(g *group) bool { return !g.leads() })
		var waiting sync.WaitGroup
		var known []*group
		for _, g := range groups {
			if len(g.status().Members) > 0 {
				known = append(known, g)
				waiting.Add(1)
				g.stepDown("", func(error) { waiting.Done() }) // It stays where nobody can follow.
			}
		}
		done := make(chan struct{})
		c.wg.Go(func() {
			waiting.Wait()
			close(done)
		})
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
		// Those just elected do not know their members yet; a group of one never will.
		groups = slices.DeleteFunc(groups, func(g *group) bool {
			return slices.Contains(known, g) || len(g.status().Conf.GetVoters()) == 1
		})
		if len(groups) == 0 {
			return
		}
		select {
		case <-time.After(handOverPause):
		case <-ctx.Done():
			return
		}
	}
}

// status is that of the local replica; empty if there is none any more.
func (g *group) status() replica.Status {
	if r := g.rep.Load(); r != nil {
		return r.Status()
	}
	return replica.Status{}
}
