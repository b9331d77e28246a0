package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
	"github.com/cleatkv/cleat/internal/config"
	"github.com/cleatkv/cleat/internal/jetstream"
	"github.com/cleatkv/cleat/internal/monitor"
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
	return u
}

// Meta is nil outside of a cluster, as tools expect.
func (f streamFigures) Meta() *monitor.MetaCluster {
	if !f.cluster.Clustered() {
		return nil
	}
	out := &monitor.MetaCluster{
		Name: f.cfg().Cluster.Name, Peer: serverText(f.cluster.ServerID()),
		Leader: f.cluster.PeerName(f.cluster.MetaLeader()),
	}
	m := f.cluster.Meta()
	if m == nil {
		return out
	}
	up := make(map[uint64]bool)
	for _, id := range f.cluster.PeerIDs() {
		up[id] = true
	}
	servers := m.Servers()
	out.Size, out.QuorumNeeded = len(servers), len(servers)/2+1
	for _, s := range servers {
		if s.ID != f.cluster.MetaLeader() {
			here := s.ID == f.cluster.ServerID() || up[s.ID]
			out.Replicas = append(out.Replicas, &api.PeerInfo{Name: s.Name, Current: here, Offline: !here, Peer: serverText(s.ID)})
		}
	}
	return out
}

// serverText is a server's id as monitoring shows it.
func serverText(id uint64) string { return fmt.Sprintf("%016x", id) }

func (f streamFigures) Streams() []monitor.Stream {
	var out []monitor.Stream
	for _, s := range f.cluster.Streams() {
		m := s.Machine()
		if m == nil {
			continue
		}
		group := strconv.FormatUint(s.Assignment().Group, 10)
		info := api.StreamInfo{
			Config: *s.Config(), Created: time.Unix(0, s.Assignment().Created).UTC(), State: m.State(),
			Cluster: &api.ClusterInfo{Name: f.cfg().Cluster.Name, RaftGroup: group, Leader: s.LeaderName()},
		}
		info.State.Consumers = f.streams.NumConsumers(s)
		out = append(out, monitor.Stream{
			Account: s.Account(), Info: info, Leader: s.IsLeader(), RaftGroup: group,
			NumConsumers: info.State.Consumers,
			Consumers:    func() []api.ConsumerInfo { return f.streams.Consumers(s) },
		})
	}
	return out
}
