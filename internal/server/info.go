package server

import (
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/wire"
)

// info is the INFO for this connection. The later one tells the client its account too.
func (c *conn) info(later bool) *wire.Info {
	info := c.srv.info(c.kind)
	o := c.srv.options()
	info.ClientID = c.id
	if c.remote.IsValid() {
		info.ClientIP = c.remote.Addr().String()
	}
	info.Nonce = c.nonce
	if t := c.security(o); t != nil {
		info.TLSAvailable = t.AllowPlain
		info.TLSRequired = !t.AllowPlain
		info.TLSVerify = t.verify()
	}
	info.AuthRequired = o.Auth.Demanded()
	if a := c.client.Account(); later && a != nil {
		info.ConnectInfo = true
		if own := c.ownPayload.Load(); own > 0 {
			info.MaxPayload = min(info.MaxPayload, own)
		}
		info.RemoteAccount = a.Name()
		info.SystemAccount = a == c.srv.broker.System()
	}
	return info
}

// info is what holds for all connections of a kind.
func (s *Server) info(kind string) *wire.Info {
	o := s.options()
	host, port := s.address()
	s.mu.Lock()
	defer s.mu.Unlock()
	return &wire.Info{
		ServerID:    o.ID,
		ServerName:  o.Name,
		Version:     o.Version,
		Proto:       1,
		GitCommit:   o.GitCommit,
		Go:          runtime.Version(),
		Host:        host,
		Port:        port,
		Headers:     !o.NoHeaders,
		MaxPayload:  int64(o.PayloadMax),
		JetStream:   o.JetStream,
		APILevel:    o.APILevel,
		Domain:      o.Domain,
		Cluster:     o.Cluster,
		ConnectURLs: s.connectURLs(o, kind),
		LameDuck:    s.mu.lameDuck,
	}
}

// webSocketScheme marks the addresses of WebSocket listeners among those that servers tell each
// other. Clients are told the ones of their own kind, without it.
const webSocketScheme = "ws://"

// connectURLs is where clients of a kind find the servers of the cluster, this one first. s.mu is
// held.
func (s *Server) connectURLs(o *Options, kind string) []string {
	if o.Cluster == "" || o.NoAdvertise {
		return nil
	}
	all := s.mu.peerURLs
	if !s.mu.lameDuck {
		all = slices.Concat(s.mu.ownURLs, s.mu.webSocketURLs, all)
	}
	var urls []string
	for _, u := range all {
		address, ws := strings.CutPrefix(u, webSocketScheme)
		if ws == (kind == auth.WebSocket) && !slices.Contains(urls, address) {
			urls = append(urls, address)
		}
	}
	return urls
}

// OwnURLs is where clients reach this server, as host:port, or ws://host:port for those that come by
// WebSocket.
func (s *Server) OwnURLs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.mu.ownURLs, s.mu.webSocketURLs)
}

// SetWebSocketAddr says where those reach this server that Serve is given as WebSocket connections.
func (s *Server) SetWebSocketAddr(addr *net.TCPAddr) {
	urls := reachable(&Options{Host: addr.IP.String()}, addr)
	for i, u := range urls {
		urls[i] = webSocketScheme + u
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.webSocketURLs = urls
}

// SetPeerURLs says where clients reach the other servers of the cluster, as OwnURLs there. Clients that can be told
// are told if that is news.
func (s *Server) SetPeerURLs(urls []string) {
	s.mu.Lock()
	same := slices.Equal(s.mu.peerURLs, urls)
	s.mu.peerURLs = slices.Clone(urls)
	s.mu.Unlock()
	if !same {
		s.broadcastInfo()
	}
}

// broadcastInfo sends INFO to every client that may be sent one at any time.
func (s *Server) broadcastInfo() {
	for _, c := range s.connections() {
		c.mu.Lock()
		async := c.mu.async
		c.mu.Unlock()
		if async {
			c.client.Send(nil, string(wire.AppendInfoLine(nil, c.info(true))))
			c.client.Flush()
		}
	}
}

// reachable lists the addresses at which clients reach a listener: what is advertised, its host, or
// the addresses of all interfaces if it listens on all.
func reachable(o *Options, addr *net.TCPAddr) []string {
	port := strconv.Itoa(addr.Port)
	if o.Advertise != "" {
		if _, _, err := net.SplitHostPort(o.Advertise); err == nil {
			return []string{o.Advertise}
		}
		return []string{net.JoinHostPort(o.Advertise, port)}
	}
	if !addr.IP.IsUnspecified() {
		return []string{net.JoinHostPort(o.Host, port)}
	}
	var urls []string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			urls = append(urls, net.JoinHostPort(ip.IP.String(), port))
		}
	}
	if len(urls) == 0 {
		urls = append(urls, net.JoinHostPort("127.0.0.1", port))
	}
	return urls
}
