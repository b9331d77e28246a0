package monitor

import (
	"errors"
	"time"
)

// Raftz is /raftz: the Raft groups of an account that have a member on this server, by account and name.
type Raftz map[string]map[string]RaftzGroup

// RaftzGroup is one of them. How far others are only a leader knows.
type RaftzGroup struct {
	ID            string               `json:"id"`
	State         string               `json:"state"`
	Size          int                  `json:"size"`
	QuorumNeeded  int                  `json:"quorum_needed"`
	Observer      bool                 `json:"observer,omitempty"`
	Committed     uint64               `json:"committed"`
	Applied       uint64               `json:"applied"`
	CatchingUp    bool                 `json:"catching_up,omitempty"`
	Leader        string               `json:"leader,omitempty"`
	LeaderSince   *time.Time           `json:"leader_since,omitempty"` // on the leader
	EverHadLeader bool                 `json:"ever_had_leader"`
	Term          uint64               `json:"term"`
	Vote          string               `json:"voted_for,omitempty"`
	PTerm         uint64               `json:"pterm"`
	PIndex        uint64               `json:"pindex"`
	SystemAcc     bool                 `json:"system_account"`
	TrafficAcc    string               `json:"traffic_account"`
	Proposals     int                  `json:"ipq_proposal_len"`
	Entries       int                  `json:"ipq_entry_len"` // There are no such queues here,
	Responses     int                  `json:"ipq_resp_len"`  // nor this,
	Applies       int                  `json:"ipq_apply_len"` // nor this.
	WAL           RaftzLog             `json:"wal"`
	Peers         map[string]RaftzPeer `json:"peers"`
}

// RaftzLog is what there is of a group's log. All groups share their files: of one there is no size.
type RaftzLog struct {
	Msgs      uint64    `json:"messages"`
	Bytes     uint64    `json:"bytes"`
	FirstSeq  uint64    `json:"first_seq"`
	FirstTime time.Time `json:"first_ts"`
	LastSeq   uint64    `json:"last_seq"`
	LastTime  time.Time `json:"last_ts"`
	Consumers int       `json:"consumer_count"`
}

// RaftzPeer is another member of a group.
type RaftzPeer struct {
	Name                string `json:"name"`
	Known               bool   `json:"known"`
	LastReplicatedIndex uint64 `json:"last_replicated_index,omitempty"`
	LastSeen            string `json:"last_seen,omitempty"`
}

// RaftzQuery chooses what /raftz shows: the groups of an account, by default the system account's, which has that of
// the meta group; and of them the one with that name, if there is one.
type RaftzQuery struct {
	Account string `json:"account"`
	Group   string `json:"group"`
}

var (
	errNoRaft     = errors.New("no Raft nodes registered")
	errNoneChosen = errors.New("no Raft nodes returned, check supplied filters")
)

// Raftz returns what /raftz shows.
func (m *Monitor) Raftz(q RaftzQuery) (Raftz, error) {
	if m.src.JetStream == nil {
		return nil, errNoRaft
	}
	system := m.src.Config().SystemAccount
	if q.Account == "" {
		q.Account = system
	}
	if q.Account == "" {
		return nil, errNoneChosen
	}
	account := q.Account
	if account == system {
		account = "" // It has no streams.
	}
	groups := m.src.JetStream.Groups(account)
	for name, g := range groups { // order: each alone
		if q.Group != "" && name != q.Group {
			delete(groups, name)
			continue
		}
		g.SystemAcc, g.TrafficAcc = true, system
		groups[name] = g
	}
	if len(groups) == 0 {
		return Raftz{}, nil
	}
	return Raftz{q.Account: groups}, nil
}
