package meta

import (
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

// One server goes on alone: with its replica of what it has, an empty one of what was in memory, and the names
// of what is lost. The others are removed, and what the cluster was is remembered.
func TestRecoverLeavesOneServer(t *testing.T) {
	store := memory.NewStore()
	m := open(t, store, "m")
	for id := range uint64(3) {
		do(t, m, KindJoinServer, &JoinServer{Server: Server{ID: id + 1, Name: string('a' + rune(id))}})
	}
	var groups []uint64
	for name, servers := range map[string][]uint64{"kept": {1, 2, 3}, "not-here": {1, 2}, "no-data": {2, 3}, "memory": {1, 2, 3}} { // order: names, not ids, are looked at
		c := config(name, name+".>")
		c.Replicas = len(servers)
		if name == "memory" {
			c.Storage = api.MemoryStorage
		}
		s := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Servers: servers}).Stream
		do(t, m, KindReplicaLost, &ReplicaLost{Account: "A", Name: name, Group: s.Group, Replica: s.Replicas[0].ID})
		if name == "kept" {
			groups = append(groups, s.Group)
		}
	}
	was, issued := m.Stream(Key{"A", "memory"}), m.Issued()
	keptWas, _ := m.Stream(Key{"A", "kept"}).On(3)
	m.TakeChanges()
	for range 2 { // A crash, and once more: nothing is changed by that but ids.
		if r := do(t, m, KindRecover, &Recover{Cluster: 77, Server: 3, Groups: groups}); r.Err != nil {
			t.Fatal(r.Err)
		}
		if len(m.TakeChanges()) != 4 {
			t.Error("not all streams have changed")
		}
		if all := m.Servers(); len(all) != 1 || all[0].ID != 3 || len(m.AllServers()) != 3 {
			t.Fatalf("servers %v", all)
		}
		kept := m.Stream(Key{"A", "kept"})
		if !slices.Equal(kept.Replicas, []Replica{keptWas}) || kept.Plan != nil || kept.Founded(keptWas.ID) || kept.GivenUp || kept.Config.Replicas != 3 || len(kept.Lost) > 0 {
			t.Errorf("kept: %+v", kept)
		}
		for _, name := range []string{"not-here", "no-data"} {
			if s := m.Stream(Key{"A", name}); !s.GivenUp || s.Plan != nil {
				t.Errorf("%s: %+v", name, s)
			}
		}
		s := m.Stream(Key{"A", "memory"})
		if s.Group == was.Group || len(s.Replicas) != 1 || s.Replicas[0].Server != 3 || !s.Founded(s.Replicas[0].ID) || s.Replicas[0].ID <= issued {
			t.Errorf("memory: %+v", s)
		}
	}
	if r := do(t, m, KindRecover, &Recover{Cluster: 77, Server: 1}); r.Err == nil {
		t.Error("a server that was removed goes on alone")
	}
	again, err := New(m.engine, m.Applied(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]*Machine{"at once": m, "loaded": again} {
		if f, ok := m.Former(77); !ok || f.Server != "c" || f.Time == 0 || !slices.Equal(m.FormerIDs(), []uint64{77}) {
			t.Errorf("%s: former %+v %v", what, f, m.FormerIDs())
		}
	}
}
