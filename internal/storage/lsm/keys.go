package lsm

import (
	"encoding/binary"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/cleatkv/cleat/internal/storage"
)

// All engines of a server share one database. A key begins with the engine's number, which is
// never given to another engine, and a kind:
//
//	| number 8, big endian | kind 1 | ... |
//
//	state 'Z'    |                                        -> state, see encodeState
//	message 'M'  | seq 8, big endian                      -> time 8 | expires 8 | subject uv ... | header uv (0: nil, else length+1) ... | data ...
//	subject 'S'  | subject                                -> first uv | last uv | msgs uv
//	history 'H'  | length of subject 4, big endian | subject | seq 8, big endian   -> nothing; for subjects of more than two messages
//	expiry 'E'   | expires 8, big endian | seq 8, big endian                       -> nothing
//	aux 'A'      | key                                    -> value
//	erased 'X'   | seq 8, big endian                      -> nothing; the message's bytes are still to be got rid of
//
// Number 0 is the store's own:
//
//	name 'N'     | name of an engine                      -> its number 8, big endian
//	last 'L'     |                                        -> the number given out last 8, big endian
//
// Integers in values are little endian, "uv" is an unsigned varint.
const (
	kindState   = 'Z'
	kindMessage = 'M'
	kindSubject = 'S'
	kindHistory = 'H'
	kindExpiry  = 'E'
	kindAux     = 'A'
	kindErased  = 'X'

	kindName = 'N'
	kindLast = 'L'
)

// keyed is the number of an engine, and makes its keys.
type keyed uint64

func (k keyed) kind(kind byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 48), uint64(k)), kind)
}

func (k keyed) text(kind byte, text string) []byte { return append(k.kind(kind), text...) }

func (k keyed) seq(kind byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(k.kind(kind), seq)
}

func (k keyed) expiry(at int64, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(k.kind(kindExpiry), uint64(at)), seq)
}

// history is the prefix of a subject's history; with a sequence appended, one key of it.
func (k keyed) history(subject string) []byte {
	b := binary.BigEndian.AppendUint32(k.kind(kindHistory), uint32(len(subject)))
	return append(b, subject...)
}

// all returns the bounds of the engine's keys.
func (k keyed) all() (lower, upper []byte) {
	return binary.BigEndian.AppendUint64(nil, uint64(k)), binary.BigEndian.AppendUint64(nil, uint64(k)+1)
}

// lastSeqOf takes the sequence off the end of a key.
func lastSeqOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

func encodeMessage(b []byte, m *storage.Message) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Time))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Expires))
	b = binary.AppendUvarint(b, uint64(len(m.Subject)))
	b = append(b, m.Subject...)
	if m.Header == nil {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(m.Header))+1)
		b = append(b, m.Header...)
	}
	return append(b, m.Data...)
}

// decodeMessage decodes a message, whose slices point into v. It returns false if v is none.
func decodeMessage(seq uint64, v []byte) (m storage.Message, ok bool) {
	d := fields.Reader{B: v}
	m.Seq = seq
	m.Time = int64(d.Uint64())
	m.Expires = int64(d.Uint64())
	m.Subject = string(d.Take(d.Uvarint()))
	if n := d.Uvarint(); n > 0 {
		m.Header = d.Take(n - 1)
	}
	m.Data = d.B[:len(d.B):len(d.B)]
	return m, !d.Bad
}

// decodeSubject returns only the subject of a message.
func decodeSubject(v []byte) ([]byte, bool) {
	d := fields.Reader{B: v}
	d.Take(16)
	s := d.Take(d.Uvarint())
	return s, !d.Bad
}

func encodeSubjectState(s storage.SubjectState) []byte {
	b := binary.AppendUvarint(make([]byte, 0, 24), s.First)
	b = binary.AppendUvarint(b, s.Last)
	return binary.AppendUvarint(b, s.Msgs)
}

func decodeSubjectState(v []byte) (s storage.SubjectState, ok bool) {
	d := fields.Reader{B: v}
	s.First, s.Last, s.Msgs = d.Uvarint(), d.Uvarint(), d.Uvarint()
	return s, !d.Bad && s.Msgs > 0
}

// state is the summary of an engine, with its position.
type state struct {
	storage.State
	applied storage.Applied
	expiry  expiry // not saved
}

// expiry is what is known of the message that expires first. The machine asks after every change, and what
// has expired is in the way of a search until the database has compacted it.
//
// Invariant: no message expires before at, nor at that time if its sequence is below seq.
type expiry struct {
	known bool // what follows is the message itself, if there is one
	there bool
	at    int64
	seq   uint64
}

// add takes note of a new message. What expires before all others is the first one, known or not.
func (x *expiry) add(at int64, seq uint64) {
	if x.known && !x.there || at < x.at {
		*x = expiry{known: true, there: true, at: at, seq: seq}
	}
}

// remove takes note of the end of a message.
func (x *expiry) remove(seq uint64) {
	if x.there && x.seq == seq {
		x.known, x.there = false, false
	}
}

const stateVersion = 1

// encodeState encodes a state:
//
//	| version 1 | applied index uv | term uv | conf uv ... | msgs uv | bytes uv | first seq uv | first time 8 |
//	  last seq uv | last time 8 | subjects uv |
func encodeState(s *state) []byte {
	b := append(make([]byte, 0, 128), stateVersion)
	b = binary.AppendUvarint(b, s.applied.Index)
	b = binary.AppendUvarint(b, s.applied.Term)
	b = binary.AppendUvarint(b, uint64(len(s.applied.Conf)))
	b = append(b, s.applied.Conf...)
	b = binary.AppendUvarint(b, s.Msgs)
	b = binary.AppendUvarint(b, s.Bytes)
	b = binary.AppendUvarint(b, s.FirstSeq)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.FirstTime))
	b = binary.AppendUvarint(b, s.LastSeq)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.LastTime))
	return binary.AppendUvarint(b, s.Subjects)
}

func decodeState(v []byte) (*state, bool) {
	d := fields.Reader{B: v}
	s := &state{}
	if version := d.Take(1); version == nil || version[0] != stateVersion {
		return nil, false
	}
	s.applied.Index = d.Uvarint()
	s.applied.Term = d.Uvarint()
	if n := d.Uvarint(); n > 0 {
		s.applied.Conf = append([]byte(nil), d.Take(n)...)
	}
	s.Msgs = d.Uvarint()
	s.Bytes = d.Uvarint()
	s.FirstSeq = d.Uvarint()
	s.FirstTime = int64(d.Uint64())
	s.LastSeq = d.Uvarint()
	s.LastTime = int64(d.Uint64())
	s.Subjects = d.Uvarint()
	return s, !d.Bad && len(d.B) == 0
}

// emptyState is that of an engine without a message ever.
func emptyState() *state {
	s := &state{}
	s.FirstSeq = 1
	return s
}
