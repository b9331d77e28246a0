package replica

import "errors"

var (
	// ErrNotLeader: definite. This replica does not lead; nothing was proposed.
	ErrNotLeader = errors.New("replica: not the leader")

	// ErrReturning: definite. This replica has ceased to lead, or is about to, and gives back what came before;
	// who keeps an order must not go elsewhere before it has.
	ErrReturning = errors.New("replica: earlier commands are being given back")

	// ErrUnavailable: definite. The command was not executed and never will be: there was no
	// leader, or another entry was committed in its place. Safe to try again.
	ErrUnavailable = errors.New("replica: no quorum or no leader; nothing was done")

	// ErrOverloaded: definite. Too many commands wait already.
	ErrOverloaded = errors.New("replica: too many commands are waiting; nothing was done")

	// ErrUnknown: the command may or may not be executed, now or later.
	ErrUnknown = errors.New("replica: outcome unknown")

	// ErrLost: the replica has not, or no longer, what it had acknowledged or voted for: its log or
	// its state begin later or end earlier than they must. Under its raft id it must never speak again.
	ErrLost = errors.New("replica: it has lost what it held")

	// ErrStateLost: the log is whole, and the state that it goes on from is not there, or is not one that it goes
	// on from. The replica may be opened blind.
	ErrStateLost = errors.New("replica: its state is lost")

	// ErrStopped: definite for commands that had not been proposed. The replica is closed.
	ErrStopped = errors.New("replica: stopped")
)
