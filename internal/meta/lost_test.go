package meta

import (
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

// A replica that lost what it held makes way for one with another id on the same server, once however
// often that is told, and whatever else is planned meanwhile.
func TestReplicaLostIsReplacedOnce(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	c := config("S", "s.>")
	c.Replicas = 3
	s := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Servers: []uint64{1, 2, 3}}).Stream
	was := s.Replicas[1]
	lost := &ReplicaLost{Account: "A", Name: "S", Group: s.Group, Replica: was.ID}
	for range 2 {
		s = do(t, m, KindReplicaLost, lost).Stream
	}
	now, _ := s.On(2)
	if now.ID == was.ID || len(s.Members()) != 4 || s.Plan == nil || !slices.Equal(s.Plan.Remove, []uint64{was.ID}) {
		t.Fatalf("%+v, plan %+v", s, s.Plan)
	}
	// The one that was to come is lost as well.
	s = do(t, m, KindReplicaLost, &ReplicaLost{Account: "A", Name: "S", Group: s.Group, Replica: now.ID}).Stream
	third, _ := s.On(2)
	if third.ID == now.ID || third.ID == was.ID || len(s.Members()) != 4 {
		t.Fatalf("%+v, plan %+v", s, s.Plan)
	}
	// Another number of replicas: the lost one does not count, and goes in any case.
	for _, n := range []int{5, 3, 1} {
		c.Replicas = n
		r := do(t, m, KindUpdateStream, &UpdateStream{Account: "A", Config: c, Servers: []uint64{4, 5}, Keep: s.Replicas[0].ID})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		s = r.Stream
		if all := servers(s); len(all) != n || len(slices.Compact(all)) != n || !slices.Contains(s.Plan.Remove, was.ID) {
			t.Fatalf("to %d: %v, plan %+v", n, all, s.Plan)
		}
	}
	s = do(t, m, KindPlanDone, &PlanDone{Account: "A", Name: "S", Group: s.Group, Epoch: s.Plan.Epoch}).Stream
	if s.Plan != nil || len(s.Replicas) != 1 || len(s.Lost) != 0 {
		t.Fatalf("%+v", s)
	}
	// The last one has nobody to have its data from.
	if r := do(t, m, KindReplicaLost, &ReplicaLost{Account: "A", Name: "S", Group: s.Group, Replica: s.Replicas[0].ID}); r.Err == nil {
		t.Fatalf("%+v", r.Stream)
	}
}

// A stream in memory that lost a majority begins anew, in another group: under the old ids it could elect
// leaders who know nothing. One in files never does.
func TestMemoryStreamBeginsAnewWithoutMajority(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	for _, storage := range []api.StorageKind{api.MemoryStorage, api.FileStorage} {
		c := config(storage.String(), storage.String()+".>")
		c.Replicas, c.Storage = 3, storage
		was := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Servers: []uint64{1, 2, 3}}).Stream
		s := was
		for _, r := range was.Replicas[:2] {
			s = do(t, m, KindReplicaLost, &ReplicaLost{Account: "A", Name: c.Name, Group: was.Group, Replica: r.ID}).Stream
		}
		switch storage {
		case api.MemoryStorage:
			if s.Group == was.Group || s.Plan != nil || len(s.Replicas) != 3 || len(s.Genesis) != 3 || !slices.Equal(servers(s), []uint64{1, 2, 3}) {
				t.Errorf("%+v", s)
			}
			for _, r := range s.Replicas {
				if slices.ContainsFunc(was.Replicas, func(old Replica) bool { return old.ID == r.ID }) {
					t.Errorf("id %d is used again", r.ID)
				}
			}
		default:
			if s.Group != was.Group || s.Plan == nil || len(s.Plan.Add) != 2 {
				t.Errorf("%+v, plan %+v", s, s.Plan)
			}
		}
	}
}

// A server that lost its seat gets another one, once however often it asks, and stays who it is otherwise.
func TestLostSeatIsReplacedOnce(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	server := Server{ID: 7, Name: "n", Route: "r"}
	was := do(t, m, KindJoinServer, &JoinServer{Server: server}).Server.Member
	now := do(t, m, KindJoinServer, &JoinServer{Server: server, Lost: was}).Server.Member
	if now == was || now == 0 {
		t.Fatalf("member %d after %d", now, was)
	}
	for _, lost := range []uint64{was, 0} {
		if again := do(t, m, KindJoinServer, &JoinServer{Server: server, Lost: lost}).Server.Member; again != now {
			t.Errorf("asked again: member %d, was %d", again, now)
		}
	}
	if s := m.Server(7); s.Member != now || s.Removed || len(m.AllServers()) != 1 {
		t.Errorf("%+v", s)
	}
}
