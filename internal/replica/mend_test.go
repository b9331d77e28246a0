package replica

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// suspectLog makes a log of ten entries of term 5 behind genesis, two of which are damaged: the fourth and the
// seventh.
func suspectLog(t *testing.T, commit uint64, voters ...uint64) (*bench, *Mend) {
	t.Helper()
	disk := simfs.New(1, simfs.Journal)
	b := newSteppedBench(t, disk)
	m := b.steppedGenesis(7, voters...)
	for i := range uint64(10) {
		b.log.Submit([]wal.Update{{
			Group: 7, Entries: []wal.Entry{{Index: GenesisIndex + 1 + i, Term: 5, Data: theirPack(fmt.Sprintf("<value %d>", i+1))}},
			Hard: &wal.HardState{Term: 6, Vote: 3, Commit: commit},
		}}, nil)
		b.sync()
	}
	if err := b.log.Close(); err != nil {
		t.Fatal(err)
	}
	spoilBatchOf(t, disk, "<value 4>")
	spoilBatchOf(t, disk, "<value 7>")
	b = newSteppedBench(t, disk)
	mend, err := NewMend(b.log, 7, 1, m.at)
	if err != nil {
		t.Fatal(err)
	}
	return b, mend
}

func confOf(voters ...uint64) *pb.ConfState { return &pb.ConfState{Voters: voters} }

// Entries that others have are put back where they were, and only those: of the same index and term, and with the
// same bytes.
func TestMendRestores(t *testing.T) {
	b, m := suspectLog(t, GenesisIndex, 1, 2, 3)
	value := func(i uint64, text string) wal.Entry {
		data := theirPack(text)
		return wal.Entry{Index: GenesisIndex + i, Term: 5, Data: data, Hash: wal.HashData(data)}
	}
	a, _ := m.Wants()
	if a != (Ask{Index: GenesisIndex + 4, Last: GenesisIndex + 4, Term: 5, Above: 6}) {
		t.Fatalf("wants %+v", a)
	}
	older, broken := value(4, "<value 4>"), value(4, "<value 4>")
	older.Term, broken.Hash = 4, broken.Hash+1
	m.Restore([]wal.Entry{older, broken, value(3, "another"), value(11, "too far"), value(0, "too early")})
	if again, _ := m.Wants(); again != a {
		t.Fatalf("took what it did not ask for, wants %+v", again)
	}
	m.Restore([]wal.Entry{value(4, "<value 4>")})
	if a, _ = m.Wants(); a.Index != GenesisIndex+7 {
		t.Fatalf("wants %+v", a)
	}
	m.Restore([]wal.Entry{value(7, "<value 7>")})
	u, dropped, err := m.Update()
	if _, more := m.Wants(); more || err != nil || dropped != 0 || *u.Hard != (wal.HardState{Term: 6, Vote: 3, Commit: GenesisIndex}) {
		t.Fatalf("dropped %d, hard state %+v, %v", dropped, u.Hard, err)
	}
	b.log.Submit([]wal.Update{u}, nil)
	b.sync()
	st, _ := b.log.State(7)
	entries, err := b.log.Entries(nil, 7, GenesisIndex+1, GenesisIndex+11, 1<<20)
	if st.Damage != nil || err != nil || len(entries) != 10 {
		t.Fatalf("%+v, %d entries, %v", st, len(entries), err)
	}
	for i, e := range entries {
		if !bytes.Contains(e.Data, fmt.Appendf(nil, "<value %d>", i+1)) {
			t.Errorf("entry %d is %q", e.Index, e.Data)
		}
	}
	// Right by its own hash, but not what was lost.
	_, m = suspectLog(t, GenesisIndex, 1, 2, 3)
	m.Restore([]wal.Entry{value(4, "<value X>"), value(7, "<value 7>")})
	if _, _, err := m.Update(); err == nil {
		t.Error("another entry was taken for the lost one")
	}
}

// The trap: an entry is dropped that a quorum has acknowledged. N-Q+1 of N voters have to lack it, all of
// them voters of the same membership, and none who is asked in vain counts.
func TestMendDropsWhatCannotBeCommitted(t *testing.T) {
	for n, enough := range map[uint64]int{2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 4} {
		var voters []uint64
		for id := range n {
			voters = append(voters, id+1)
		}
		_, m := suspectLog(t, GenesisIndex, voters...)
		a, _ := m.Wants()
		for i := 1; i <= enough; i++ {
			for range 2 { // Told twice it is one still.
				m.Nack(a, uint64(i+1), confOf(voters...))
			}
			if _, more := m.Wants(); more == (i == enough) {
				t.Fatalf("of %d voters %d lack it: waits %v", n, i, more)
			}
		}
		u, dropped, err := m.Update()
		if err != nil || dropped != GenesisIndex+4 || len(u.Entries) != 3 || *u.Hard != (wal.HardState{Term: 7, Commit: GenesisIndex}) {
			t.Fatalf("of %d voters: dropped %d, %d entries left, hard state %+v, %v", n, dropped, len(u.Entries), u.Hard, err)
		}
	}
	for what, nack := range map[string]func(m *Mend, a Ask){
		"about another entry":           func(m *Mend, a Ask) { a.Index++; m.Nack(a, 2, confOf(1, 2)) },
		"about another term":            func(m *Mend, a Ask) { a.Term--; m.Nack(a, 2, confOf(1, 2)) },
		"in an early term":              func(m *Mend, a Ask) { a.Above--; m.Nack(a, 2, confOf(1, 2)) },
		"of the suspect itself":         func(m *Mend, a Ask) { m.Nack(a, 1, confOf(1, 2)) },
		"of a stranger":                 func(m *Mend, a Ask) { m.Nack(a, 9, confOf(1, 2)) },
		"of another membership":         func(m *Mend, a Ask) { m.Nack(a, 2, confOf(1, 2, 3)) },
		"while the membership changes":  func(m *Mend, a Ask) { m.Nack(a, 2, &pb.ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{1}}) },
		"of what is known as committed": func(m *Mend, a Ask) { m.hard.Commit = a.Index; m.Nack(a, 2, confOf(1, 2)) },
		"with a change in its own log":  func(m *Mend, a Ask) { m.confPending = true; m.Nack(a, 2, confOf(1, 2)) },
	} {
		_, m := suspectLog(t, GenesisIndex, 1, 2)
		a, _ := m.Wants()
		nack(m, a)
		if _, more := m.Wants(); !more {
			t.Errorf("a word %s was believed", what)
		}
	}
}

// What the machine holds already is not needed, and what is unknown can not be mended.
func TestMendBeginsBehindTheState(t *testing.T) {
	b, m := suspectLog(t, GenesisIndex, 1, 2, 3)
	at := Entry{Index: GenesisIndex + 8, Term: 5, Conf: m.at.Conf}
	m, err := NewMend(b.log, 7, 1, at)
	if err != nil {
		t.Fatal(err)
	}
	u, dropped, err := m.Update()
	if _, more := m.Wants(); more || err != nil || dropped != 0 || len(u.Entries) != 2 || u.Reset.Index != at.Index || u.Hard.Commit != at.Index {
		t.Errorf("%+v, dropped %d, %v", u, dropped, err)
	}
	if _, err := NewMend(b.log, 8, 1, at); err == nil {
		t.Error("a log that is not there was taken for one that can be mended")
	}
}

// A member says that it never had an entry only when no leader that may count on the suspect can give it one any
// more: in a later term, which it enters at the suspect's word, unless it hears of a leader.
func TestNeverHadOnlyInALaterTerm(t *testing.T) {
	b := newSteppedBench(t, simfs.New(1, simfs.Journal))
	m := b.steppedGenesis(7, 1, 2, 3)
	r := b.open(7, 1, m, 99)
	b.shard.Receive(r, entries(3, 1, 4, GenesisIndex, GenesisTerm, GenesisIndex, "a", "b"))
	b.turns()
	b.sync()
	b.turns()
	has := Ask{Index: GenesisIndex + 2, Last: GenesisIndex + 2, Term: 4, Above: 4}
	lacks := Ask{Index: GenesisIndex + 3, Last: GenesisIndex + 5, Term: 4, Above: 4}
	if got := Wanted(b.log, 7, Ask{Index: GenesisIndex + 1, Last: GenesisIndex + 9, Term: 4}); len(got) != 2 {
		t.Errorf("gives %d entries", len(got))
	}
	if _, never, early := r.NeverHad(has); never || early {
		t.Error("denies what it has")
	}
	if _, never, early := r.NeverHad(Ask{Index: GenesisIndex, Term: 1, Above: 1}); never || early {
		t.Error("denies what it has compacted")
	}
	if _, never, early := r.NeverHad(lacks); never || !early {
		t.Errorf("in the suspect's term: never %v, early %v", never, early)
	}
	r.Outgrow(lacks.Above, 2)
	b.turns()
	if _, never, _ := r.NeverHad(lacks); never {
		t.Error("goes into a later term while it hears of a leader")
	}
	for range 3 * electionTicks { // The leader falls silent.
		b.shard.Turn(true)
		b.sync()
	}
	r.Outgrow(lacks.Above, 2)
	b.turns()
	b.sync()
	b.turns()
	conf, never, early := r.NeverHad(lacks)
	if st, _ := b.log.State(7); !never || early || !sameIDs(conf.GetVoters(), []uint64{1, 2, 3}) || st.Hard.Term != 5 || st.Hard.Vote != 0 {
		t.Errorf("never %v, early %v, conf %v, hard state %+v", never, early, conf, st.Hard)
	}
	// A leader of the old term can not give it the entry any more.
	b.shard.Receive(r, entries(3, 1, 4, GenesisIndex+2, 4, GenesisIndex, "late"))
	b.turns()
	b.sync()
	if st, _ := b.log.State(7); st.Last != GenesisIndex+2 {
		t.Errorf("it took entry %d of the old term", st.Last)
	}
}
