package server

import (
	"encoding/json"
	"time"

	"github.com/cleatkv/cleat/internal/auth"
	"github.com/cleatkv/cleat/internal/broker"
)

const userInfoSubject = "$SYS.REQ.USER.INFO"

type userInfo struct {
	Server serverInfo `json:"server"`
	Data   userData   `json:"data"`
}

type serverInfo struct {
	Name      string    `json:"name"`
	Host      string    `json:"host"`
	ID        string    `json:"id"`
	Cluster   string    `json:"cluster,omitempty"`
	Domain    string    `json:"domain,omitempty"`
	Version   string    `json:"ver"`
	JetStream bool      `json:"jetstream"`
	Sequence  uint64    `json:"seq"`
	Time      time.Time `json:"time"`
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
	o := s.options()
	host, _ := s.address()
	name := client.Account().Name()
	u := userInfo{
		Server: serverInfo{Name: o.Name, Host: host, ID: o.ID, Cluster: o.Cluster, Domain: o.Domain, Version: o.Version,
			JetStream: o.JetStream, Sequence: s.infoSequence.Add(1), Time: time.Now().UTC()},
		Data: userData{User: client.User(), Account: name, AccountName: name, Permissions: permissionsOf(client.Permissions())},
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
