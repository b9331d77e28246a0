package meta

import (
	"encoding/json"
	"fmt"

	"github.com/cleatkv/cleat/internal/api"
)

// Kind tells commands apart. The values stand in the Raft log: they are never reused.
type Kind uint8

// Commands of the meta group's log: a kind byte and JSON. The meta group is not a hot path, and
// JSON lets members of the log outlive changes of these types.
const (
	KindCreateStream Kind = 1
	KindUpdateStream Kind = 2
	KindDeleteStream Kind = 3

	KindJoinServer     Kind = 4
	KindRemoveServer   Kind = 5
	KindChangeReplicas Kind = 6
	KindPlanDone       Kind = 7
	KindReplicaLost    Kind = 8
	KindRecover        Kind = 9
	KindCancelPlan     Kind = 10
	KindCompare        Kind = 11 // changes nothing: all members hold on to the state, for it to be compared
	KindReform         Kind = 12
)

// Compare asks for the state of all members to be compared, see Machine.TakeFrozen.
type Compare struct{}

// CreateStream asks for a stream. Config is normalised and complete.
type CreateStream struct {
	Account string           `json:"account"`
	Config  api.StreamConfig `json:"config"`
	Limits  Limits           `json:"limits"`
	// Servers are the ids of the servers that are to hold a replica.
	Servers []uint64 `json:"servers"`
}

// UpdateStream replaces the configuration of a stream.
type UpdateStream struct {
	Account string           `json:"account"`
	Config  api.StreamConfig `json:"config"`
	Limits  Limits           `json:"limits"`

	// Should the number of replicas change: servers that may take one more, best first, and the
	// raft id of the replica that is to stay when some have to go (the leader).
	Servers []uint64 `json:"servers,omitempty"`
	Keep    uint64   `json:"keep,omitempty"`

	// Leave are the raft ids of the replicas for which a changed placement has no place where they are. Others
	// on Servers replace them.
	Leave []uint64 `json:"leave,omitempty"`
}

// DeleteStream removes a stream. Group, if not zero, must be the one that exists.
type DeleteStream struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	Group   uint64 `json:"group,omitempty"`
}

// Limits are those of the account, as the proposing server knows them. Zero or less is no limit.
// They are part of the command so that all members reach the same verdict.
type Limits struct {
	Streams      int   `json:"streams,omitempty"`
	StoreBytes   int64 `json:"store,omitempty"`  // sum of max_bytes of file streams
	MemoryBytes  int64 `json:"memory,omitempty"` // sum of max_bytes of memory streams
	StreamStore  int64 `json:"stream_store,omitempty"`
	StreamMemory int64 `json:"stream_memory,omitempty"`
	BytesNeeded  bool  `json:"bytes_needed,omitempty"` // every stream must have max_bytes
}

// Result is what applying one command gave.
type Result struct {
	Err     *api.Error // refused; nothing was changed
	Stream  *Stream    // as it is now; after a delete as it was
	Created bool       // the stream did not exist before
	Server  *Server    // that joined or was removed
}

// Encode gives the bytes of a command.
func Encode(kind Kind, command any) []byte {
	b, err := json.Marshal(command)
	if err != nil {
		panic(fmt.Sprintf("meta: encode command %d: %v", kind, err)) // Our own types, always encodable.
	}
	return append([]byte{byte(kind)}, b...)
}
