package meta

import (
	"testing"

	"github.com/cleatkv/cleat/internal/storage/memory"
)

// A group that begins anew has the one replica that was chosen, whatever was planned, and once however often that
// is told. What was chosen in another epoch does not count.
func TestReform(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	c := config("S", "s.>")
	c.Replicas = 4
	s := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Servers: []uint64{1, 2, 3, 4}}).Stream
	early := &Reform{Account: "A", Name: "S", Group: s.Group, Epoch: s.Epoch, Source: s.Replicas[0].ID}
	s = do(t, m, KindReplicaLost, &ReplicaLost{Account: "A", Name: "S", Group: s.Group, Replica: s.Replicas[1].ID}).Stream
	if now := do(t, m, KindReform, early).Stream; now.Epoch != s.Epoch || len(now.Members()) != 5 {
		t.Fatalf("what was chosen before the plan counted: %+v", now)
	}
	source := s.Replicas[2]
	if r := do(t, m, KindReform, &Reform{Account: "A", Name: "S", Group: s.Group, Epoch: s.Epoch, Source: 99}); r.Err == nil {
		t.Fatal("it begins anew from a replica that there is not")
	}
	if r := do(t, m, KindReform, &Reform{Account: "A", Name: "S", Group: s.Group + 1, Epoch: s.Epoch, Source: source.ID}); r.Err == nil {
		t.Fatal("another group of the name begins anew")
	}
	for _, id := range []uint64{source.ID, s.Replicas[3].ID} {
		now := do(t, m, KindReform, &Reform{Account: "A", Name: "S", Group: s.Group, Epoch: s.Epoch, Source: id}).Stream
		if members := now.Members(); len(members) != 1 || members[0] != source || now.Plan != nil || now.Lost != nil || now.Reformed != s.Epoch+1 || now.Epoch != s.Epoch+1 {
			t.Fatalf("%+v", now)
		}
	}
}
