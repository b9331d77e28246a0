package jetstream

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
)

// clusterInfo tells who leads a stream and, where that is here, how far the others are.
func (s *Service) clusterInfo(cs *cluster.Stream) *api.ClusterInfo {
	if !s.opts.Clustered {
		return &api.ClusterInfo{Leader: cs.LeaderName()}
	}
	i := cs.Info()
	info := &api.ClusterInfo{Name: s.cluster.Name(), RaftGroup: groupName("S", cs.Config(), i.Group), Leader: cs.LeaderName()}
	if !i.Since.IsZero() {
		at := i.Since.UTC()
		info.LeaderSince = &at
	}
	info.Replicas = peerInfos(i.Others)
	return info
}

func peerInfos(others []cluster.ReplicaInfo) []*api.PeerInfo {
	var all []*api.PeerInfo
	for _, r := range others {
		all = append(all, &api.PeerInfo{
			Name: r.Name, Current: r.Current, Offline: r.Offline, Active: r.Silent, Lag: r.Lag, Peer: PeerID(r.Server),
		})
	}
	return all
}

// consumerCluster is the cluster block of a consumer: a replicated one shares the stream's group, any
// other lives here alone.
func (s *Service) consumerCluster(f *feed) *api.ClusterInfo {
	if !s.opts.Clustered {
		return nil
	}
	cs := f.set.st
	if !f.logged {
		at := time.Unix(0, f.created).UTC()
		return &api.ClusterInfo{Name: s.cluster.Name(), Leader: s.cluster.ServerName(), LeaderSince: &at}
	}
	info := s.clusterInfo(cs)
	info.RaftGroup = groupName("C", cs.Config(), cs.Assignment().Group)
	return info
}

// groupName is how operators see a group: what it is for, its size, its storage, and its number.
func groupName(kind string, cfg *api.StreamConfig, group uint64) string {
	storage := "F"
	if cfg.Storage == api.MemoryStorage {
		storage = "M"
	}
	return fmt.Sprintf("%s-R%d%s-%s", kind, max(1, cfg.Replicas), storage, strconv.FormatUint(group, 36))
}

// GroupName is how operators see a stream's group.
func GroupName(cs *cluster.Stream) string { return groupName("S", cs.Config(), cs.Assignment().Group) }

// PeerID is a short name for a server, the same everywhere.
func PeerID(server uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], server*0x9e3779b97f4a7c15) // Spread over all digits.
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	for i := range b {
		b[i] = digits[int(b[i])%len(digits)]
	}
	return string(b[:])
}

// Requests for what is to be told of a stream: as it is, and once it works under the newest
// configuration, which is for servers alone.
const (
	infoSubject    = apiPrefix + "STREAM.INFO."
	settledSubject = apiPrefix + "STREAM.SETTLED."
)

// inform gives done what the stream's leader answers to one of these; if there is none, what is known
// here.
func (c *call) inform(cs *cluster.Stream, subject string, within time.Duration, done func(*api.StreamInfo)) {
	here := func() { c.later(func() { c.informHere(cs, done) }) }
	if c.svc.elsewhere == nil {
		here()
		return
	}
	e := &errand{
		svc: c.svc, cs: cs, subject: subject + cs.Name(), reads: true, until: time.Now().Add(within),
		here: func() bool { return leadsHere(cs) }, run: here, gone: here, failed: here,
	}
	e.answered = func(o outcome) {
		var r api.StreamInfoResponse
		if o.refused || api.DecodeLenient(o.body, &r) != nil || r.StreamInfo == nil {
			here()
			return
		}
		// The configuration is the one that was decided; the leader may be about to hear of it.
		r.Config, r.Created = cs.Config().Stamped(c.svc.opts.Version), time.Unix(0, cs.Assignment().Created).UTC()
		done(r.StreamInfo)
	}
	e.start()
}

func (c *call) informHere(cs *cluster.Stream, done func(*api.StreamInfo)) {
	info := c.describe(cs)
	if c.svc.opts.Clustered {
		info.Cluster = c.svc.clusterInfo(cs)
	}
	c.countFar(cs, func(n int) {
		info.State.Consumers += n
		done(info)
	})
}

// countFar counts the consumers of a stream that other servers deliver for.
func (c *call) countFar(cs *cluster.Stream, done func(int)) {
	c.gather(cs, apiPrefix+"CONSUMER.NAMES."+cs.Name(), nil, func(all []outcome) {
		n := 0
		for _, o := range all {
			var r api.ConsumerNamesResponse
			if api.DecodeLenient(o.body, &r) == nil {
				n += len(r.Consumers)
			}
		}
		done(n)
	})
}
