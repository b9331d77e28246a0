package jetstream

import (
	"crypto/rand"
	"encoding/json"
	"slices"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
	"github.com/cleatkv/cleat/internal/cluster"
)

// Advisories about who leads. Each is told by the server that knows: the new leader of its election, a
// member that has seen no leader for some time of that.

// watchEvery is how often the groups are looked at, and lostLooks how many times in a row one must have
// been seen without a leader before that is told. Elections take less.
const (
	watchEvery = time.Second
	lostLooks  = 3
)

// leadAdvisory is the body of these advisories; members that do not apply are left out.
type leadAdvisory struct {
	Type     string          `json:"type"`
	ID       string          `json:"id"`
	Time     time.Time       `json:"timestamp"`
	Account  string          `json:"account,omitempty"`
	Stream   string          `json:"stream,omitempty"`
	Leader   string          `json:"leader,omitempty"`
	Replicas []*api.PeerInfo `json:"replicas"`
	Cluster  string          `json:"cluster,omitempty"`
	Domain   string          `json:"domain,omitempty"`
}

// watcher remembers what has been told.
type watcher struct {
	svc  *Service
	meta bool // the meta group was led from here
	lost map[*cluster.Stream]int
}

// look is called every watchEvery.
func (w *watcher) look() {
	c := w.svc.cluster
	if c.Meta() == nil {
		return
	}
	lost := make(map[*cluster.Stream]int)
	for _, cs := range c.Streams() {
		if cs.Machine() == nil || cs.Leader() != 0 || cs.Gone() {
			continue
		}
		lost[cs] = w.lost[cs] + 1
		if lost[cs] == lostLooks {
			w.svc.adviseStream(cs, "QUORUM_LOST", "stream_quorum_lost", "")
		}
	}
	w.lost = lost
	leads := c.MetaLeader() == c.ServerID()
	if leads && !w.meta {
		w.svc.adviseMeta()
	}
	w.meta = leads
}

// adviseElected tells that this server's replica leads a stream from now on.
func (s *Service) adviseElected(cs *cluster.Stream) {
	s.adviseStream(cs, "LEADER_ELECTED", "stream_leader_elected", s.cluster.ServerName())
}

func (s *Service) adviseStream(cs *cluster.Stream, token, kind, leader string) {
	account := s.opts.Broker.Account(cs.Account())
	subject := "$JS.EVENT.ADVISORY.STREAM." + token + "." + cs.Name()
	if !account.Interest(subject, "") {
		return
	}
	a := &leadAdvisory{Type: advisoryType + kind, Stream: cs.Name(), Leader: leader, Domain: s.opts.Domain}
	if name := account.Name(); name != broker.GlobalAccount {
		a.Account = name
	}
	a.Replicas = s.everybody(cs.Info())
	s.tell(account, subject, a)
}

func (s *Service) adviseMeta() {
	const subject = "$JS.EVENT.ADVISORY.DOMAIN.LEADER_ELECTED"
	system := s.opts.Broker.System()
	if !system.Interest(subject, "") {
		return
	}
	s.tell(system, subject, &leadAdvisory{
		Type: advisoryType + "domain_leader_elected", Leader: s.cluster.ServerName(), Replicas: s.everybody(s.cluster.MetaInfo()),
		Cluster: s.cluster.Name(), Domain: s.opts.Domain,
	})
}

// everybody lists the members of a group, the leader among them.
func (s *Service) everybody(i cluster.GroupInfo) []*api.PeerInfo {
	all := []*api.PeerInfo{}
	if i.Leader != 0 && !slices.ContainsFunc(i.Others, func(o cluster.ReplicaInfo) bool { return o.Server == i.Leader }) {
		all = append(all, &api.PeerInfo{Name: s.cluster.PeerName(i.Leader), Current: true, Peer: PeerID(i.Leader)})
	}
	return append(all, peerInfos(i.Others)...)
}

func (s *Service) tell(account *broker.Account, subject string, a *leadAdvisory) {
	a.ID, a.Time = rand.Text(), time.Now().UTC()
	body, err := json.Marshal(a)
	if err != nil {
		s.log.Error("advisory: " + err.Error())
		return
	}
	account.Publish(nil, subject, "", nil, body)
}
