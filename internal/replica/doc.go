// Package replica is one member of one Raft group: a RawNode, its log in the shared WAL, and the
// deterministic machine above it.
//
// A Replica owns nothing that runs by itself. A Shard drives many replicas from one goroutine,
// its owner; Turn is one round of that loop and the same function in production and in the
// simulator:
//
//	events in (proposals, Raft messages, finished WAL writes, reads, ticks)
//	  -> step the RawNodes
//	  -> one WAL submission for all groups of the shard
//	  -> messages to peers
//	  -> apply what is committed, answer waiters
//
// What the package promises: a waiter hears a result only after its command was committed and
// applied here; a definite error only if the command was not and never will be executed; and
// ErrUnknown in every other case. A read is released only when the state it will see contains
// every write acknowledged before the read began.
//
// It leaves to others: which groups exist and who their members are (meta, cluster), how messages
// travel (peer), what commands mean (stream, meta).
package replica
