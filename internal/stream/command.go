package stream

import "github.com/cleatkv/cleat/internal/api"

// Kind tells commands apart. The values stand in the Raft log: they are never reused.
type Kind uint8

// Commands of a stream's log. See codec.go for their encoding.
const (
	KindPublish       Kind = 1 // store a message, after all checks
	KindDelete        Kind = 2 // remove or erase one message by sequence
	KindPurge         Kind = 3 // remove many: filter, up to a sequence, keeping some
	KindConfigure     Kind = 4 // replace the configuration (create and update)
	KindExpire        Kind = 5 // the leader's clock says: remove what has expired as of the stamp
	KindConsumer      Kind = 6 // create or update a durable consumer
	KindConsumerGone  Kind = 7 // delete a durable consumer
	KindConsumerState Kind = 8 // deliveries and acknowledgements of a durable consumer
)

// Publish is the command that stores a message.
type Publish struct {
	Subject string
	Header  []byte // whole header block, or nil
	Data    []byte
}

// Result is what applying one command gave.
type Result struct {
	Err       *api.Error // refused: nothing was changed, and never will be by this command
	Seq       uint64     // of the stored message, or of the original if Duplicate
	Duplicate bool
	Purged    uint64 // messages removed by a purge
	Value     any    // further results of rarer commands, see their types
}
