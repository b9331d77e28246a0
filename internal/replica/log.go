package replica

import (
	"errors"

	"github.com/cleatkv/cleat/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// raftLog shows one group's part of the WAL to Raft. The WAL makes entries visible as soon as they
// are submitted, as asynchronous storage writes demand.
type raftLog struct {
	wal   *wal.Log
	group wal.GroupID

	// hard and conf are what the replica was opened with; Raft reads them once.
	hard *pb.HardState
	conf *pb.ConfState

	// snapshot describes what a follower would be sent; the state itself travels apart.
	snapshot func() (*pb.Snapshot, error)
	scratch  []wal.Entry
}

func (l *raftLog) InitialState() (*pb.HardState, *pb.ConfState, error) { return l.hard, l.conf, nil }

func (l *raftLog) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	var err error
	l.scratch, err = l.wal.Entries(l.scratch[:0], l.group, lo, hi, maxSize)
	if err != nil {
		return nil, raftError(err)
	}
	out := make([]*pb.Entry, len(l.scratch))
	for i := range l.scratch {
		out[i] = toRaft(&l.scratch[i])
	}
	clear(l.scratch)
	return out, nil
}

func (l *raftLog) Term(i uint64) (uint64, error) {
	t, err := l.wal.Term(l.group, i)
	return t, raftError(err)
}

func (l *raftLog) LastIndex() (uint64, error) {
	s, _ := l.wal.State(l.group)
	return s.Last, nil
}

func (l *raftLog) FirstIndex() (uint64, error) {
	s, _ := l.wal.State(l.group)
	return s.First, nil
}

func (l *raftLog) Snapshot() (*pb.Snapshot, error) { return l.snapshot() }

func raftError(err error) error {
	switch {
	case errors.Is(err, wal.ErrCompacted):
		return raft.ErrCompacted
	case errors.Is(err, wal.ErrUnavailable):
		return raft.ErrUnavailable
	case err != nil:
		panic(logFailure{err}) // See Replica.rescue.
	}
	return nil
}

func toRaft(e *wal.Entry) *pb.Entry {
	// One allocation for the scalars that the message type wants by pointer.
	v := &struct {
		e           pb.Entry
		index, term uint64
		typ         pb.EntryType
	}{index: e.Index, term: e.Term, typ: pb.EntryType(e.Type)}
	v.e.Index, v.e.Term, v.e.Type, v.e.Data = &v.index, &v.term, &v.typ, e.Data
	return &v.e
}

func fromRaft(e *pb.Entry) wal.Entry {
	return wal.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Type: uint8(e.GetType()), Data: e.GetData()}
}

// EncodeConf gives the bytes of a membership, for Entry.Conf and for genesis.
func EncodeConf(c *pb.ConfState) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		panic(err) // A ConfState has nothing that cannot be marshalled.
	}
	return b
}

// DecodeConf is the reverse of EncodeConf.
func DecodeConf(b []byte) (*pb.ConfState, error) {
	c := &pb.ConfState{}
	if err := proto.Unmarshal(b, c); err != nil {
		return nil, err
	}
	return c, nil
}
