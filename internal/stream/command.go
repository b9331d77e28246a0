package stream

import "github.com/cleatkv/cleat/internal/api"

// Kind tells commands apart. The values stand in the Raft log: they are never reused, and the
// encoding of a kind never changes. A change of meaning takes a new kind.
type Kind uint8

// Commands of a stream's log. See codec.go for their encoding.
const (
	KindPublish       Kind = 1  // store a message, after all checks
	KindDelete        Kind = 2  // remove or erase one message by sequence
	KindPurge         Kind = 3  // remove many: filter, up to a sequence, keeping some
	KindConfigure     Kind = 4  // replace the configuration (create and update)
	KindExpire        Kind = 5  // the leader's clock says: remove what has expired as of the stamp
	KindConsumer      Kind = 6  // create or update a durable consumer
	KindConsumerGone  Kind = 7  // delete a durable consumer
	KindConsumerState Kind = 8  // deliveries and acknowledgements of a durable consumer
	KindCopied        Kind = 9  // store a message of a source, if it is the one to come next
	KindMirrored      Kind = 10 // store a message of the mirror's origin, or pass over missing ones
	KindPurgeSome     Kind = 11 // remove many, but not too many at a time
	KindCompare       Kind = 12 // change nothing, and hold on to the state, for it to be compared with that of the other replicas
	KindRestored      Kind = 13 // store a message of a backup, or pass over missing ones
)

// Delete removes one message; with Erase its bytes are overwritten too.
type Delete struct {
	Seq   uint64
	Erase bool
}

// Purge removes the messages that match Filter (empty: all) and are below Seq (0: no bound), but
// the newest Keep of them.
//
// With Most, which does not go with Keep, at most so many are removed, subject by subject from the one behind
// After on, and Result.Rest is the command to go on with: what is put meanwhile is not removed. A purge of very many
// messages at once would hold up everybody who has to do with the stream.
type Purge struct {
	Filter string
	Seq    uint64
	Keep   uint64
	Most   uint64
	After  string
}

// Configure makes Config the stream's configuration, unless the stream has one of this revision or
// a later one already. Created is when the stream was created (Unix nanoseconds).
type Configure struct {
	Config   api.StreamConfig `json:"config"`
	Revision uint64           `json:"revision"`
	Created  int64            `json:"created"`
}

// Result is what applying one command gave.
type Result struct {
	Err       *api.Error // refused: nothing was changed, and never will be by this command
	Seq       uint64     // of the stored message, or of the original if Duplicate
	Duplicate bool
	Purged    uint64       // messages removed by a purge
	Rest      *Purge       // what is left of a purge of some, if anything is
	Created   int64        // of the consumer that a command was about (Unix nanoseconds)
	Republish *Republished // to be published, if the stream's configuration asks for it
}

// Republished is a message to publish in the stream's account, as an effect of storing another.
// Only the server that hears the result publishes it.
type Republished struct {
	Subject string
	Header  []byte
	Data    []byte
}
