package cluster

import (
	"fmt"
	"slices"
	"time"
)

// When a cluster was recovered from one server, those of the old one must not take part any more, see
// Recover. That they cannot is due to the id alone, which differs; what is here is for people. And a server that
// is told so stops: the clients that it would serve are told of a state that nobody else goes on with.

// foreign says why a server of another cluster is refused.
func (c *Cluster) foreign(name string, g *greeting) error {
	c.checkGivenUp(name, g)
	ours := c.identity().cluster
	if m := c.Meta(); m != nil {
		if f, ok := m.Former(g.Cluster); ok {
			return fmt.Errorf("it belongs to cluster %016x, which ended when server %q was recovered alone at %s: stop it, move its data directory away, and start it again to have it join as a new server",
				g.Cluster, f.Server, time.Unix(0, f.Time).UTC().Format(time.RFC3339))
		}
	}
	return fmt.Errorf("it belongs to another cluster of the same name (id %016x, ours %016x)", g.Cluster, ours)
}

// checkGivenUp stops this server if it is of a cluster that goes on without it.
func (c *Cluster) checkGivenUp(name string, g *greeting) {
	if ours := c.identity().cluster; ours != 0 && slices.Contains(g.Former, ours) {
		c.onFatal(fmt.Errorf("this server was given up: its cluster (id %016x) was recovered without it, and server %q belongs to what it is now (id %016x); to let this server join that as a new one, move its data directory %s away and start it again",
			ours, name, g.Cluster, c.opts.Dir))
	}
}
