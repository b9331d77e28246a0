package cluster

import (
	"cmp"
	"net"
	"net/netip"

	"github.com/cleatkv/cleat/internal/peer"
)

// A server without streams is in the cluster for the messages of its clients alone. It meets the
// others and is met, and takes no part in what is stored: it founds and joins nothing, votes on
// nothing, and keeps nothing, so that its id is a new one at each start.

// startMessages is the Start of such a server.
func (c *Cluster) startMessages() (err error) {
	c.id.server = randomID()
	return c.listen()
}

// listen opens the transport and begins to look for the other servers.
func (c *Cluster) listen() (err error) {
	o := c.opts
	if c.transport, err = peer.Listen(peer.Options{
		Cluster: o.Route.Cluster, Server: c.id.server, Name: o.Name, Listen: o.Route.Listen,
		User: o.Route.User, Password: o.Route.Password, TLS: o.Route.TLS, Logger: o.Logger,
	}, peerHandler{c}); err != nil {
		return err
	}
	o.Logger.Info("Listening for route connections on " + o.shownRoute(c.transport.Addr()))
	c.transport.Accept() // Now that handlers find the transport.
	for _, address := range c.seeds() {
		c.transport.Dial(address)
	}
	return nil
}

// shownRoute is the address for other servers with the host as it was configured, 0.0.0.0 for all
// interfaces.
func (o *Options) shownRoute(a net.Addr) string {
	host, _, _ := net.SplitHostPort(o.Route.Listen)
	_, port, _ := net.SplitHostPort(a.String())
	return net.JoinHostPort(cmp.Or(host, "0.0.0.0"), port)
}

// RouteAddr is where other servers connect, nil for a server of its own and before Start.
func (c *Cluster) RouteAddr() net.Addr {
	if c.transport == nil {
		return nil
	}
	return c.transport.Addr()
}

// meet connects to a server that has greeted us. Servers with streams find each other by what the
// meta group knows; for those without, and to them, this is the only way besides the routes.
func (c *Cluster) meet(g greeting) {
	if !g.MessagesOnly && !c.opts.MessagesOnly {
		return
	}
	host, _, err := net.SplitHostPort(g.Route)
	if err != nil || c.transport == nil {
		return
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		return // It listens everywhere, and has not said where it is.
	}
	c.transport.Dial(g.Route)
}

// messagesOnly tells whether a server that was met is one without streams.
func (c *Cluster) messagesOnly(server uint64) bool {
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	return c.peers.extra[server].MessagesOnly
}
