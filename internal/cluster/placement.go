package cluster

import (
	"reflect"
	"slices"
	"strings"

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
		return nil, c.noPeers(cfg)
	}
	return fit[:max(1, cfg.Replicas)], nil
}

// candidates sorts the servers that can be reached by what they carry already.
func (c *Cluster) candidates(cfg *api.StreamConfig, not []uint64) []uint64 {
	m := c.Meta()
	if m == nil || c.elsewhere(cfg.Placement) {
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

// carries tells whether a server has all tags that the placement asks for, in whatever case they are
// written.
func carries(s *meta.Server, cfg *api.StreamConfig) bool {
	return cfg.Placement == nil || !slices.ContainsFunc(cfg.Placement.Tags, func(tag string) bool { return !hasTag(s, tag) })
}

func hasTag(s *meta.Server, tag string) bool {
	return slices.ContainsFunc(s.Tags, func(t string) bool { return strings.EqualFold(t, tag) })
}

// elsewhere tells whether the placement asks for another cluster than this one.
func (c *Cluster) elsewhere(p *api.Placement) bool {
	return p != nil && p.Cluster != "" && p.Cluster != c.Name()
}

// noPeers is the refusal of a placement for which there are too few servers. It tells why some are none.
func (c *Cluster) noPeers(cfg *api.StreamConfig) *api.Error {
	text := "no suitable peers for placement"
	m := c.Meta()
	if m == nil || c.elsewhere(cfg.Placement) {
		return api.ErrNoPeers.With(text)
	}
	servers := m.Servers()
	if slices.ContainsFunc(servers, func(s *meta.Server) bool { return carries(s, cfg) && s.ID != c.id.server && !c.reachable(s.ID) }) {
		text += ", peer offline"
	}
	var lacking []string
	if cfg.Placement != nil {
		for _, tag := range cfg.Placement.Tags {
			if slices.ContainsFunc(servers, func(s *meta.Server) bool { return !hasTag(s, tag) }) {
				lacking = append(lacking, "'"+tag+"'")
			}
		}
	}
	if len(lacking) > 0 {
		text += ", tags not matched [" + strings.Join(lacking, ", ") + "]"
	}
	return api.ErrNoPeers.With(text)
}

// misplaced lists the replicas of a stream that are to leave their servers, which do not carry the tags that
// the placement asks for: all if it has changed, else those that are leaving already.
func (c *Cluster) misplaced(a *meta.Stream, cfg *api.StreamConfig) (ids []uint64) {
	m := c.Meta()
	if m == nil || cfg.Placement == nil {
		return nil
	}
	changed := !reflect.DeepEqual(a.Config.Placement, cfg.Placement)
	for _, r := range a.Members() {
		if s := m.Server(r.Server); s == nil || carries(s, cfg) {
			continue
		}
		if changed || a.Plan != nil && slices.Contains(a.Plan.Remove, r.ID) {
			ids = append(ids, r.ID)
		}
	}
	return ids
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
