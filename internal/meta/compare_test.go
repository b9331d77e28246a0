package meta

import (
	"encoding/hex"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

func digest(t *testing.T, f storage.Frozen) string {
	t.Helper()
	d, err := storage.DigestOf(f, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(d.Sum[:])
}

// What a Compare command has the machine hold on to is the state behind its log entry, whatever comes later, and it
// changes nothing.
func TestCompareHoldsTheState(t *testing.T) {
	store := memory.NewStore()
	m := open(t, store, "m")
	do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: config("S", "s.>"), Servers: []uint64{7}})
	before := digest(t, m.engine.Freeze())
	do(t, m, KindCompare, &Compare{})
	at := m.Applied().Index
	do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: config("T", "t.>"), Servers: []uint64{7}})
	held := m.TakeFrozen()
	defer held.Release()
	if got := digest(t, held); got != before || held.Applied().Index != at || held.Stamp != 1000 {
		t.Errorf("it holds %s of entry %d, asked for at %d; want %s of %d", got, held.Applied().Index, held.Stamp, before, at)
	}
	if m.TakeFrozen().Frozen != nil {
		t.Error("it gives the state twice")
	}
}

// Servers that run different versions compare what they hold only if Format says that they may. So if this fails,
// and older servers leave other records after the same commands, raise Format with the digest.
func TestFormatNamesTheRecords(t *testing.T) {
	const want = "2 871045624b4c7e5053694c7124f896f4465c6afc144e4a21b7b57c82e8e115dc"
	m := open(t, memory.NewStore(), "m")
	for i, name := range []string{"n1", "n2", "n3", "n4"} {
		do(t, m, KindJoinServer, &JoinServer{Server: Server{ID: uint64(i + 7), Name: name, Route: name + ":6222", Tags: []string{"a"}}})
	}
	create := &CreateStream{Account: "A", Config: config("S", "s.>"), Servers: []uint64{7, 8, 9}}
	create.Config.Replicas = 3
	s := do(t, m, KindCreateStream, create).Stream
	update := &UpdateStream{Account: "A", Config: s.Config}
	update.Config.Description = "changed"
	do(t, m, KindUpdateStream, update)
	do(t, m, KindReplicaLost, &ReplicaLost{Account: "A", Name: "S", Group: s.Group, Replica: s.Replicas[1].ID})
	plan := m.Stream(Key{"A", "S"}).Plan
	do(t, m, KindPlanDone, &PlanDone{Account: "A", Name: "S", Group: s.Group, Epoch: plan.Epoch})
	do(t, m, KindChangeReplicas, &ChangeReplicas{Account: "A", Name: "S", Group: s.Group, Add: []uint64{10}, Remove: []uint64{s.Replicas[0].ID}})
	do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: config("T", "t.>"), Servers: []uint64{7}})
	do(t, m, KindDeleteStream, &DeleteStream{Account: "A", Name: "T"})
	do(t, m, KindRemoveServer, &RemoveServer{ID: 8})
	if r := m.Stream(Key{"A", "S"}); r.Plan == nil || r.Config.Description != "changed" || r.Config.Storage != api.FileStorage {
		t.Fatalf("%+v", r)
	}
	if got := string(rune('0'+Format)) + " " + digest(t, m.engine.Freeze()); got != want {
		t.Errorf("the records of format %s, want %s", got, want)
	}
}
