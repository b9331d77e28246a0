package monitor

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/subject"
)

// Subsz is /subsz: subscriptions of clients.
type Subsz struct {
	ID           string      `json:"server_id"`
	Now          time.Time   `json:"now"`
	NumSubs      uint32      `json:"num_subscriptions"`
	NumCache     uint32      `json:"num_cache"`
	NumInserts   uint64      `json:"num_inserts"`
	NumRemoves   uint64      `json:"num_removes"`
	NumMatches   uint64      `json:"num_matches"`
	CacheHitRate float64     `json:"cache_hit_rate"`
	MaxFanout    uint32      `json:"max_fanout"`
	AvgFanout    float64     `json:"avg_fanout"`
	Total        int         `json:"total"`
	Offset       int         `json:"offset"`
	Limit        int         `json:"limit"`
	Subs         []SubDetail `json:"subscriptions_list,omitempty"`
}

// SubszQuery chooses what /subsz shows.
type SubszQuery struct {
	Subs    bool   `json:"subscriptions"`
	Account string `json:"account"`
	Test    string `json:"test"` // only those this subject would reach
	Offset  int    `json:"offset"`
	Limit   int    `json:"limit"`
}

func parseSubszQuery(values url.Values) (SubszQuery, error) {
	q := queryReader{values: values}
	s := SubszQuery{
		Subs: q.flag("subs"), Offset: q.number("offset"), Limit: q.number("limit"),
		Account: values.Get("acc"), Test: values.Get("test"),
	}
	if q.err != nil {
		return s, q.err
	}
	return s, s.Check()
}

// Check returns what is wrong with the question.
func (s *SubszQuery) Check() error {
	if s.Test != "" && !subject.ValidLiteral(s.Test) {
		return fmt.Errorf("invalid test subject, must be valid publish subject: %s", s.Test)
	}
	return nil
}

// Subsz returns what /subsz shows.
func (m *Monitor) Subsz(q SubszQuery) *Subsz {
	if q.Limit <= 0 {
		q.Limit = connzLimit
	}
	t := m.src.Clients.Traffic()
	out := &Subsz{
		ID: m.src.ServerID, Now: time.Now().UTC(), Offset: q.Offset, Limit: q.Limit,
		NumSubs: uint32(t.Subscriptions), NumInserts: t.SubscriptionInserts, NumRemoves: t.SubscriptionRemoves,
		NumMatches: t.SubscriptionLookups,
	}
	out.Total = int(out.NumSubs)
	if !q.Subs && q.Test == "" && q.Account == "" {
		return out
	}
	var subs []SubDetail
	for _, c := range m.src.Clients.Open() {
		if q.Account != "" && c.Account != q.Account {
			continue
		}
		for _, s := range c.subs() {
			if q.Test == "" || subject.Match(s.Subject, q.Test) {
				subs = append(subs, subDetail(s))
			}
		}
	}
	slices.SortFunc(subs, func(a, b SubDetail) int { return cmp.Or(cmp.Compare(a.Cid, b.Cid), cmp.Compare(a.SID, b.SID)) })
	out.Total = len(subs)
	if q.Subs {
		out.Subs = window(subs, q.Offset, q.Limit)
	}
	return out
}

// Accountz is /accountz: which accounts there are, or one of them.
type Accountz struct {
	ID            string       `json:"server_id"`
	Now           time.Time    `json:"now"`
	SystemAccount string       `json:"system_account,omitempty"`
	Accounts      []string     `json:"accounts,omitempty"`
	Account       *AccountInfo `json:"account_detail,omitempty"`
}

// AccountInfo is one account.
type AccountInfo struct {
	Name        string    `json:"account_name"`
	LastUpdate  time.Time `json:"update_time"`
	IsSystem    bool      `json:"is_system,omitempty"`
	Expired     bool      `json:"expired"`
	Complete    bool      `json:"complete"`
	JetStream   bool      `json:"jetstream_enabled"`
	Leafnodes   int       `json:"leafnode_connections"`
	Connections int       `json:"client_connections"`
	NumSubs     uint32    `json:"subscriptions"`
}

// Accountz returns what /accountz shows; the error is about an account that does not exist.
func (m *Monitor) Accountz(name string) (*Accountz, error) {
	out := &Accountz{ID: m.src.ServerID, Now: time.Now().UTC(), SystemAccount: m.src.Config().SystemAccount}
	if m.src.Accounts == nil {
		return out, nil
	}
	if name == "" {
		out.Accounts = m.src.Accounts.Names()
		slices.Sort(out.Accounts)
		return out, nil
	}
	a, ok := m.src.Accounts.Account(name)
	if !ok {
		return nil, fmt.Errorf("Account %s does not exist", name)
	}
	out.Account = &AccountInfo{
		Name: a.Name, LastUpdate: m.src.Loaded().UTC(), IsSystem: name == out.SystemAccount, Complete: true,
		JetStream: a.JetStream, Connections: a.Connections, NumSubs: uint32(a.Subscriptions),
	}
	return out, nil
}

// Accstatz is /accstatz: what accounts do.
type Accstatz struct {
	ID       string        `json:"server_id"`
	Now      time.Time     `json:"now"`
	Accounts []AccountStat `json:"account_statz"`
}

// AccountStat is what one account does.
type AccountStat struct {
	Account       string    `json:"acc"`
	Name          string    `json:"name"`
	Conns         int       `json:"conns"`
	Leafnodes     int       `json:"leafnodes"`
	TotalConns    int       `json:"total_conns"`
	NumSubs       uint32    `json:"num_subscriptions"`
	Sent          DataStats `json:"sent"`
	Received      DataStats `json:"received"`
	SlowConsumers int64     `json:"slow_consumers"`
}

// DataStats counts messages of clients.
type DataStats struct {
	Msgs  int64 `json:"msgs"`
	Bytes int64 `json:"bytes"`
}

// AccstatzQuery chooses what /accstatz shows.
type AccstatzQuery struct {
	Accounts []string // only these; none stands for all
	Unused   bool     // also accounts nobody is connected to
}

func parseAccstatzQuery(values url.Values) (AccstatzQuery, error) {
	q := queryReader{values: values}
	out := AccstatzQuery{Unused: q.flag("unused")}
	if name := values.Get("acc"); name != "" {
		out.Accounts = []string{name}
	}
	return out, q.err
}

// Accstatz returns what /accstatz shows.
func (m *Monitor) Accstatz(q AccstatzQuery) *Accstatz {
	out := &Accstatz{ID: m.src.ServerID, Now: time.Now().UTC(), Accounts: []AccountStat{}}
	if m.src.Accounts == nil {
		return out
	}
	names := m.src.Accounts.Names()
	slices.Sort(names)
	for _, name := range names {
		a, ok := m.src.Accounts.Account(name)
		if !ok || (len(q.Accounts) > 0 && !slices.Contains(q.Accounts, name)) || (a.Connections == 0 && !q.Unused) {
			continue
		}
		out.Accounts = append(out.Accounts, AccountStat{
			Account: name, Name: name, Conns: a.Connections, TotalConns: a.TotalConnections, NumSubs: uint32(a.Subscriptions),
			Sent: DataStats{a.SentMsgs, a.SentBytes}, Received: DataStats{a.ReceivedMsgs, a.ReceivedBytes},
			SlowConsumers: a.SlowConsumers,
		})
	}
	return out
}

// Routez is /routez: connections to other servers.
type Routez struct {
	ID        string      `json:"server_id"`
	Name      string      `json:"server_name"`
	Now       time.Time   `json:"now"`
	NumRoutes int         `json:"num_routes"`
	Routes    []RouteInfo `json:"routes"`
}

// RouteInfo is one of them.
type RouteInfo struct {
	Rid          uint64    `json:"rid"`
	RemoteID     string    `json:"remote_id"`
	RemoteName   string    `json:"remote_name"`
	DidSolicit   bool      `json:"did_solicit"`
	IsConfigured bool      `json:"is_configured"`
	IP           string    `json:"ip"`
	Port         int       `json:"port"`
	Start        time.Time `json:"start"`
	LastActivity time.Time `json:"last_activity"`
	RTT          string    `json:"rtt,omitempty"`
	Uptime       string    `json:"uptime"`
	Idle         string    `json:"idle"`
	Pending      int       `json:"pending_size"`
	InMsgs       int64     `json:"in_msgs"`
	OutMsgs      int64     `json:"out_msgs"`
	InBytes      int64     `json:"in_bytes"`
	OutBytes     int64     `json:"out_bytes"`
	NumSubs      uint32    `json:"subscriptions"`
}

// Routez returns what /routez shows.
func (m *Monitor) Routez() *Routez {
	now := time.Now()
	out := &Routez{ID: m.src.ServerID, Name: m.src.ServerName, Now: now.UTC(), Routes: []RouteInfo{}}
	if m.src.Routes == nil {
		return out
	}
	for _, r := range m.src.Routes() {
		info := RouteInfo{
			Rid: r.ID, RemoteID: r.RemoteID, RemoteName: r.RemoteName, DidSolicit: r.Solicited, IsConfigured: r.Configured,
			IP: r.IP, Port: r.Port, Start: r.Start.UTC(), LastActivity: r.LastActivity.UTC(),
			Uptime: uptime(now.Sub(r.Start)), Idle: uptime(max(now.Sub(r.LastActivity), 0)), Pending: r.Pending,
			InMsgs: r.InMsgs, OutMsgs: r.OutMsgs, InBytes: r.InBytes, OutBytes: r.OutBytes,
		}
		if r.RTT > 0 {
			info.RTT = r.RTT.String()
		}
		out.Routes = append(out.Routes, info)
	}
	out.NumRoutes = len(out.Routes)
	return out
}

// Gatewayz is /gatewayz. There are no gateways; the page is there for tools that ask for all pages.
type Gatewayz struct {
	ID       string              `json:"server_id"`
	Now      time.Time           `json:"now"`
	Outbound map[string]struct{} `json:"outbound_gateways"`
	Inbound  map[string]struct{} `json:"inbound_gateways"`
}

// Gatewayz returns what /gatewayz shows.
func (m *Monitor) Gatewayz() *Gatewayz {
	return &Gatewayz{m.src.ServerID, time.Now().UTC(), map[string]struct{}{}, map[string]struct{}{}}
}

// Leafz is /leafz. There are no leaf nodes; the page is there for tools that ask for all pages.
type Leafz struct {
	ID    string     `json:"server_id"`
	Now   time.Time  `json:"now"`
	Num   int        `json:"leafnodes"`
	Leafs []struct{} `json:"leafs"`
}

// Leafz returns what /leafz shows.
func (m *Monitor) Leafz() *Leafz {
	return &Leafz{ID: m.src.ServerID, Now: time.Now().UTC(), Leafs: []struct{}{}}
}
