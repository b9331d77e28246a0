package server

import (
	"encoding/json"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
)

const userInfoSubject = "$SYS.REQ.USER.INFO"

type userInfo struct {
	Server ServerInfo `json:"server"`
	Data   userData   `json:"data"`
}

type userData struct {
	User        string           `json:"user"`
	Account     string           `json:"account"`
	AccountName string           `json:"account_name,omitempty"`
	Permissions *userPermissions `json:"permissions,omitempty"`
	Expires     time.Duration    `json:"expires,omitempty"`
}

type userPermissions struct {
	Publish   *userSubjects  `json:"publish,omitempty"`
	Subscribe *userSubjects  `json:"subscribe,omitempty"`
	Responses *userResponses `json:"responses,omitempty"`
}

type userSubjects struct {
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
}

type userResponses struct {
	Max int           `json:"max"`
	TTL time.Duration `json:"ttl"`
}

// serveUserInfo answers the clients of an account who ask who they are.
func (s *Server) serveUserInfo(a *broker.Account) {
	a.Subscribe(userInfoSubject, "", func(m *broker.Msg) {
		if m.Client == nil || m.Reply == "" {
			return
		}
		b, err := json.Marshal(s.userInfo(m.Client))
		if err != nil {
			s.log().Error("User info cannot be written", "error", err)
			return
		}
		m.Respond(nil, b)
	})
}

func (s *Server) userInfo(client *broker.Client) userInfo {
	name := client.Account().Name()
	u := userInfo{
		Server: s.Describe(),
		Data:   userData{User: client.User(), Account: name, AccountName: name, Permissions: permissionsOf(client.Permissions())},
	}
	s.mu.Lock()
	c := s.mu.conns[client.ID()]
	s.mu.Unlock()
	if c != nil {
		c.mu.Lock()
		if at := c.mu.identity.Expires; !at.IsZero() {
			u.Data.Expires = time.Until(at)
		}
		c.mu.Unlock()
	}
	return u
}

func permissionsOf(p *auth.Permissions) *userPermissions {
	r := p.Rules()
	if r == nil {
		return nil
	}
	u := &userPermissions{Publish: subjectsOf(r.Publish), Subscribe: subjectsOf(r.Subscribe)}
	if r.Responses != nil {
		u.Responses = &userResponses{Max: r.Responses.Max, TTL: r.Responses.TTL}
	}
	return u
}

func subjectsOf(s auth.Subjects) *userSubjects {
	if len(s.Allow) == 0 && len(s.Deny) == 0 {
		return nil
	}
	return &userSubjects{Allow: s.Allow, Deny: s.Deny}
}

// ServerInfo is how a server names itself in what it tells the system account.
type ServerInfo struct {
	Name      string            `json:"name"`
	Host      string            `json:"host"`
	ID        string            `json:"id"`
	Cluster   string            `json:"cluster,omitempty"`
	Domain    string            `json:"domain,omitempty"`
	Version   string            `json:"ver"`
	Tags      []string          `json:"tags,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	JetStream bool              `json:"jetstream"`
	Flags     uint64            `json:"flags"` // flagJetStream
	Sequence  uint64            `json:"seq"`
	Time      time.Time         `json:"time"`
}

// flagJetStream says that the server has JetStream. The other flags are about how servers of another kind
// talk to each other.
const flagJetStream = 1

// Describe names this server, for one more message about it.
func (s *Server) Describe() ServerInfo {
	o := s.options()
	host, _ := s.address()
	i := ServerInfo{
		Name: o.Name, Host: host, ID: o.ID, Cluster: o.Cluster, Domain: o.Domain, Version: o.Version, Tags: o.Tags,
		Metadata: o.Metadata, JetStream: o.JetStream, Sequence: s.infoSequence.Add(1), Time: time.Now().UTC(),
	}
	if o.JetStream {
		i.Flags = flagJetStream
	}
	return i
}
