package meta

import (
	"bytes"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

func open(t *testing.T, store storage.Store, name string) *Machine {
	t.Helper()
	e, err := store.Open(name, storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(e, replica.Entry{Index: 10, Term: 1, Conf: []byte("conf")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// do applies one command as a log entry of its own.
func do(t *testing.T, m *Machine, kind Kind, command any) *Result {
	t.Helper()
	at := m.Applied()
	at.Index++
	results, err := m.Apply(at, 1000, [][]byte{Encode(kind, command)})
	if err != nil {
		t.Fatal(err)
	}
	return results[0].(*Result)
}

func config(name string, subjects ...string) api.StreamConfig {
	return api.StreamConfig{Name: name, Subjects: subjects, Replicas: 1, MaxBytes: -1}
}

func TestStreamsAreCreatedOnce(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	create := &CreateStream{Account: "A", Config: config("S", "s.>"), Servers: []uint64{7}}
	first := do(t, m, KindCreateStream, create)
	if first.Err != nil || !first.Created || first.Stream.Group == 0 || first.Stream.Replicas[0].Server != 7 {
		t.Fatalf("%+v", first)
	}
	again := do(t, m, KindCreateStream, create)
	if again.Err != nil || again.Created || again.Stream.Group != first.Stream.Group {
		t.Fatalf("%+v", again)
	}
	other := *create
	other.Config.Description = "different"
	if r := do(t, m, KindCreateStream, &other); r.Err == nil || r.Err.ErrCode != 10058 {
		t.Fatalf("%+v", r)
	}
	overlap := &CreateStream{Account: "A", Config: config("T", "s.x"), Servers: []uint64{7}}
	if r := do(t, m, KindCreateStream, overlap); r.Err == nil || r.Err.ErrCode != 10065 {
		t.Fatalf("%+v", r)
	}
	overlap.Account = "B"
	elsewhere := do(t, m, KindCreateStream, overlap)
	if elsewhere.Err != nil || elsewhere.Stream.Group <= first.Stream.Group {
		t.Fatalf("%+v", elsewhere)
	}
}

func TestIDsAreNeverIssuedAgain(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	seen := map[uint64]bool{MetaGroup: true}
	for range 10 {
		s := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: config("S", "s.>"), Servers: []uint64{7, 8, 9}}).Stream
		for _, id := range []uint64{s.Group, s.Replicas[0].ID, s.Replicas[1].ID, s.Replicas[2].ID} {
			if seen[id] {
				t.Fatalf("id %d was issued before", id)
			}
			seen[id] = true
		}
		if r := do(t, m, KindDeleteStream, &DeleteStream{Account: "A", Name: "S"}); r.Err != nil || r.Stream.Group != s.Group {
			t.Fatalf("%+v", r)
		}
	}
}

func TestUpdateRaisesTheRevision(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	if r := do(t, m, KindUpdateStream, &UpdateStream{Account: "A", Config: config("S", "s.>")}); r.Err == nil || r.Err.ErrCode != 10059 {
		t.Fatalf("%+v", r)
	}
	do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: config("S", "s.>"), Servers: []uint64{7}})
	c := config("S", "s.>")
	c.Description = "new"
	r := do(t, m, KindUpdateStream, &UpdateStream{Account: "A", Config: c})
	if r.Err != nil || r.Stream.Revision != 2 || r.Stream.Config.Description != "new" {
		t.Fatalf("%+v", r)
	}
	if r := do(t, m, KindUpdateStream, &UpdateStream{Account: "A", Config: c}); r.Err != nil || r.Stream.Revision != 2 {
		t.Fatalf("an equal configuration raised the revision: %+v", r)
	}
}

func TestAccountLimits(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	sized := func(name string, bytes int64, l Limits) *Result {
		c := config(name, name+".>")
		c.MaxBytes = bytes
		return do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Limits: l, Servers: []uint64{7}})
	}
	if r := sized("A", 60, Limits{StoreBytes: 100}); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := sized("B", 60, Limits{StoreBytes: 100}); r.Err == nil || r.Err.ErrCode != 10047 {
		t.Fatalf("%+v", r)
	}
	if r := sized("B", 10, Limits{Streams: 1}); r.Err == nil || r.Err.ErrCode != 10027 {
		t.Fatalf("%+v", r)
	}
	if r := sized("B", -1, Limits{BytesNeeded: true}); r.Err == nil || r.Err.ErrCode != 10113 {
		t.Fatalf("%+v", r)
	}
	if r := sized("B", 11, Limits{StreamStore: 10}); r.Err == nil || r.Err.ErrCode != 10122 {
		t.Fatalf("%+v", r)
	}
}

func TestSnapshotCarriesEverything(t *testing.T) {
	store := memory.NewStore()
	a, b := open(t, store, "a"), open(t, store, "b")
	s := do(t, a, KindCreateStream, &CreateStream{Account: "A", Config: config("S", "s.>"), Servers: []uint64{7}}).Stream
	do(t, b, KindCreateStream, &CreateStream{Account: "A", Config: config("GONE", "g.>"), Servers: []uint64{7}})
	b.TakeChanges()
	var buf bytes.Buffer
	at, err := a.WriteSnapshot(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.InstallSnapshot(&buf); err != nil {
		t.Fatal(err)
	}
	if b.Applied().Index != at.Index || b.Stream(Key{"A", "S"}).Group != s.Group || b.Stream(Key{"A", "GONE"}) != nil {
		t.Fatalf("position %d, streams %v", b.Applied().Index, b.Streams(""))
	}
	if k := b.TakeChanges(); len(k) != 2 {
		t.Fatalf("changes %v", k)
	}
	if next := do(t, b, KindCreateStream, &CreateStream{Account: "B", Config: config("S", "s.>"), Servers: []uint64{7}}).Stream; next.Group <= s.Replicas[0].ID {
		t.Fatalf("id %d was issued before", next.Group)
	}
}

func TestOriginsFormNoCycle(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	create := func(name string, origins ...string) *Result {
		c := config(name)
		for _, o := range origins {
			c.Sources = append(c.Sources, &api.StreamSource{Name: o})
		}
		return do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Servers: []uint64{7}})
	}
	for _, step := range []struct {
		name    string
		origins []string
		refused bool
	}{
		{"O", nil, false}, {"X", []string{"O"}, false}, {"Y", []string{"O"}, false},
		{"XY", []string{"X", "Y"}, false}, {"XO", []string{"X", "O"}, false}, {"OX", []string{"O", "X"}, true},
		{"SELF", []string{"SELF"}, true}, {"C", []string{"D"}, false}, {"D", []string{"C"}, true},
		{"E", []string{"C"}, false}, {"D", []string{"E"}, true}, {"TWICE", []string{"O", "O"}, false},
	} {
		if r := create(step.name, step.origins...); (r.Err != nil) != step.refused {
			t.Errorf("%+v: %v", step, r.Err)
		}
	}
}
