// Package wal keeps the Raft logs and hard states of all groups of one server on disk, in one
// sequence of segment files with one writer and one fsync for everybody (group commit).
package wal

// GroupID names a Raft group on this server's disk. Ids are issued by the meta machine and never
// used again for another group.
type GroupID uint64

// Entry is one Raft log entry as the log keeps it.
type Entry struct {
	Index uint64
	Term  uint64
	Type  uint8 // raftpb.EntryType
	Data  []byte
}

// HardState is what Raft must never forget of a group.
type HardState struct {
	Term, Vote, Commit uint64
}

// Update is what one group wants made durable: all of it or nothing.
type Update struct {
	Group GroupID

	// Reset, if set, drops the whole log first: the state now starts behind a snapshot at
	// this position.
	Reset *Position

	// Entries follow the log; where an index exists already, that entry and all behind it
	// are replaced.
	Entries []Entry

	// Hard, if set, replaces the hard state.
	Hard *HardState

	// Compact, if not zero, says that entries at or below this index are not needed any
	// more. It needs no sync of its own.
	Compact Position

	// Remove forgets the group.
	Remove bool
}

// Position is a place in a group's log.
type Position struct {
	Index, Term uint64
}
