// Package storage defines what a stream needs of the place that keeps its messages.
//
// An Engine holds the messages of one stream replica with the indexes to find them: by sequence,
// by subject (literal and wildcard), by time, by expiry. It also keeps a small ordered set of
// auxiliary records, in which the machine above stores whatever else its state consists of:
// configuration, deduplication entries, consumers.
//
// Durability is not the engine's business on the write path. The Raft log is its redo log: a
// Commit reaches the disk some time later, at the latest at the next Checkpoint, always as a
// prefix of the commits and never a part of one. After a crash the engine comes back at some
// commit at or after Durable, says which (Applied), and the log is replayed from there.
//
// Engines live in the packages below (memory, filelog, lsm); storagetest holds the suite that all
// of them pass.
package storage

import (
	"errors"
	"fmt"
	"io"
)

// ErrNotFound is returned by Load when no message has the sequence: it was removed, it expired,
// or it never was.
var ErrNotFound = errors.New("storage: message not found")

// CorruptError says that data on disk is not what was written. The replica that meets one stops
// serving and keeps the evidence.
type CorruptError struct {
	Path   string // file
	Offset int64  // where in the file, in bytes
	Detail string // what is wrong, for a human
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("storage: %s is damaged at offset %d: %s", e.Path, e.Offset, e.Detail)
}

// Message is one stored message.
type Message struct {
	Seq     uint64
	Time    int64 // Unix nanoseconds, strictly increasing with Seq
	Expires int64 // Unix nanoseconds; 0: by the stream's max age only; NeverExpires: not even by that
	Subject string
	Header  []byte // whole header block with NATS/1.0 line and final empty line, or nil
	Data    []byte
}

// NeverExpires as Message.Expires exempts a message from the stream's max age too.
const NeverExpires = -1

// Size is what the message counts for in State.Bytes and against max_bytes: the formula that
// clients know for file storage, the same for every engine.
func (m *Message) Size() uint64 { return RecordSize(len(m.Subject), len(m.Header), len(m.Data)) }

// RecordSize is Message.Size for parts of the given lengths in bytes.
func RecordSize(subject, header, data int) uint64 {
	n := 30 + subject + data
	if header > 0 {
		n += 4 + header
	}
	return uint64(n)
}

// State is the summary of a stream's messages.
type State struct {
	Msgs      uint64
	Bytes     uint64 // sum of Message.Size
	FirstSeq  uint64 // of the oldest message; LastSeq+1 if there is none
	FirstTime int64  // Unix nanoseconds, 0 if there is no message
	LastSeq   uint64 // last sequence ever assigned, also when that message is gone
	LastTime  int64  // Unix nanoseconds of the last message ever stored, 0 if there was none
	Subjects  uint64 // number of subjects that have messages
}

// SubjectState is what is known of one subject that has at least one message.
type SubjectState struct {
	Msgs  uint64
	First uint64 // sequence of its oldest message
	Last  uint64 // sequence of its newest message
}

// Applied is a position in the Raft log, with the group's membership as of then. Conf is the
// encoded ConfState; its owner is package replica.
type Applied struct {
	Index uint64
	Term  uint64
	Conf  []byte
}

// Reader is the read side. A filter is a subject with wildcards; an empty list of filters means
// every subject. Where several filters are given, a subject that matches more than one counts
// once.
//
// A method that calls fn goes on in the state it began with, whatever is committed meanwhile; fn
// may take its time and may use the Engine. On a Tx, fn must not change the Tx.
type Reader interface {
	State() State
	Applied() Applied

	// Load returns the message with that sequence, or ErrNotFound. The slices of the
	// result are the caller's to read for as long as it likes, not to write.
	Load(seq uint64) (Message, error)

	// Subject looks up one literal subject. A wildcard token in it is just a token.
	Subject(subject string) (SubjectState, bool)

	// Subjects calls fn for every subject that matches a filter and is greater than after, in
	// byte order of subjects, until fn returns false. The cost follows what matches.
	Subjects(filters []string, after string, fn func(subject string, s SubjectState) bool)

	// SubjectSeqs calls fn with the sequences of one literal subject at or above from,
	// ascending, until fn returns false.
	SubjectSeqs(subject string, from uint64, fn func(seq uint64) bool)

	// LastSeq returns the newest sequence among the messages that match filter and are at or
	// below upTo (0: no bound).
	LastSeq(filter string, upTo uint64) (seq uint64, ok bool)

	// NextSeq returns the first sequence at or above from whose subject matches a filter, with
	// that subject.
	NextSeq(filters []string, from uint64) (seq uint64, subject string, ok bool)

	// Count returns the number of messages at or above from that match a filter; with lastOnly
	// only the newest message of each subject counts.
	Count(filters []string, from uint64, lastOnly bool) uint64

	// SeqAtTime returns the first sequence whose message has a time at or after t (Unix
	// nanoseconds), or State.LastSeq+1.
	SeqAtTime(t int64) uint64

	// NextExpiry returns the message that expires first among those with Expires > 0.
	NextExpiry() (seq uint64, at int64, ok bool)

	// Aux returns an auxiliary record. AuxRange calls fn in key order for the records whose
	// key has the prefix, until fn returns false.
	Aux(key string) ([]byte, bool)
	AuxRange(prefix string, fn func(key string, value []byte) bool)

	// Err is the first error that kept a method without an error result from answering: what
	// it said then ("not there", 0) was not an answer; or the first damage that a read met. It
	// stays until the engine is closed or a snapshot has replaced its state, and Commit fails with it. Who tells a client that
	// something is not there asks Err first.
	Err() error
}

// Tx is one atomic change. Only the engine's owner makes one, one at a time; its reads see what it
// has written so far. Other readers see nothing of it before Commit, then all of it.
type Tx interface {
	Reader

	// Append stores a message. Its Seq must be above State.LastSeq and its Time above
	// State.LastTime: the machine assigns both. The engine copies what it keeps.
	Append(m Message) error

	// Remove deletes the message; removing what is not there is not an error. It returns
	// whether it was there.
	Remove(seq uint64) (bool, error)

	// Erase is Remove that also gets rid of the message's bytes on disk before the next
	// Checkpoint ends: they are overwritten, or the files that hold them are replaced.
	Erase(seq uint64) (bool, error)

	// SkipTo raises State.LastSeq to seq without storing anything (first_seq, mirrors).
	SkipTo(seq uint64) error

	SetAux(key string, value []byte)
	DeleteAux(key string)

	// Commit ends the change and records how far the log has been applied with it. The Tx
	// must not be used afterwards. An error means that the engine can no longer be trusted:
	// its owner stops the replica.
	Commit(at Applied) error

	// Discard ends a Tx that was not committed, leaving no trace of it.
	Discard()
}

// Engine keeps one stream replica's messages. Reader's methods may be called by any goroutine at
// any time; each is atomic by itself. So may Freeze and what it returns. Begin is the owner's alone. Checkpoint, Compact and
// WriteSnapshot are called by background workers, at most one at a time for each engine, and
// do not hold up Begin, Commit or reads for longer than a few milliseconds.
//
// Between Begin and the end of the Tx the owner must not call InstallSnapshot; it may read the
// Engine, which shows the state before the Tx.
type Engine interface {
	Reader

	// Begin starts a change. It never blocks on I/O.
	Begin() Tx

	// Durable is the position that a crash at this moment would come back to, or an earlier one.
	// An engine in memory comes back empty, at position zero, and yet reports that of its last
	// Checkpoint, so that the log can be truncated: see package memory.
	Durable() Applied

	// Dirty is about how many bytes a Checkpoint would have to make durable; not 0 if anything
	// was committed since the last one, be it a position.
	Dirty() int64

	// Checkpoint makes everything committed before the call durable.
	Checkpoint() error

	// Reclaimable is about how many bytes on disk the next Checkpoint would give back.
	Reclaimable() int64

	// Compact reclaims space of removed messages, a bounded piece of work a call, and tells
	// whether there is more to do. It also lets go of memory and files that an idle engine does
	// not need. Files go with the next Checkpoint.
	Compact() (more bool, err error)

	// WriteSnapshot writes the whole state at one position to w, and returns the position.
	WriteSnapshot(w io.Writer) (Applied, error)

	// Freeze holds on to the state as it is now. It takes a moment, whatever there is.
	Freeze() Frozen

	// InstallSnapshot replaces the whole state by one that WriteSnapshot wrote, durably and
	// atomically: after a crash either the old state or the new one is there.
	InstallSnapshot(r io.Reader) error

	// Verify reads everything and checks it, reporting damage as *CorruptError.
	Verify() error

	// Close releases the engine without a checkpoint.
	Close() error
}

// Options say how an engine for one stream replica is to be opened.
type Options struct {
	Compress bool // keep message bodies compressed (s2) on disk
}

// Store opens and drops engines of one kind under one root. Names are file-name safe and never
// reused: they are made of the replica's id.
type Store interface {
	// Open opens the engine with that name, creating it if need be. Damage found on the way
	// is a *CorruptError and leaves the files untouched.
	Open(name string, opts Options) (Engine, error)
	// Drop removes an engine that is not open, with all its data, durably.
	Drop(name string) error
	// Names lists the engines that exist, sorted.
	Names() ([]string, error)
	Close() error
}
