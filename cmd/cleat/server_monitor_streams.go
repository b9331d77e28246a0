package main

import (
	"os"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/jetstream"
	"github.com/cleatkv/cleat/internal/monitor"
	"github.com/cleatkv/cleat/internal/replica"
)

// streamFigures shows streams and consumers to the monitor.
type streamFigures struct {
	cluster *cluster.Cluster
	streams *jetstream.Service
	cfg     func() *config.Config
}

func (f streamFigures) Usage() monitor.Usage {
	c := f.cfg()
	u := monitor.Usage{MaxMemory: c.JetStream.MaxMemory, MaxStorage: c.JetStream.MaxFile}
	u.APITotal, u.APIErrors = f.streams.Requests()
	for _, a := range c.Accounts {
		if a.JetStream != nil {
			u.Accounts++
		}
	}
	for _, s := range f.cluster.Streams() {
		m := s.Machine()
		if m == nil {
			continue
		}
		u.HAAssets++
		bytes, reserved := m.State().Bytes, uint64(max(s.Config().MaxBytes, 0))
		if s.Config().Storage == api.MemoryStorage {
			u.Memory += bytes
			u.ReservedMemory += reserved
		} else {
			u.Storage += bytes
			u.ReservedStorage += reserved
		}
	}
	f.physical(&u)
	return u
}

// physical puts what the machine has where the configuration sets no limit, for tools that tell how
// much of it is in use.
func (f streamFigures) physical(u *monitor.Usage) {
	if room, ok := f.cluster.Room(); ok && u.MaxStorage < 0 {
		u.MaxStorage = int64(u.Storage) + room
	}
	if all := memoryBytes(os.DirFS("/")); all > 0 && u.MaxMemory < 0 {
		u.MaxMemory = all
	}
}

func (f streamFigures) Requests(account string) (total, errors uint64) {
	return f.streams.RequestsOf(account)
}

// Meta is nil outside of a cluster, as tools expect.
func (f streamFigures) Meta() *monitor.MetaCluster {
	if !f.cluster.Clustered() {
		return nil
	}
	m := f.cluster.Meta()
	if m == nil { // This server does not belong to the cluster yet.
		return &monitor.MetaCluster{Name: f.cluster.Name()}
	}
	size := len(m.Servers())
	out := &monitor.MetaCluster{
		Name: f.cluster.Name(), Leader: f.cluster.PeerName(f.cluster.MetaLeader()),
		Size: size, QuorumNeeded: size/2 + 1,
	}
	out.Replicas, out.Peer = f.streams.MetaPeers()
	return out
}

// MetaDigest implements monitor.JetStream.
func (f streamFigures) MetaDigest() monitor.ReplicaDigest {
	return replicaDigest(f.cluster.MetaDigest())
}

func replicaDigest(d cluster.Digest, err error) monitor.ReplicaDigest {
	if err != nil {
		return monitor.ReplicaDigest{Error: err.Error()}
	}
	return monitor.ReplicaDigest{Applied: d.Applied, Term: d.Term, SHA256: d.Sum}
}

func (f streamFigures) Lost() []monitor.LostStream {
	m := f.cluster.Meta()
	if m == nil || !f.cluster.Clustered() {
		return nil
	}
	var out []monitor.LostStream
	for _, s := range m.Streams("") {
		lost := monitor.LostStream{Account: s.Account, Name: s.Config.Name, Replicas: max(1, s.Config.Replicas)}
		for _, r := range s.Members() {
			if r.Server == f.cluster.ServerID() || f.cluster.Reachable(r.Server) {
				lost.Servers = nil
				break
			}
			lost.Servers = append(lost.Servers, f.cluster.PeerName(r.Server))
		}
		if lost.Servers != nil {
			out = append(out, lost)
		}
	}
	return out
}

func (f streamFigures) Streams() []monitor.Stream {
	var out []monitor.Stream
	for _, s := range f.cluster.Streams() {
		m := s.Machine()
		if m == nil {
			continue
		}
		info := api.StreamInfo{
			Config: *s.Config(), Created: time.Unix(0, s.Assignment().Created).UTC(), State: m.State(),
			Cluster: f.streams.Cluster(s),
		}
		info.State.Consumers = f.streams.NumConsumers(s)
		out = append(out, monitor.Stream{
			Account: s.Account(), Info: info, Leader: s.IsLeader(), RaftGroup: info.Cluster.RaftGroup,
			NumConsumers: info.State.Consumers,
			Consumers:    func() []api.ConsumerInfo { return f.streams.Consumers(s) },
			Digest:       func() monitor.ReplicaDigest { return replicaDigest(s.Digest()) },
		})
	}
	return out
}

// metaGroupName is the meta group's, as tools know it.
const metaGroupName = "_meta_"

// Groups implements monitor.JetStream.
func (f streamFigures) Groups(account string) map[string]monitor.RaftzGroup {
	all := make(map[string]monitor.RaftzGroup)
	for _, s := range f.cluster.RaftStates(account) {
		name := metaGroupName
		if s.Stream != nil {
			name = jetstream.GroupName(s.Stream)
		}
		all[name] = f.raftGroup(&s)
	}
	return all
}

func (f streamFigures) raftGroup(s *cluster.RaftState) monitor.RaftzGroup {
	id := func(server uint64) string {
		if server == 0 {
			return ""
		}
		return jetstream.PeerID(server)
	}
	voters := len(s.Status.Conf.GetVoters())
	g := monitor.RaftzGroup{
		ID: id(f.cluster.ServerID()), State: raftStateName(s), Size: voters, QuorumNeeded: voters/2 + 1,
		Observer: s.Learner, CatchingUp: s.Lacking, Committed: s.Status.Committed, Applied: s.Status.Applied,
		Leader: id(s.Leader), EverHadLeader: s.Leader != 0 || s.Status.Committed > replica.GenesisIndex,
		Term: s.Status.Term, Vote: id(s.Vote), PTerm: s.LastTerm, PIndex: s.Log.Last, Proposals: s.Proposals,
		WAL:   monitor.RaftzLog{Msgs: s.Log.Last + 1 - s.Log.First, FirstSeq: s.Log.First, LastSeq: s.Log.Last},
		Peers: make(map[string]monitor.RaftzPeer),
	}
	if s.Status.Leading && !s.Since.IsZero() {
		at := s.Since.UTC()
		g.LeaderSince = &at
	}
	for _, o := range s.Others {
		p := monitor.RaftzPeer{Name: f.cluster.PeerName(o.Server), Known: o.Member, LastReplicatedIndex: o.Match}
		if o.Watched {
			p.LastSeen = o.Silent.String()
		}
		g.Peers[id(o.Server)] = p
	}
	return g
}

func raftStateName(s *cluster.RaftState) string {
	switch {
	case s.Status.Stopped != nil:
		return "CLOSED"
	case s.Status.Leading:
		return "LEADER"
	case s.Status.Leader == 0 && !s.Learner && !s.Lacking:
		return "CANDIDATE"
	}
	return "FOLLOWER"
}
