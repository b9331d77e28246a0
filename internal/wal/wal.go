package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrCompacted says that an index lies at or before the start of the group's log.
	ErrCompacted = errors.New("wal: log entry is compacted")

	// ErrUnavailable says that an index lies behind the end of the group's log, or that the
	// group is not known.
	ErrUnavailable = errors.New("wal: log entry is not available")

	// ErrClosed says that the log was closed before the update was written.
	ErrClosed = errors.New("wal: closed")

	// ErrInconsistent says that bytes whose checksums are right say something impossible: a
	// fault of this program or of the machine's memory, not of the disk. Nothing can be
	// trusted any more; the owner stops the server.
	ErrInconsistent = errors.New("wal: inconsistent under good checksums")
)

// GroupID names a Raft group on this server's disk. Ids are issued by the meta machine and never
// used again for another group.
type GroupID uint64

// Entry is one Raft log entry as the log keeps it.
type Entry struct {
	Index uint64
	Term  uint64
	Type  uint8 // raftpb.EntryType

	// Hash is HashData(Data). Zero on the way in means: not computed yet. On the way out it is
	// always set, and checked when Data was read from disk.
	Hash uint64

	Data []byte
}

// HardState is what Raft must never forget of a group.
type HardState struct {
	Term, Vote, Commit uint64
}

// Position is a place in a group's log.
type Position struct {
	Index, Term uint64
}

// Update is what one group wants made durable: all of it or nothing.
type Update struct {
	Group GroupID

	// Reset, if set, drops the whole log first: the state now starts behind a snapshot at
	// this position. It also ends every doubt about a damaged group.
	Reset *Position

	// Entries follow the log; where an index exists already, that entry and all behind it
	// are replaced.
	Entries []Entry

	// Hard, if set, replaces the hard state. A change of Commit alone needs no sync of its
	// own: it reaches the disk with the group's next durable update.
	Hard *HardState

	// Compact, if not zero, says that entries at or below this index are not needed any
	// more. It needs no sync of its own.
	Compact Position

	// Remove forgets the group.
	Remove bool
}

// State is what the log holds of one group, updates that are not durable yet included.
type State struct {
	Hard HardState

	// First is the first index that Entries can return, Last the last one. An empty log has
	// First == Last+1.
	First, Last uint64

	// Snapshot is the position right before First.
	Snapshot Position

	// Damage is set if the disk lost something of this group. Such a group neither votes nor
	// appends until its owner repaired it (see DamageError).
	Damage *DamageError
}

// DamageError says what the disk lost of one group and where that was found.
//
// The owner repairs a group by an update that makes the loss irrelevant: entries written again from
// the first lost index on, a Compact beyond the last lost index, a Reset, or a Remove. Other
// updates to a damaged group are a programming error.
type DamageError struct {
	Group  GroupID
	File   string
	Offset int64
	Reason string

	// Lost lists the known ranges of lost entries, in index order.
	Lost []LostRange

	// Unknown is set when it cannot be told what was lost: the group may have voted or
	// acknowledged entries that are not in Lost. Its Raft id must not be used again.
	Unknown bool
}

// LostRange identifies lost entries of one term. Fold combines their payload hashes, see FoldHash.
type LostRange struct {
	First, Last uint64
	Term        uint64
	Fold        uint64
}

func (e *DamageError) Error() string {
	what := "what it held is unknown"
	if !e.Unknown && len(e.Lost) > 0 {
		what = fmt.Sprintf("log entries %d to %d are lost", e.Lost[0].First, e.Lost[len(e.Lost)-1].Last)
	}
	return fmt.Sprintf("wal: group %d is damaged: %s at offset %d: %s: %s", e.Group, e.File, e.Offset, e.Reason, what)
}
