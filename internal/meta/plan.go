package meta

import (
	"slices"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// Plan is a change of a stream's replicas on its way: the group's leader adds the new ones as
// learners, and when they have caught up, one joint change makes them voters and removes the
// others. Never is one removed first.
type Plan struct {
	Epoch  uint64    `json:"epoch"`
	Add    []Replica `json:"add,omitempty"`
	Remove []uint64  `json:"remove,omitempty"` // raft ids
}

// ChangeReplicas asks for a plan: replicas on the servers of Add, and those of Remove away.
type ChangeReplicas struct {
	Account string   `json:"account"`
	Name    string   `json:"name"`
	Group   uint64   `json:"group"`
	Add     []uint64 `json:"add,omitempty"`    // server ids
	Remove  []uint64 `json:"remove,omitempty"` // raft ids
}

// PlanDone says that the group's membership is what the plan wanted.
type PlanDone struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	Group   uint64 `json:"group"`
	Epoch   uint64 `json:"epoch"`
}

// Members are all replicas that may speak for the group now: the present ones and those on the way
// in.
func (s *Stream) Members() []Replica {
	if s.Plan == nil {
		return s.Replicas
	}
	return append(slices.Clone(s.Replicas), s.Plan.Add...)
}

// On finds the replica on a server.
func (s *Stream) On(server uint64) (Replica, bool) {
	for _, r := range s.Members() {
		if r.Server == server {
			return r, true
		}
	}
	return Replica{}, false
}

// Founded tells whether a replica is of the group's first members, which begin with Genesis.
func (s *Stream) Founded(id uint64) bool { return slices.Contains(s.Genesis, id) }

func (m *Machine) changeReplicas(tx storage.Tx, c *ChangeReplicas) *Result {
	old := m.mu.streams[Key{c.Account, c.Name}]
	if old == nil || old.Group != c.Group {
		return &Result{Err: api.ErrStreamNotFound}
	}
	if old.Plan != nil {
		return &Result{Err: api.ErrMoveInProgress}
	}
	s := *old
	if err := m.plan(tx, &s, nil, c.Add, c.Remove); err != nil {
		return &Result{Err: err}
	}
	m.put(tx, &s)
	return &Result{Stream: &s}
}

// plan gives s a plan: the members that are being added already, new ones on more servers, and those
// that are to go. One server holds at most one replica, and something must remain.
func (m *Machine) plan(tx storage.Tx, s *Stream, adding []Replica, servers, remove []uint64) *api.Error {
	for _, id := range remove {
		if !slices.ContainsFunc(s.Members(), func(r Replica) bool { return r.ID == id }) {
			return api.ErrPeerNotMember
		}
	}
	if len(s.Members())+len(servers)-len(remove) < 1 {
		return api.ErrPeerRemap
	}
	p := &Plan{Epoch: s.Epoch + 1, Add: slices.Clone(adding), Remove: remove}
	for _, server := range servers {
		if _, ok := s.On(server); ok {
			return api.ErrPeerRemap
		}
		p.Add = append(p.Add, Replica{ID: m.issue(tx), Server: server})
	}
	s.Epoch, s.Plan = p.Epoch, p
	return nil
}

func (m *Machine) planDone(tx storage.Tx, c *PlanDone) *Result {
	old := m.mu.streams[Key{c.Account, c.Name}]
	if old == nil || old.Group != c.Group {
		return &Result{Err: api.ErrStreamNotFound}
	}
	if old.Plan == nil || old.Plan.Epoch != c.Epoch {
		return &Result{Stream: old} // Told before: the leader repeats itself until it sees the result.
	}
	s := *old
	s.Replicas = slices.DeleteFunc(old.Members(), func(r Replica) bool { return slices.Contains(old.Plan.Remove, r.ID) })
	s.Plan = nil
	m.put(tx, &s)
	return &Result{Stream: &s}
}
