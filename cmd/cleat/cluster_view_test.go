package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
)

// sampleView is three servers, one bucket of three replicas and one of one.
func sampleView() *clusterView {
	return &clusterView{
		Name: "C", System: true, Meta: &metaView{Leader: "n1", Size: 3, Quorum: 2},
		Servers: []*serverView{{Name: "n1", Online: true}, {Name: "n2", Online: true}, {Name: "n3", Online: true}},
		Groups: []*groupView{
			{Account: "$G", Stream: "KV_b", Leader: "n1", Replicas: 3, Members: []*api.PeerInfo{{Name: "n2", Current: true}, {Name: "n3", Current: true}}},
			{Account: "A", Stream: "one", Leader: "n3", Replicas: 1},
		},
	}
}

// What is wrong is named once, and is critical only if something does not work.
func TestProblems(t *testing.T) {
	lose := func(v *clusterView, names ...string) {
		for _, name := range names {
			v.server(name).Online = false
			for _, g := range v.Groups {
				for _, m := range g.Members {
					if m.Name == name {
						m.Offline, m.Current = true, false
					}
				}
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*clusterView)
		want   expectations
		level  int
		texts  []string
	}{
		"well":              {func(*clusterView) {}, expectations{servers: 3}, checkOK, nil},
		"too few":           {func(*clusterView) {}, expectations{servers: 5}, checkWarning, []string{"servers that answer: 3, expected: 5"}},
		"no meta leader":    {func(v *clusterView) { v.Meta.Leader = "" }, expectations{}, checkCritical, []string{"no meta leader"}},
		"one lost":          {func(v *clusterView) { lose(v, "n2") }, expectations{}, checkWarning, []string{"server n2 does not answer, and with it 1 replica"}},
		"a majority lost":   {func(v *clusterView) { lose(v, "n2", "n3") }, expectations{}, checkCritical, []string{"server n2", "server n3", "bucket b has 1 of 3 replicas and needs 2"}},
		"no leader":         {func(v *clusterView) { v.Groups[0].Leader = "" }, expectations{}, checkCritical, []string{"bucket b has no leader"}},
		"unhealthy":         {func(v *clusterView) { v.Servers[1].Unhealthy = "disk" }, expectations{}, checkCritical, []string{"server n2 is not healthy: disk"}},
		"behind":            {func(v *clusterView) { v.Groups[0].Members[0].Lag = 12 }, expectations{lag: 10}, checkWarning, []string{"the replica on n2 is 12 log entries behind"}},
		"a little behind":   {func(v *clusterView) { v.Groups[0].Members[0].Lag = 10 }, expectations{lag: 10}, checkOK, nil},
		"not current":       {func(v *clusterView) { v.Groups[0].Members[1].Current = false }, expectations{}, checkWarning, []string{"the replica on n3 is not current"}},
		"a replica missing": {func(v *clusterView) { v.Groups[0].Members = v.Groups[0].Members[:1] }, expectations{}, checkWarning, []string{"bucket b has 2 replicas instead of 3"}},
		"removed": {func(v *clusterView) { lose(v, "n2"); v.Servers = slices.Delete(v.Servers, 1, 2) }, expectations{}, checkWarning,
			[]string{"server n2 is gone, and 1 replica"}},
		"nobody serves it": {func(v *clusterView) {
			v.Groups[1].Leader, v.Groups[1].Members = "", []*api.PeerInfo{{Name: "n9", Offline: true}}
		}, expectations{}, checkCritical, []string{"server n9 is gone", "stream one of account A has 0 of 1 replicas"}},
	} {
		v := sampleView()
		c.change(v)
		got := v.problems(c.want)
		if verdict(got) != c.level || len(got) != len(c.texts) {
			t.Errorf("%s: %d: %v", name, verdict(got), got)
			continue
		}
		for i, text := range c.texts {
			if !strings.Contains(got[i].Text, text) {
				t.Errorf("%s: %q instead of %q", name, got[i].Text, text)
			}
		}
	}
}

// A server is not removed with what only it has.
func TestLosses(t *testing.T) {
	for _, c := range []struct {
		server string
		change func(*clusterView)
		want   []string
	}{
		{"n2", func(*clusterView) {}, nil},
		{"n3", func(*clusterView) {}, []string{"stream one of account A has its only replica there"}},
		{"n2", func(v *clusterView) {
			v.Servers[2].Online, v.Groups[0].Members[1].Offline = false, true
		}, []string{"1 server would be left, and 2 are a quorum", "bucket b would have 1 of 3 replicas, and 2 are a majority"}},
		{"n3", func(v *clusterView) { // The one that is lost may go, but for what only it has.
			v.Servers[2].Online, v.Groups[0].Members[1].Offline = false, true
		}, []string{"stream one of account A has its only replica there"}},
		{"n2", func(v *clusterView) { v.Meta.Leader = "" }, []string{"no leader now"}},
	} {
		v := sampleView()
		c.change(v)
		got := v.losses(c.server)
		if len(got) != len(c.want) {
			t.Errorf("%s: %q instead of %q", c.server, got, c.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%s: %q instead of %q", c.server, got, c.want)
			}
		}
	}
}

// Leaders end up as even as the replicas allow, no group moves twice, and none to a replica that is behind.
func TestPlanBalance(t *testing.T) {
	servers := []string{"n1", "n2", "n3", "n4", "n5"}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var groups []*groupView
		leads := map[string]int{}
		for i := range 1 + rng.IntN(40) {
			order := rng.Perm(len(servers))
			if rng.IntN(2) == 0 {
				order[slices.Index(order, 0)], order[0] = order[0], 0 // Many begin on n1.
			}
			g := &groupView{Stream: fmt.Sprint("s", i), Replicas: 3, Leader: servers[order[0]]}
			for _, o := range order[1:3] {
				g.Members = append(g.Members, &api.PeerInfo{Name: servers[o], Current: rng.IntN(10) > 0})
			}
			leads[g.Leader]++
			groups = append(groups, g)
		}
		moved := map[string]bool{}
		for _, m := range planBalance(groups) {
			i := slices.IndexFunc(m.group.Members, func(p *api.PeerInfo) bool { return p.Name == m.to })
			if i < 0 || !m.group.Members[i].Current || moved[m.group.Stream] || leads[m.group.Leader]-leads[m.to] < 2 {
				t.Fatalf("seed %d: %s from %s to %s, %v", seed, m.group.Stream, m.group.Leader, m.to, leads)
			}
			moved[m.group.Stream] = true
			leads[m.group.Leader]--
			leads[m.to]++
		}
		for _, g := range groups {
			for _, m := range g.Members {
				if d := leads[g.Leader] - leads[m.Name]; !moved[g.Stream] && m.Current && d > 1 {
					t.Fatalf("seed %d: %s could still move from %s to %s: %v", seed, g.Stream, g.Leader, m.Name, leads)
				}
			}
		}
	}
}
