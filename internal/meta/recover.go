package meta

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// auxFormer + the id in hex: JSON of Former.
const auxFormer = "former/"

// Former is a cluster that this one was, until one server went on alone. What is left of it must never take part in
// this one.
type Former struct {
	Cluster uint64 `json:"cluster"` // id
	Server  string `json:"server"`  // name of the one that went on
	Time    int64  `json:"time"`    // Unix nanoseconds
}

// Recover says that one server goes on alone, with what it has, and that all others are gone for good.
type Recover struct {
	Cluster uint64   `json:"cluster"` // id of the cluster that ends
	Server  uint64   `json:"server"`
	Groups  []uint64 `json:"groups"` // of the streams that this server has the data of
}

// Former tells whether, and since when, this cluster is not any more the one with that id.
func (m *Machine) Former(cluster uint64) (f Former, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f, ok = m.mu.former[cluster]
	return f, ok
}

// FormerIDs lists the ids of the clusters that this one was, sorted.
func (m *Machine) FormerIDs() []uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Sorted(maps.Keys(m.mu.former))
}

func (m *Machine) loadFormer() (err error) {
	m.mu.former = make(map[uint64]Former)
	m.engine.AuxRange(auxFormer, func(key string, value []byte) bool {
		var f Former
		if err = json.Unmarshal(value, &f); err != nil {
			err = fmt.Errorf("meta: record %q: %w", key, err)
			return false
		}
		m.mu.former[f.Cluster] = f
		return true
	})
	return err
}

// recover removes all servers but one, and leaves each stream with the replica there. One in memory begins
// anew, empty, since memory promises no more. One whose data nobody has is kept by name, for somebody to see
// that it is lost.
func (m *Machine) recover(tx storage.Tx, c *Recover) *Result {
	self := m.mu.servers[c.Server]
	if self == nil || self.Removed {
		return &Result{Err: api.ErrServerNotMember}
	}
	for _, s := range m.mu.servers { // order: each alone
		if s != self && !s.Removed {
			gone := *s
			gone.Removed = true
			m.putServer(tx, &gone)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(m.mu.streams), Key.compare) {
		s := *m.mu.streams[k]
		on, has := s.On(c.Server)
		s.Plan, s.Lost = nil, nil
		switch {
		case s.Config.Storage == api.MemoryStorage:
			s.Replicas = []Replica{{Server: c.Server}}
			m.refound(tx, &s)
		case has && slices.Contains(c.Groups, s.Group):
			s.Replicas, s.Genesis = []Replica{on}, nil
			s.Epoch++
		default:
			s.GivenUp = true
		}
		m.put(tx, &s)
	}
	m.putFormer(tx, Former{Cluster: c.Cluster, Server: self.Name, Time: m.now})
	return &Result{Server: self}
}

func (m *Machine) putFormer(tx storage.Tx, f Former) {
	b, err := json.Marshal(f)
	if err != nil {
		panic(fmt.Sprintf("meta: encode former cluster: %v", err)) // Our own type, always encodable.
	}
	tx.SetAux(fmt.Sprintf("%s%016x", auxFormer, f.Cluster), b)
	m.mu.former[f.Cluster] = f
}
