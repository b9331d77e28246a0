package jetstream

import (
	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/cluster"
)

// Requests counts the API requests of all accounts, and those answered with an error.
func (s *Service) Requests() (total, errors uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range s.accounts { // order: a sum
		total += a.total.Load()
		errors += a.errors.Load()
	}
	return total, errors
}

// RequestsOf counts the requests of one account.
func (s *Service) RequestsOf(account string) (total, errors uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a := s.accounts[account]
	if a == nil {
		return 0, 0
	}
	return a.total.Load(), a.errors.Load()
}

// Consumers describes the consumers of a stream that this server runs, in order of name.
func (s *Service) Consumers(cs *cluster.Stream) []api.ConsumerInfo {
	h := s.of(cs)
	if h == nil {
		return nil
	}
	var all []api.ConsumerInfo
	for _, p := range h.parts {
		if set, ok := p.(*consumerSet); ok {
			for _, f := range set.list() {
				all = append(all, *f.info())
			}
		}
	}
	return all
}

// NumConsumers counts them.
func (s *Service) NumConsumers(cs *cluster.Stream) int {
	if h := s.of(cs); h != nil {
		return h.consumers()
	}
	return 0
}

// Cluster tells who leads a stream and how far the others are.
func (s *Service) Cluster(cs *cluster.Stream) *api.ClusterInfo { return s.clusterInfo(cs) }

// MetaPeers are the members of the meta group other than its leader, and the leader's short name, or "".
func (s *Service) MetaPeers() (others []*api.PeerInfo, leader string) {
	i := s.cluster.MetaInfo()
	if i.Leader != 0 {
		leader = PeerID(i.Leader)
	}
	return peerInfos(i.Others), leader
}
