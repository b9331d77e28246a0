package cluster

import (
	"testing"

	"github.com/cleatkv/cleat/internal/api"
)

// A leader tells how far the others are. Another member tells of the leader, and of those that it does not hear of
// no more than their names; of itself nobody tells, unless there is no leader.
func TestInfoTellsWhatIsKnown(t *testing.T) {
	c := newTrio(t, 3)
	create(t, c.servers[0], bucket("b", 3, api.FileStorage))
	c.settled("KV_b", 3)
	told := func(s *Cluster, info GroupInfo, leads bool) bool {
		if info.Leader == 0 || len(info.Others) != 2 {
			return false
		}
		for _, o := range info.Others {
			if o.Server == s.id.server || o.Offline || o.Current != (leads || o.Server == info.Leader) {
				return false
			}
		}
		return true
	}
	for _, s := range c.servers {
		st := waitStream(t, s, "KV_b")
		eventually(t, "the stream's members are told", func() bool { return told(s, st.Info(), st.IsLeader()) })
		eventually(t, "the meta group's members are told", func() bool { return told(s, s.MetaInfo(), s.metaGroup.leads()) })
	}
	c.servers[1].Close()
	c.servers[2].Close()
	st := c.servers[0].Stream("$G", "KV_b")
	eventually(t, "nobody leads", func() bool {
		info := st.Info()
		current := 0
		for _, o := range info.Others {
			if o.Current {
				current++
			}
		}
		return info.Leader == 0 && len(info.Others) == 3 && current == 0
	})
}
