package replica

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cleatkv/cleat/sim/simfs"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// tail submits entries of a term behind genesis: a command, an empty one, a change of membership that
// would need the others, another command. None is known to be committed.
func (b *bench) tail(group wal.GroupID, term uint64) {
	b.t.Helper()
	joint := &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(uint64(9))}}}
	change, err := proto.Marshal(joint)
	if err != nil {
		b.t.Fatal(err)
	}
	all := []wal.Entry{{Data: theirPack("a")}, {}, {Type: uint8(pb.EntryConfChangeV2), Data: change}, {Data: theirPack("b")}}
	for i := range all {
		all[i].Index, all[i].Term = GenesisIndex+1+uint64(i), term
	}
	b.log.Submit([]wal.Update{{Group: group, Entries: all, Hard: &wal.HardState{Term: term + 1, Vote: 3, Commit: GenesisIndex}}}, nil)
	b.sync()
}

// The trap: the last entries of a log are not known to be committed, and were acknowledged by the members
// that are gone. The member that goes on alone has to keep them, and none of the old members.
func TestAloneKeepsTheWholeLog(t *testing.T) {
	disk := simfs.New(1, simfs.Journal)
	b := newSteppedBench(t, disk)
	m := b.steppedGenesis(7, 1, 2, 3)
	b.tail(7, 5)
	for again := range uint64(2) { // A crash before the update was written: all of it is done again.
		u, err := Alone(b.log, 7, 1, m, m.ApplyConf)
		if err != nil {
			t.Fatal(err)
		}
		want := wal.Position{Index: GenesisIndex + 5 + again, Term: 7 + again}
		if *u.Reset != want || u.Hard.Term != want.Term || u.Hard.Vote != 0 || m.durable.Index != want.Index {
			t.Fatalf("begins at %+v with %+v, durable %d", u.Reset, u.Hard, m.durable.Index)
		}
		if !slices.Equal(m.values, []string{"a", "b"}) {
			t.Fatalf("executed %q", m.values)
		}
		if again == 1 {
			b.log.Submit([]wal.Update{u}, nil)
			b.sync()
		}
	}
	r := b.open(7, 1, m, 99)
	for range 10 {
		b.turns()
		b.sync()
	}
	if st := r.Status(); !st.Leading || !slices.Equal(st.Conf.GetVoters(), []uint64{1}) || len(st.Conf.GetLearners()) > 0 || len(b.sent) > 0 {
		t.Fatalf("%+v, sent %d messages", st, len(b.sent))
	}
}

// A log that is damaged is executed up to the damage, and no state is put before entries that are missing.
func TestAloneEndsAtDamage(t *testing.T) {
	disk := simfs.New(1, simfs.Journal)
	b := newSteppedBench(t, disk)
	m := b.steppedGenesis(7, 1, 2, 3)
	b.tail(7, 5)
	b.log.Submit([]wal.Update{{Group: 7, Entries: []wal.Entry{{Index: GenesisIndex + 5, Term: 5, Data: theirPack("damaged")}}}}, nil)
	b.sync()
	b.log.Submit([]wal.Update{{Group: 7, Entries: []wal.Entry{{Index: GenesisIndex + 6, Term: 5, Data: theirPack("behind")}}}}, nil)
	b.sync()
	if err := b.log.Close(); err != nil {
		t.Fatal(err)
	}
	spoilBatchOf(t, disk, "damaged")
	b = newSteppedBench(t, disk)
	if st, _ := b.log.State(7); st.Damage == nil {
		t.Fatal("nothing is damaged: the test shows nothing")
	}
	ahead := &register{at: Entry{Index: GenesisIndex + 5, Term: 5, Conf: m.at.Conf}}
	if _, err := Alone(b.log, 7, 1, m, m.ApplyConf); err != nil || !slices.Equal(m.values, []string{"a", "b"}) || m.at.Index != GenesisIndex+5 {
		t.Errorf("executed %q up to %d: %v", m.values, m.at.Index, err)
	}
	if _, err := Alone(b.log, 7, 1, ahead, ahead.ApplyConf); err != nil || !slices.Equal(ahead.values, []string{"behind"}) {
		t.Errorf("with a state behind the damage it executed %q: %v", ahead.values, err)
	}
	b.log.Submit([]wal.Update{{Group: 7, Compact: wal.Position{Index: GenesisIndex + 5, Term: 5}}}, nil)
	behind := &register{at: Entry{Index: GenesisIndex + 3, Term: 5, Conf: m.at.Conf}}
	if _, err := Alone(b.log, 7, 1, behind, behind.ApplyConf); err == nil {
		t.Error("a state was taken that ends before its log begins")
	}
}

// spoilBatchOf changes a bit of the log where a word stands.
func spoilBatchOf(t *testing.T, disk *simfs.FS, word string) {
	t.Helper()
	names, err := disk.List("wal")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := disk.Open("wal/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(text, []byte(word)); at >= 0 {
			if err := disk.FlipBit("wal/"+name, int64(at), 3); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%q stands nowhere in the log", word)
}
