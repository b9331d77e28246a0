package meta

import (
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/storage/memory"
)

// servers lists where the replicas will be once the plan, if there is one, is done.
func servers(s *Stream) (all []uint64) {
	for _, r := range s.Members() {
		if s.Plan == nil || !slices.Contains(s.Plan.Remove, r.ID) {
			all = append(all, r.Server)
		}
	}
	slices.Sort(all)
	return all
}

// The number of replicas is changed again and again, before and after what was planned is done. The
// leader always stays, nobody counts twice, and the plan leads to the last number that was asked for.
func TestScalePlansReplaceEachOther(t *testing.T) {
	for _, doneEach := range []bool{true, false} {
		m := open(t, memory.NewStore(), "m")
		r := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: config("S", "s.>"), Servers: []uint64{2}})
		leader := r.Stream.Replicas[0].ID
		for _, n := range []int{3, 1, 3, 5, 2, 2, 3, 1} {
			c := config("S", "s.>")
			c.Replicas = n
			r := do(t, m, KindUpdateStream, &UpdateStream{Account: "A", Config: c, Servers: []uint64{1, 2, 3, 4, 5}, Keep: leader})
			if r.Err != nil {
				t.Fatalf("to %d: %v", n, r.Err)
			}
			s := r.Stream
			if all := servers(s); len(all) != n || len(slices.Compact(all)) != n || !slices.Contains(all, 2) {
				t.Fatalf("to %d: replicas are to be on %v; plan %+v", n, all, s.Plan)
			}
			if doneEach && s.Plan != nil {
				r = do(t, m, KindPlanDone, &PlanDone{Account: "A", Name: "S", Group: s.Group, Epoch: s.Plan.Epoch})
				if s = r.Stream; s.Plan != nil || len(s.Replicas) != n {
					t.Fatalf("to %d: done, but %+v", n, s)
				}
			}
		}
		// What an earlier leader says of a plan that was replaced does not count.
		s := m.Stream(Key{"A", "S"})
		if !doneEach {
			if r := do(t, m, KindPlanDone, &PlanDone{Account: "A", Name: "S", Group: s.Group, Epoch: s.Plan.Epoch - 1}); r.Stream.Plan == nil {
				t.Fatal("a plan was ended by the end of an older one")
			}
			do(t, m, KindPlanDone, &PlanDone{Account: "A", Name: "S", Group: s.Group, Epoch: s.Plan.Epoch})
			if s = m.Stream(Key{"A", "S"}); s.Plan != nil || len(s.Replicas) != 1 || s.Replicas[0].ID != leader {
				t.Fatalf("%+v", s)
			}
		}
	}
}

// Replicas that are to leave are replaced all at once, in the midst of another change too: as many as are
// asked for remain, on servers that may have them.
func TestUpdateMovesReplicas(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	c := config("S", "s.>")
	c.Replicas = 3
	s := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Servers: []uint64{1, 2, 3}}).Stream
	update := func(n int, to []uint64, from ...uint64) *Result {
		t.Helper()
		c.Replicas = n
		c.Description += "x"
		u := &UpdateStream{Account: "A", Config: c, Servers: to}
		for _, server := range from {
			r, _ := m.Stream(Key{"A", "S"}).On(server)
			u.Leave = append(u.Leave, r.ID)
		}
		return do(t, m, KindUpdateStream, u)
	}
	at := func(want ...uint64) {
		t.Helper()
		s = m.Stream(Key{"A", "S"})
		if got := servers(s); !slices.Equal(got, want) {
			t.Fatalf("replicas are to be on %v, want %v; plan %+v", got, want, s.Plan)
		}
	}
	done := func() {
		t.Helper()
		s = do(t, m, KindPlanDone, &PlanDone{Account: "A", Name: "S", Group: s.Group, Epoch: s.Plan.Epoch}).Stream
		if s.Plan != nil {
			t.Fatalf("plan %+v", s.Plan)
		}
	}

	update(3, []uint64{3, 4, 5, 6}, 1, 2)
	at(3, 4, 5)
	update(3, []uint64{6, 7, 8}, 1, 2, 3, 4, 5) // Of these, two were still to come, and two about to go.
	at(6, 7, 8)
	done()
	at(6, 7, 8)
	update(1, []uint64{6, 7, 8})
	if s = m.Stream(Key{"A", "S"}); len(servers(s)) != 1 {
		t.Fatalf("%v", servers(s))
	}
	update(1, []uint64{1}, 6, 7, 8)
	at(1)
	done()
	at(1)
	if r := update(1, []uint64{1}, 1); r.Err == nil {
		t.Error("a replica was sent away that no other server takes")
	}
	at(1)
}

// A plan is cancelled if it was made because a server was absent, and no other. What it has added goes, and the
// replicas that there were stay, whatever is told of it later.
func TestPlanIsCancelled(t *testing.T) {
	m := open(t, memory.NewStore(), "m")
	c := config("S", "s.>")
	c.Replicas = 3
	was := do(t, m, KindCreateStream, &CreateStream{Account: "A", Config: c, Servers: []uint64{1, 2, 3}}).Stream
	change := func(absent bool) *Stream {
		t.Helper()
		r := do(t, m, KindChangeReplicas, &ChangeReplicas{Account: "A", Name: "S", Group: was.Group, Add: []uint64{4}, Remove: []uint64{was.Replicas[1].ID}, Absent: absent})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r.Stream
	}
	cancel := func(epoch uint64) *Stream {
		return do(t, m, KindCancelPlan, &CancelPlan{Account: "A", Name: "S", Group: was.Group, Epoch: epoch}).Stream
	}
	done := func(epoch uint64) *Stream {
		return do(t, m, KindPlanDone, &PlanDone{Account: "A", Name: "S", Group: was.Group, Epoch: epoch}).Stream
	}
	planned := change(true)
	if s := cancel(planned.Epoch - 1); s.Plan.Epoch != planned.Epoch {
		t.Errorf("another plan was cancelled: %+v", s.Plan)
	}
	s := cancel(planned.Epoch)
	if s.Plan == nil || s.Plan.Epoch == planned.Epoch || !slices.Equal(servers(s), []uint64{1, 2, 3}) {
		t.Fatalf("cancelled, and now %+v", s.Plan)
	}
	if s := done(planned.Epoch); s.Plan == nil {
		t.Error("the end of the cancelled plan ended the one that undoes it")
	}
	if again := cancel(s.Plan.Epoch); again.Plan.Epoch != s.Plan.Epoch {
		t.Error("the undoing was undone")
	}
	if s = done(s.Plan.Epoch); s.Plan != nil || !slices.Equal(s.Replicas, was.Replicas) {
		t.Errorf("%+v, where there was %+v", s, was)
	}
	planned = change(false)
	if s := cancel(planned.Epoch); s.Plan == nil || s.Plan.Epoch != planned.Epoch {
		t.Error("what an operator asked for was cancelled")
	}
}
