package monitor

import "time"

// Statsz is how a server does, in short. It has no page: the system account asks for it, and is told
// now and then.
type Statsz struct {
	Start            time.Time      `json:"start"`
	Mem              int64          `json:"mem"`
	Cores            int            `json:"cores"`
	CPU              float64        `json:"cpu"`
	Connections      int            `json:"connections"`
	TotalConnections uint64         `json:"total_connections"`
	ActiveAccounts   int            `json:"active_accounts"`
	Subscriptions    uint32         `json:"subscriptions"`
	Sent             DataStats      `json:"sent"`
	SentToClients    DataStats      `json:"sent_to_clients"`
	Received         DataStats      `json:"received"`
	FromClients      DataStats      `json:"received_from_clients"`
	SlowConsumers    int64          `json:"slow_consumers"`
	SlowConsumerStat *ByKind        `json:"slow_consumer_stats,omitempty"`
	StaleConnections int64          `json:"stale_connections,omitempty"`
	StaleStat        *ByKind        `json:"stale_connection_stats,omitempty"`
	StalledClients   int64          `json:"stalled_clients,omitempty"`
	Routes           []RouteStat    `json:"routes,omitempty"`
	ActiveServers    int            `json:"active_servers"` // this one and those it reaches
	JetStream        *JetStreamVarz `json:"jetstream,omitempty"`
	MemLimit         int64          `json:"gomemlimit,omitempty"`
	MaxProcs         int            `json:"gomaxprocs,omitempty"`
}

// RouteStat is the connection to another server.
type RouteStat struct {
	ID       uint64    `json:"rid"`
	Name     string    `json:"name,omitempty"`
	Sent     DataStats `json:"sent"`
	Received DataStats `json:"received"`
	Pending  int       `json:"pending"`
}

// Statsz returns how this server does.
func (m *Monitor) Statsz() *Statsz {
	v := m.Varz()
	s := &Statsz{
		Start: v.Start, Mem: v.Mem, Cores: v.Cores, CPU: v.CPU, MemLimit: v.MemLimit, MaxProcs: v.MaxProcs,
		Connections: v.Connections, TotalConnections: v.TotalConnections, Subscriptions: v.Subscriptions,
		Sent: DataStats{v.OutMsgs, v.OutBytes}, SentToClients: DataStats{v.OutClientMsgs, v.OutClientBytes},
		Received: DataStats{v.InMsgs, v.InBytes}, FromClients: DataStats{v.InClientMsgs, v.InClientBytes},
		SlowConsumers: v.SlowConsumers, StaleConnections: v.StaleConnections, StaleStat: v.StaleStat,
		StalledClients: v.StalledClients, ActiveAccounts: len(m.Accstatz(AccstatzQuery{}).Accounts),
		ActiveServers: 1 + v.Remotes,
	}
	if v.SlowConsumers > 0 {
		s.SlowConsumerStat = &v.SlowConsumerStat
	}
	if m.src.Routes != nil {
		for _, r := range m.src.Routes() {
			s.Routes = append(s.Routes, RouteStat{
				ID: r.ID, Name: r.RemoteName, Pending: r.Pending,
				Sent: DataStats{r.OutMsgs, r.OutBytes}, Received: DataStats{r.InMsgs, r.InBytes},
			})
		}
	}
	if m.src.JetStream != nil {
		v.JetStream.Config.StoreDir = "" // Where it lies is nobody's business who only counts.
		s.JetStream = &v.JetStream
	}
	return s
}
