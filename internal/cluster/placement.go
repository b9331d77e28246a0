package cluster

import (
	"slices"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
)

// place chooses the servers for a new stream: those that can be reached and carry the wanted tags,
// the least loaded first. The first of them will lead.
func (c *Cluster) place(cfg *api.StreamConfig, not []uint64) ([]uint64, error) {
	if !c.Clustered() {
		if cfg.Replicas > 1 {
			return nil, api.ErrReplicasNotSupported
		}
		return []uint64{c.id.server}, nil
	}
	fit := c.candidates(cfg, not)
	if len(fit) < max(1, cfg.Replicas) {
		return nil, api.ErrNoPeers.With("no suitable peers for placement")
	}
	return fit[:max(1, cfg.Replicas)], nil
}

// candidates sorts the servers that can be reached by what they carry already.
func (c *Cluster) candidates(cfg *api.StreamConfig, not []uint64) []uint64 {
	m := c.Meta()
	if m == nil {
		return nil
	}
	load := make(map[uint64]int) // replicas, and leaders count double
	for _, s := range m.Streams("") {
		for i, r := range s.Replicas {
			load[r.Server]++
			if i == 0 {
				load[r.Server]++
			}
		}
	}
	var fit []uint64
	for _, s := range m.Servers() {
		if slices.Contains(not, s.ID) || !carries(s, cfg) || s.ID != c.id.server && !c.reachable(s.ID) {
			continue
		}
		fit = append(fit, s.ID)
	}
	slices.SortStableFunc(fit, func(a, b uint64) int { return load[a] - load[b] })
	return fit
}

// carries tells whether a server has all tags that the placement asks for.
func carries(s *meta.Server, cfg *api.StreamConfig) bool {
	if cfg.Placement == nil {
		return true
	}
	for _, tag := range cfg.Placement.Tags {
		if !slices.Contains(s.Tags, tag) {
			return false
		}
	}
	return true
}

// leaderMember is the raft id of the stream's leader, or 0.
func (s *Stream) leaderMember() uint64 {
	if r := s.rep.Load(); r != nil {
		return r.Status().Leader
	}
	lead := s.leader()
	for _, m := range s.members() {
		if m.Server == lead {
			return m.ID
		}
	}
	return 0
}
