package cluster

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// PeerLink is a server that can be reached.
type PeerLink struct {
	Server     uint64
	Name       string
	Route      string // host:port it wants to be reached at
	Configured bool   // that is one of the routes
	Since      time.Time
}

// PeerLinks describes the servers that can be reached now, in order of id.
func (c *Cluster) PeerLinks() []PeerLink {
	var all []PeerLink
	for _, id := range c.PeerIDs() {
		l := PeerLink{Server: id, Name: c.PeerName(id)}
		c.peers.mu.Lock()
		l.Route, l.Since = c.peers.extra[id].Route, c.peers.since[id]
		c.peers.mu.Unlock()
		l.Configured = slices.Contains(c.opts.Route.Seeds, l.Route)
		all = append(all, l)
	}
	return all
}

// MetaLeader is the server that leads the meta group, as far as is known here; 0 if unknown.
func (c *Cluster) MetaLeader() uint64 {
	if c.metaMachine.Load() == nil {
		return 0
	}
	return c.metaGroup.leader()
}

// MetaHealthy tells whether something about streams could be decided now: nil, or why not. It is
// the part of Healthy that is not about single streams.
func (c *Cluster) MetaHealthy() error {
	if e := c.fatal.Load(); e != nil {
		return fmt.Errorf("the log failed: %w", *e)
	}
	select {
	case <-c.formed:
	default:
		return errNoMetaLeader
	}
	if d := c.log.SyncAge(); d > stallMax {
		return fmt.Errorf("the disk has not finished a sync for %s", d.Round(time.Second))
	}
	if c.MetaLeader() == 0 {
		return errNoMetaLeader
	}
	return nil
}

// errNoMetaLeader says so in the words that operators know.
var errNoMetaLeader = errors.New("JetStream has not established contact with a meta leader")

// Healthy tells whether a write to the stream would commit now: nil, or why not.
func (s *Stream) Healthy() error { return s.healthy() }
