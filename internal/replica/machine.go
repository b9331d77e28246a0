package replica

import "io"

// Machine is the deterministic state machine above a Raft group: the meta machine or one stream.
// Its methods are called by the replica's owner only, in log order, except where said otherwise.
type Machine interface {
	// Apply executes the commands of one committed log entry, in order and atomically, and
	// returns one result for each. stamp is the leader's time when it packed the entry (Unix
	// nanoseconds); the machine makes times strictly increasing by itself. An error means that
	// the machine can no longer be trusted (disk, damage): the replica stops.
	Apply(at Entry, stamp int64, commands [][]byte) (results []any, err error)

	// ApplyConf records an entry that carries no command: a membership change, or an empty one.
	ApplyConf(at Entry) error

	// Applied is how far the log has been executed, with the membership given then. Durable is how far a crash at this moment would leave
	// it at least; any goroutine may call it.
	Applied() Entry
	Durable() Entry

	// WriteSnapshot writes the state at one position to w and returns that position. It is
	// called by background workers, concurrently with everything else.
	WriteSnapshot(w io.Writer) (Entry, error)

	// InstallSnapshot replaces the state, durably and atomically.
	InstallSnapshot(r io.Reader) error

	// Checkpoint makes what is applied durable. Background workers call it.
	Checkpoint() error
}

// Entry is a position in the log with the membership as of then (an encoded ConfState). Machines
// store it whole, in the same change as the effects of the entry.
type Entry struct {
	Index uint64
	Term  uint64
	Conf  []byte
}
