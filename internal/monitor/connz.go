package monitor

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/subject"
)

// connzLimit is how many connections one answer shows when nobody says.
const connzLimit = 1024

// Connz is /connz: the client connections.
type Connz struct {
	ID       string     `json:"server_id"`
	Now      time.Time  `json:"now"`
	NumConns int        `json:"num_connections"`
	Total    int        `json:"total"`
	Offset   int        `json:"offset"`
	Limit    int        `json:"limit"`
	Conns    []ConnInfo `json:"connections"`
}

// ConnInfo is one connection.
type ConnInfo struct {
	Cid            uint64      `json:"cid"`
	Kind           string      `json:"kind,omitempty"`
	Type           string      `json:"type,omitempty"`
	IP             string      `json:"ip"`
	Port           int         `json:"port"`
	Start          time.Time   `json:"start"`
	LastActivity   time.Time   `json:"last_activity"`
	Stop           *time.Time  `json:"stop,omitempty"`
	Reason         string      `json:"reason,omitempty"`
	RTT            string      `json:"rtt,omitempty"`
	Uptime         string      `json:"uptime"`
	Idle           string      `json:"idle"`
	Pending        int         `json:"pending_bytes"`
	InMsgs         int64       `json:"in_msgs"`
	OutMsgs        int64       `json:"out_msgs"`
	InBytes        int64       `json:"in_bytes"`
	OutBytes       int64       `json:"out_bytes"`
	Stalls         int64       `json:"stalls,omitempty"`
	NumSubs        uint32      `json:"subscriptions"`
	Name           string      `json:"name,omitempty"`
	Lang           string      `json:"lang,omitempty"`
	Version        string      `json:"version,omitempty"`
	TLSVersion     string      `json:"tls_version,omitempty"`
	TLSCipher      string      `json:"tls_cipher_suite,omitempty"`
	AuthorizedUser string      `json:"authorized_user,omitempty"`
	Account        string      `json:"account,omitempty"`
	Subs           []string    `json:"subscriptions_list,omitempty"`
	SubsDetail     []SubDetail `json:"subscriptions_list_detail,omitempty"`
}

// SubDetail is one subscription.
type SubDetail struct {
	Account    string `json:"account,omitempty"`
	AccountTag string `json:"account_tag,omitempty"`
	Subject    string `json:"subject"`
	Queue      string `json:"qgroup,omitempty"`
	SID        string `json:"sid"`
	Msgs       int64  `json:"msgs"`
	Max        int64  `json:"max,omitempty"`
	Cid        uint64 `json:"cid"`
}

func subDetail(s Sub) SubDetail {
	return SubDetail{
		Account: s.Account, AccountTag: s.Account, Subject: s.Subject, Queue: s.Queue, SID: s.SID,
		Msgs: s.Msgs, Max: s.Max, Cid: s.Client,
	}
}

// connState is which connections are asked for.
type connState int

const (
	connsOpen connState = iota
	connsClosed
	connsAll
)

// ConnzQuery chooses what /connz shows.
type ConnzQuery struct {
	Sort          string    `json:"sort"`
	Auth          bool      `json:"auth"` // with who they are
	Subs          bool      `json:"subscriptions"`
	SubsDetail    bool      `json:"subscriptions_detail"`
	Offset        int       `json:"offset"`
	Limit         int       `json:"limit"`
	Cid           uint64    `json:"cid"` // only this one
	State         connState `json:"state"`
	User          string    `json:"user"`
	Account       string    `json:"acc"`
	FilterSubject string    `json:"filter_subject"` // only those with a subscription that could receive it
}

func parseConnzQuery(values url.Values) (ConnzQuery, error) {
	q := queryReader{values: values}
	c := ConnzQuery{
		Sort:          values.Get("sort"),
		Auth:          q.flag("auth"),
		Offset:        q.number("offset"),
		Limit:         q.number("limit"),
		Cid:           q.uint("cid"),
		User:          values.Get("user"),
		Account:       values.Get("acc"),
		FilterSubject: values.Get("filter_subject"),
	}
	if strings.EqualFold(values.Get("subs"), "detail") {
		c.Subs, c.SubsDetail = true, true
	} else {
		c.Subs = q.flag("subs")
	}
	switch s := strings.ToLower(values.Get("state")); s {
	case "", "open":
	case "closed":
		c.State = connsClosed
	case "any", "all":
		c.State = connsAll
	default:
		return c, fmt.Errorf("Error decoding state for %s", s)
	}
	if q.err != nil {
		return c, q.err
	}
	return c, c.Check()
}

// Check returns what is wrong with the question, and fills in what was left out.
func (c *ConnzQuery) Check() error {
	if c.Sort == "" {
		c.Sort = "cid"
	}
	if _, ok := connOrders[c.Sort]; !ok {
		return fmt.Errorf("invalid sorting option: %s", c.Sort)
	}
	if (c.Sort == "stop" || c.Sort == "reason") && c.State != connsClosed {
		return fmt.Errorf("sort by %s only valid on closed connections", c.Sort)
	}
	return nil
}

// connOrders are the ways to sort. What is interesting is large, so figures fall.
var connOrders = map[string]func(a, b *Conn) int{
	"cid":        func(a, b *Conn) int { return cmp.Compare(a.ID, b.ID) },
	"start":      func(a, b *Conn) int { return a.Start.Compare(b.Start) },
	"subs":       func(a, b *Conn) int { return cmp.Compare(b.NumSubs, a.NumSubs) },
	"pending":    func(a, b *Conn) int { return cmp.Compare(b.Pending, a.Pending) },
	"msgs_to":    func(a, b *Conn) int { return cmp.Compare(b.OutMsgs, a.OutMsgs) },
	"msgs_from":  func(a, b *Conn) int { return cmp.Compare(b.InMsgs, a.InMsgs) },
	"bytes_to":   func(a, b *Conn) int { return cmp.Compare(b.OutBytes, a.OutBytes) },
	"bytes_from": func(a, b *Conn) int { return cmp.Compare(b.InBytes, a.InBytes) },
	"last":       func(a, b *Conn) int { return b.LastActivity.Compare(a.LastActivity) },
	"idle":       func(a, b *Conn) int { return a.LastActivity.Compare(b.LastActivity) },
	"uptime":     func(a, b *Conn) int { return cmp.Compare(b.age(), a.age()) },
	"stop":       func(a, b *Conn) int { return b.Stop.Compare(a.Stop) },
	"reason":     func(a, b *Conn) int { return cmp.Compare(a.Reason, b.Reason) },
	"rtt":        func(a, b *Conn) int { return cmp.Compare(b.RTT, a.RTT) },
}

// end is when a connection's life is counted to.
func (c *Conn) end() time.Time {
	if c.Stop.IsZero() {
		return time.Now()
	}
	return c.Stop
}

func (c *Conn) age() time.Duration { return c.end().Sub(c.Start) }

// Connz returns what /connz shows.
func (m *Monitor) Connz(q ConnzQuery) *Connz {
	if q.Limit <= 0 {
		q.Limit = connzLimit
	}
	if q.Cid != 0 {
		q.Limit = 1
	}
	out := &Connz{ID: m.src.ServerID, Now: time.Now().UTC(), Offset: q.Offset, Limit: q.Limit, Conns: []ConnInfo{}}
	var conns []Conn
	if q.State != connsClosed {
		conns = append(conns, m.src.Clients.Open()...)
	}
	if q.State != connsOpen {
		conns = append(conns, m.src.Clients.Closed()...)
	}
	conns = slices.DeleteFunc(conns, func(c Conn) bool { return !q.wants(&c) })
	if order := connOrders[q.Sort]; order != nil {
		slices.SortFunc(conns, func(a, b Conn) int { return cmp.Or(order(&a, &b), cmp.Compare(a.ID, b.ID)) })
	}
	out.Total = len(conns)
	for _, c := range window(conns, q.Offset, q.Limit) {
		out.Conns = append(out.Conns, q.info(&c))
	}
	out.NumConns = len(out.Conns)
	return out
}

func (c *ConnzQuery) wants(conn *Conn) bool {
	switch {
	case c.Cid != 0 && conn.ID != c.Cid,
		c.User != "" && conn.User != c.User,
		c.Account != "" && conn.Account != c.Account:
		return false
	case c.FilterSubject == "":
		return true
	}
	return slices.ContainsFunc(conn.subs(), func(s Sub) bool { return subject.Overlap(s.Subject, c.FilterSubject) })
}

func (c *Conn) subs() []Sub {
	if c.Subs == nil {
		return nil
	}
	return c.Subs()
}

func (c *ConnzQuery) info(conn *Conn) ConnInfo {
	out := ConnInfo{
		Cid: conn.ID, Kind: "Client", Type: conn.Type, IP: conn.IP, Port: conn.Port,
		Start: conn.Start.UTC(), LastActivity: conn.LastActivity.UTC(), Reason: conn.Reason,
		Uptime: uptime(conn.age()), Idle: uptime(max(conn.end().Sub(conn.LastActivity), 0)),
		Pending: conn.Pending, InMsgs: conn.InMsgs, OutMsgs: conn.OutMsgs,
		InBytes: conn.InBytes, OutBytes: conn.OutBytes, Stalls: conn.Stalls, NumSubs: uint32(conn.NumSubs),
		Name: conn.Name, Lang: conn.Lang, Version: conn.Version,
		TLSVersion: conn.TLSVersion, TLSCipher: conn.TLSCipher,
	}
	if !conn.Stop.IsZero() {
		stop := conn.Stop.UTC()
		out.Stop = &stop
	}
	if conn.RTT > 0 {
		out.RTT = conn.RTT.String()
	}
	if c.Auth || c.User != "" || c.Account != "" {
		out.AuthorizedUser, out.Account = conn.User, conn.Account
	}
	if !c.Subs {
		return out
	}
	for _, s := range conn.subs() {
		if c.SubsDetail {
			out.SubsDetail = append(out.SubsDetail, subDetail(s))
		} else {
			out.Subs = append(out.Subs, s.Subject)
		}
	}
	return out
}
