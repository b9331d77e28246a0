package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
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

// Figures are what monitoring shows of logs and groups.
type Figures struct {
	Log    wal.Figures
	Groups []GroupFigures // in order of their names
}

// GroupFigures are those of one group with a replica here.
type GroupFigures struct {
	Name      string // "meta", or account and stream like "$G/KV_b"
	Leading   bool   // its leader is here
	Resting   bool   // nobody uses it, and the replica here waits for somebody to
	Term      uint64
	Committed uint64
	Applied   uint64
	Stopped   bool // the replica stopped: its state or log cannot be trusted
}

// Figures may be asked by any goroutine once the cluster was started.
func (c *Cluster) Figures() Figures {
	f := Figures{Log: c.log.Figures()}
	for _, g := range c.groups() {
		r := g.rep.Load()
		if r == nil {
			continue
		}
		st := r.Status()
		name := "meta"
		if g.stream != nil {
			name = g.stream.key.Account + "/" + g.stream.key.Name
		}
		f.Groups = append(f.Groups, GroupFigures{
			Name: name, Leading: st.Leading, Resting: st.Resting, Term: st.Term,
			Committed: st.Committed, Applied: st.Applied, Stopped: st.Stopped != nil,
		})
	}
	slices.SortFunc(f.Groups, func(a, b GroupFigures) int { return strings.Compare(a.Name, b.Name) })
	return f
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
		return errors.New(c.stillText(d))
	}
	if err := c.metaGroup.rep.Load().Status().Stopped; err != nil {
		return fmt.Errorf("the meta group: %w", err)
	}
	if c.MetaLeader() == 0 {
		return errNoMetaLeader
	}
	if c.Meta().Applied().Index < replica.GenesisIndex {
		return errNoMetaState
	}
	return nil
}

// Both say it in the words that operators know.
var (
	errNoMetaLeader = errors.New("JetStream has not established contact with a meta leader")
	errNoMetaState  = errors.New("JetStream is still recovering meta layer")
)

// Healthy tells whether a write to the stream would commit now: nil, or why not.
func (s *Stream) Healthy() error { return s.healthy() }
