package meta

import (
	"slices"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// Reform says that a group without a majority begins anew from one of its replicas, which has all that was ever
// acknowledged: all the others are lost for good or have frozen themselves, in that epoch (see replica.Reform).
type Reform struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	Group   uint64 `json:"group"`
	Epoch   uint64 `json:"epoch"`
	Source  uint64 `json:"source"` // raft id
}

// reform leaves the stream with that one replica. The number that was asked for is made up as it is whenever there are
// too few, under ids that were never used. Of several such commands for one epoch the first counts.
func (m *Machine) reform(tx storage.Tx, c *Reform) *Result {
	old := m.mu.streams[Key{c.Account, c.Name}]
	if old == nil || old.Group != c.Group {
		return &Result{Err: api.ErrStreamNotFound}
	}
	if old.Epoch != c.Epoch {
		return &Result{Stream: old} // Told before, or the frozen ones have to say it again.
	}
	i := slices.IndexFunc(old.Members(), func(r Replica) bool { return r.ID == c.Source })
	if i < 0 {
		return &Result{Err: api.ErrPeerNotMember}
	}
	s := *old
	s.Replicas, s.Plan, s.Lost = []Replica{old.Members()[i]}, nil, nil
	s.Epoch = old.Epoch + 1
	s.Reformed = s.Epoch
	m.put(tx, &s)
	return &Result{Stream: &s}
}
