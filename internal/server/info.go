package server

import (
	"net"
	"runtime"
	"slices"
	"strconv"

	"github.com/cleatkv/cleat/internal/wire"
)

// info is the INFO for this connection. The later one tells the client its account too.
func (c *conn) info(later bool) *wire.Info {
	info := c.srv.info()
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

// info is what holds for all connections.
func (s *Server) info() *wire.Info {
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
		ConnectURLs: s.connectURLs(o),
		LameDuck:    s.mu.lameDuck,
	}
}

// connectURLs is where clients find the servers of the cluster, this one first. s.mu is held.
func (s *Server) connectURLs(o *Options) []string {
	if o.Cluster == "" || o.NoAdvertise {
		return nil
	}
	var urls []string
	if !s.mu.lameDuck {
		urls = append(urls, s.mu.ownURLs...)
	}
	for _, u := range s.mu.peerURLs {
		if !slices.Contains(urls, u) {
			urls = append(urls, u)
		}
	}
	return urls
}

// OwnURLs is where clients reach this server, as host:port.
func (s *Server) OwnURLs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mu.ownURLs)
}

// SetPeerURLs says where clients reach the other servers of the cluster. Clients that can be told
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
