package cluster

import (
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
)

// beatLoop tells the other servers that this one lives. The beats stand for the heartbeats of all groups
// that rest (see replica.Shard), so there are none unless all shards go on: a shard that hangs leads nothing
// any more.
func (c *Cluster) beatLoop() {
	ticker := time.NewTicker(replica.BeatTicks * replica.TickInterval)
	defer ticker.Stop()
	done := make([]uint64, len(c.shards)) // ticks of each shard at the last beat
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		lively := true
		for i, s := range c.shards {
			now := s.Ticks()
			lively = lively && now != done[i]
			done[i] = now
		}
		if !lively {
			continue
		}
		for _, server := range c.beatsFor() {
			// What cannot be sent is missed, as it should be.
			_ = c.transport.Queue(server, peer.LaneRaft, kindBeat, func(b []byte) []byte { return b })
			c.transport.Flush(server, peer.LaneRaft)
		}
	}
}

// beatsFor lists the servers that are to be told, sorted.
func (c *Cluster) beatsFor() []uint64 {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	var all []uint64
	for id, up := range c.peers.up { // order: sorted below
		if up && c.peers.extra[id].Beats {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}

// beaten is told that a server beat.
func (c *Cluster) beaten(server uint64) {
	c.peers.mu.Lock()
	c.peers.beat[server] = time.Now()
	c.peers.mu.Unlock()
	for _, s := range c.openShards() {
		s.Beat(server)
	}
}

// lostBeat is told that the connection to a server was lost: nobody shall wait for its silence.
func (c *Cluster) lostBeat(server uint64) {
	for _, s := range c.openShards() {
		s.Lost(server)
	}
}

// openShards lists the shards, or none before this server belongs to a cluster.
func (c *Cluster) openShards() []*replica.Shard {
	select {
	case <-c.formed:
		return c.shards
	default:
		return nil
	}
}
