package peer

import (
	"encoding/binary"
	"errors"

	"github.com/cleatkv/cleat/internal/fields"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Raft messages travel in our own encoding: protobuf costs several allocations a message, and this
// is the hot path between servers. All numbers are uvarints.
//
//	group | type 1 | flags 1 | to | from | term | logTerm | index | commit
//	[vote] [rejectHint] [context] [entries] [snapshot]
//
// flags says which of the bracketed parts follow.
const (
	flagReject = 1 << iota
	flagVote
	flagRejectHint
	flagContext
	flagEntries
	flagSnapshot
)

var errMessage = errors.New("peer: malformed raft message")

// AppendMessage encodes m, a message of the given group.
func AppendMessage(b []byte, group uint64, m *pb.Message) []byte {
	var flags byte
	set := func(on bool, f byte) {
		if on {
			flags |= f
		}
	}
	set(m.GetReject(), flagReject)
	set(m.GetVote() != 0, flagVote)
	set(m.GetRejectHint() != 0, flagRejectHint)
	set(len(m.GetContext()) > 0, flagContext)
	set(len(m.GetEntries()) > 0, flagEntries)
	set(m.GetSnapshot() != nil && m.GetSnapshot().GetMetadata() != nil, flagSnapshot)

	b = binary.AppendUvarint(b, group)
	b = append(b, byte(m.GetType()), flags)
	for _, v := range [...]uint64{m.GetTo(), m.GetFrom(), m.GetTerm(), m.GetLogTerm(), m.GetIndex(), m.GetCommit()} {
		b = binary.AppendUvarint(b, v)
	}
	if flags&flagVote != 0 {
		b = binary.AppendUvarint(b, m.GetVote())
	}
	if flags&flagRejectHint != 0 {
		b = binary.AppendUvarint(b, m.GetRejectHint())
	}
	if flags&flagContext != 0 {
		b = appendBytes(b, m.GetContext())
	}
	if flags&flagEntries != 0 {
		b = binary.AppendUvarint(b, uint64(len(m.GetEntries())))
		for _, e := range m.GetEntries() {
			b = append(b, byte(e.GetType()))
			b = binary.AppendUvarint(b, e.GetTerm())
			b = binary.AppendUvarint(b, e.GetIndex())
			b = appendBytes(b, e.GetData())
		}
	}
	if flags&flagSnapshot != 0 {
		s := m.GetSnapshot()
		conf, err := proto.Marshal(s.GetMetadata().GetConfState())
		if err != nil {
			panic(err) // A ConfState has nothing that cannot be marshalled.
		}
		b = appendBytes(b, s.GetData())
		b = binary.AppendUvarint(b, s.GetMetadata().GetIndex())
		b = binary.AppendUvarint(b, s.GetMetadata().GetTerm())
		b = appendBytes(b, conf)
	}
	return b
}

// DecodeMessage decodes one message and returns what follows it. The message aliases b.
func DecodeMessage(b []byte) (group uint64, m *pb.Message, rest []byte, err error) {
	d := decoder{fields.Reader{B: b}}
	group = d.Uvarint()
	typ, flags := pb.MessageType(d.Byte()), d.Byte()
	v := &struct {
		m                                      pb.Message
		typ                                    pb.MessageType
		to, from, term, logTerm, index, commit uint64
	}{typ: typ}
	v.to, v.from, v.term, v.logTerm, v.index, v.commit = d.Uvarint(), d.Uvarint(), d.Uvarint(), d.Uvarint(), d.Uvarint(), d.Uvarint()
	m = &v.m
	m.Type, m.To, m.From, m.Term = &v.typ, &v.to, &v.from, &v.term
	m.LogTerm, m.Index, m.Commit = &v.logTerm, &v.index, &v.commit
	if flags&flagReject != 0 {
		m.Reject = proto.Bool(true)
	}
	if flags&flagVote != 0 {
		m.Vote = proto.Uint64(d.Uvarint())
	}
	if flags&flagRejectHint != 0 {
		m.RejectHint = proto.Uint64(d.Uvarint())
	}
	if flags&flagContext != 0 {
		m.Context = d.Bytes()
	}
	if flags&flagEntries != 0 {
		m.Entries = d.entries()
	}
	if flags&flagSnapshot != 0 {
		m.Snapshot = d.snapshot()
	}
	if d.Bad {
		return 0, nil, nil, errMessage
	}
	return group, m, d.B, nil
}

func appendBytes(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// decoder reads what messages are made of.
type decoder struct{ fields.Reader }

func (d *decoder) entries() []*pb.Entry {
	n := d.Uvarint()
	if n > uint64(len(d.B))/4 { // an entry takes four bytes at least
		d.B, d.Bad = nil, true
		return nil
	}
	type entry struct {
		e           pb.Entry
		typ         pb.EntryType
		term, index uint64
	}
	all := make([]entry, n)
	out := make([]*pb.Entry, n)
	for i := range all {
		e := &all[i]
		e.typ = pb.EntryType(d.Byte())
		e.term, e.index = d.Uvarint(), d.Uvarint()
		e.e.Type, e.e.Term, e.e.Index, e.e.Data = &e.typ, &e.term, &e.index, d.Bytes()
		out[i] = &e.e
	}
	return out
}

func (d *decoder) snapshot() *pb.Snapshot {
	data, index, term := d.Bytes(), d.Uvarint(), d.Uvarint()
	conf := &pb.ConfState{}
	if err := proto.Unmarshal(d.Bytes(), conf); err != nil {
		d.Bad = true
	}
	return &pb.Snapshot{Data: data, Metadata: &pb.SnapshotMetadata{Index: &index, Term: &term, ConfState: conf}}
}
