package meta

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// auxServer + the id in hex: JSON of Server.
const auxServer = "server/"

// Server is one server of the cluster as the meta group knows it. It is never modified: a change
// makes a new one.
type Server struct {
	ID     uint64   `json:"id"`     // drawn with its data directory; an empty disk is a new server
	Member uint64   `json:"member"` // its raft id in the meta group
	Name   string   `json:"name"`
	Route  string   `json:"route"` // host:port where it listens for other servers
	Tags   []string `json:"tags,omitempty"`
	Joined int64    `json:"joined"` // Unix nanoseconds

	// Removed is set when the server may hold nothing any more: it was removed, or another
	// one with the same name has taken its place. The record stays, so that it is recognised.
	Removed bool `json:"removed,omitempty"`
}

// JoinServer makes a server known, or updates its route and tags. A server with the name of a
// known one and another id takes that one's place.
type JoinServer struct {
	Server Server `json:"server"`
	// Lost is the member that the server was if it has lost what it held as that: it gets another id.
	Lost uint64 `json:"lost,omitempty"`
}

// RemoveServer declares a server gone for good.
type RemoveServer struct {
	ID uint64 `json:"id"`
}

// Server returns a server by id, or nil.
func (m *Machine) Server(id uint64) *Server {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.servers[id]
}

// Servers returns all servers that were not removed, sorted by name.
func (m *Machine) Servers() []*Server {
	return slices.DeleteFunc(m.AllServers(), func(s *Server) bool { return s.Removed })
}

// AllServers returns the removed ones too.
func (m *Machine) AllServers() []*Server {
	m.mu.RLock()
	all := make([]*Server, 0, len(m.mu.servers))
	for _, s := range m.mu.servers { // order: sorted below
		all = append(all, s)
	}
	m.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Server) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return int(a.Joined - b.Joined)
	})
	return all
}

func (m *Machine) join(tx storage.Tx, c *JoinServer) *Result {
	s := c.Server
	if old := m.mu.servers[s.ID]; old != nil {
		if old.Removed {
			return &Result{Err: api.ErrServerNotMember}
		}
		s.Member, s.Joined = old.Member, old.Joined
		if c.Lost != 0 && c.Lost == old.Member {
			s.Member = m.issue(tx)
		}
		if !sameServer(old, &s) {
			m.putServer(tx, &s)
		}
		return &Result{Server: m.mu.servers[s.ID]}
	}
	for _, old := range m.mu.servers { // order: at most one has the name
		if old.Name == s.Name && !old.Removed {
			gone := *old
			gone.Removed = true
			m.putServer(tx, &gone)
		}
	}
	s.Member, s.Joined, s.Removed = m.issue(tx), m.now, false
	m.putServer(tx, &s)
	return &Result{Server: &s, Created: true}
}

func sameServer(a, b *Server) bool {
	return a.Member == b.Member && a.Name == b.Name && a.Route == b.Route && slices.Equal(a.Tags, b.Tags)
}

func (m *Machine) removeServer(tx storage.Tx, c *RemoveServer) *Result {
	old := m.mu.servers[c.ID]
	if old == nil {
		return &Result{Err: api.ErrServerNotMember}
	}
	gone := *old
	gone.Removed = true
	m.putServer(tx, &gone)
	return &Result{Server: &gone}
}

// putServer stores a server; the caller holds the lock.
func (m *Machine) putServer(tx storage.Tx, s *Server) {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("meta: encode server: %v", err)) // Our own type, always encodable.
	}
	tx.SetAux(fmt.Sprintf("%s%016x", auxServer, s.ID), b)
	m.mu.servers[s.ID] = s
}
