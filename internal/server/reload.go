package server

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cleatkv/cleat/internal/broker"
)

// errReload tells that an option cannot be changed while the server runs.
var errReload = errors.New("server: reload cannot change")

// Reload replaces the options. Connections keep going if their users still stand, with the rights
// they have now; the others are closed. What names the server or its listener cannot change.
func (s *Server) Reload(o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	old := s.options()
	o.ID = old.ID
	def(&o.Name, old.Name)
	switch {
	case o.Name != old.Name:
		return fmt.Errorf("%w server_name", errReload)
	case o.Host != old.Host || o.Port != old.Port:
		return fmt.Errorf("%w the address of the listener", errReload)
	case o.Cluster != old.Cluster:
		return fmt.Errorf("%w the name of the cluster", errReload)
	}
	s.opts.Store(&o)
	s.mu.Lock()
	if s.mu.listener != nil {
		s.mu.ownURLs = reachable(&o, s.mu.listener.Addr().(*net.TCPAddr))
	}
	s.mu.Unlock()
	conns := s.connections()
	for _, c := range conns {
		c.reload(old, &o)
	}
	closeExcess(conns, &o)
	s.broadcastInfo()
	return nil
}

// reload holds an open connection against new options.
func (c *conn) reload(old, o *Options) {
	if o.Auth == old.Auth || c.ending.Load() {
		return
	}
	c.mu.Lock()
	id := c.mu.identity
	c.mu.Unlock()
	a := c.client.Account()
	if a == nil {
		return // Not authenticated yet: it will be by the new options.
	}
	id, ok := o.Auth.Renew(id)
	if !ok || id.Account != a.Name() {
		c.fail(errAuthorization, AuthenticationViolation)
		return
	}
	c.bind(a, id, c.client.Traits())
	c.client.Flush()
}

// closeExcess closes connections that are more than the options allow, the latest first.
func closeExcess(conns []*conn, o *Options) {
	slices.SortFunc(conns, func(a, b *conn) int { return int(a.id) - int(b.id) })
	inAccount := make(map[*broker.Account]int)
	open := 0
	for _, c := range conns {
		if c.ending.Load() {
			continue
		}
		if open++; o.ConnectionsMax > 0 && open > o.ConnectionsMax {
			c.fail(errConnections, MaxConnectionsExceeded)
			continue
		}
		c.mu.Lock()
		limit := c.mu.identity.Limits.Connections
		c.mu.Unlock()
		a := c.client.Account()
		if inAccount[a]++; limit > 0 && inAccount[a] > limit {
			c.fail(errAccountConns, MaxAccountConnectionsExceeded)
		}
	}
}
