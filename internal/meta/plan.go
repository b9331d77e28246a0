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

	// Absent is set where nobody asked for it: a server has been out of reach for long. If it comes back
	// in time, the plan is cancelled.
	Absent bool `json:"absent,omitempty"`
}

// ChangeReplicas asks for a plan: replicas on the servers of Add, and those of Remove away.
type ChangeReplicas struct {
	Account string   `json:"account"`
	Name    string   `json:"name"`
	Group   uint64   `json:"group"`
	Add     []uint64 `json:"add,omitempty"`    // server ids
	Remove  []uint64 `json:"remove,omitempty"` // raft ids
	Absent  bool     `json:"absent,omitempty"` // see Plan
}

// CancelPlan says that the servers whose absence is the reason for a plan are back, with what they hold.
type CancelPlan struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	Group   uint64 `json:"group"`
	Epoch   uint64 `json:"epoch"`
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

// On finds the replica on a server. There may be two while one takes the other's place: then the one
// that is to stay.
func (s *Stream) On(server uint64) (on Replica, ok bool) {
	for _, r := range s.Members() {
		if r.Server == server {
			on, ok = r, true
		}
	}
	return on, ok
}

// Founded tells whether a replica is of the group's first members, which begin with Genesis.
func (s *Stream) Founded(id uint64) bool { return slices.Contains(s.Genesis, id) }

// ReplicaLost says that a replica cannot be trusted any more: it lost a part of what it held, or of what it
// voted and acknowledged. Its id is never used again.
type ReplicaLost struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	Group   uint64 `json:"group"`
	Replica uint64 `json:"replica"` // raft id
}

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
	s.Plan.Absent = c.Absent
	m.put(tx, &s)
	return &Result{Stream: &s}
}

// cancelPlan replaces a plan by one that takes away again what it has added. So it does not matter how far
// the first one has come: whoever leads the group leads it back to the replicas that there were.
func (m *Machine) cancelPlan(tx storage.Tx, c *CancelPlan) *Result {
	old := m.mu.streams[Key{c.Account, c.Name}]
	if old == nil || old.Group != c.Group {
		return &Result{Err: api.ErrStreamNotFound}
	}
	if old.Plan == nil || old.Plan.Epoch != c.Epoch || !old.Plan.Absent {
		return &Result{Stream: old} // Told before, or it is another plan by now.
	}
	s := *old
	s.Epoch = old.Epoch + 1
	s.Plan = &Plan{Epoch: s.Epoch, Add: old.Plan.Add}
	for _, r := range old.Plan.Add {
		s.Plan.Remove = append(s.Plan.Remove, r.ID)
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
		if r, ok := s.On(server); ok && !slices.Contains(remove, r.ID) {
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
	s.Plan, s.Lost = nil, slices.DeleteFunc(slices.Clone(s.Lost), func(id uint64) bool { return slices.Contains(old.Plan.Remove, id) })
	m.put(tx, &s)
	return &Result{Stream: &s}
}

// replicaLost gives a server another replica in the place of one that lost what it held. If that is so for
// a majority and the stream is kept in memory, nobody can say any more what it held: it begins anew, empty.
func (m *Machine) replicaLost(tx storage.Tx, c *ReplicaLost) *Result {
	old := m.mu.streams[Key{c.Account, c.Name}]
	if old == nil || old.Group != c.Group {
		return &Result{Err: api.ErrStreamNotFound}
	}
	i := slices.IndexFunc(old.Members(), func(r Replica) bool { return r.ID == c.Replica })
	if i < 0 || old.Plan != nil && slices.Contains(old.Plan.Remove, c.Replica) {
		return &Result{Stream: old} // Told before.
	}
	s := *old
	server := old.Members()[i].Server
	if slices.ContainsFunc(old.Replicas, func(r Replica) bool { return r.ID == c.Replica }) {
		s.Lost = append(slices.Clone(old.Lost), c.Replica)
	}
	if s.Config.Storage == api.MemoryStorage && len(s.Lost) > len(s.Replicas)/2 {
		m.refound(tx, &s)
		m.put(tx, &s)
		return &Result{Stream: &s}
	}
	if len(old.Members()) == 1 {
		return &Result{Err: api.ErrPeerRemap} // There is nobody to have it from.
	}
	var adding []Replica
	var remove []uint64
	if old.Plan != nil {
		adding, remove = slices.Clone(old.Plan.Add), slices.Clone(old.Plan.Remove)
	}
	fresh := Replica{ID: m.issue(tx), Server: server}
	if j := slices.IndexFunc(adding, func(r Replica) bool { return r.ID == c.Replica }); j >= 0 {
		adding[j] = fresh
	} else {
		adding, remove = append(adding, fresh), append(remove, c.Replica)
	}
	s.Epoch = old.Epoch + 1
	s.Plan = &Plan{Epoch: s.Epoch, Add: adding, Remove: remove}
	m.put(tx, &s)
	return &Result{Stream: &s}
}

// refound lets a stream begin anew in a group of its own, with replicas on the servers that are to have
// them.
func (m *Machine) refound(tx storage.Tx, s *Stream) {
	stay := slices.DeleteFunc(s.Members(), func(r Replica) bool { return s.Plan != nil && slices.Contains(s.Plan.Remove, r.ID) })
	s.Group, s.Plan, s.Lost, s.Genesis = m.issue(tx), nil, nil, nil
	s.Replicas = nil
	for _, r := range stay {
		fresh := Replica{ID: m.issue(tx), Server: r.Server}
		s.Replicas = append(s.Replicas, fresh)
		s.Genesis = append(s.Genesis, fresh.ID)
	}
	s.Epoch++
}
