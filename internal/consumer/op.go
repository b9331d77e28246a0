package consumer

import (
	"encoding/binary"
	"errors"
)

// errOp is returned for a journal that does not decode.
var errOp = errors.New("consumer: malformed journal")

// opKind tells the changes of Acks apart. The values stand in the Raft log: they are never reused.
type opKind uint8

const (
	opDeliver opKind = 1 // seq was delivered at time at
	opAck     opKind = 2 // seq was acknowledged at time at
	opAckAll  opKind = 3 // everything through seq was acknowledged at time at
	opDelay   opKind = 4 // seq is due again at time at
	opGiveUp  opKind = 5 // seq is not tracked any more: out of deliveries, or gone from the stream
	opSkip    opKind = 6 // everything through seq was passed without a delivery
	opReset   opKind = 7 // start over at seq
	opBase    opKind = 8 // changes nothing: what follows goes on from where seq-1 deliveries had been made
)

// op is one change of Acks:
//
//	| kind 1 | seq uvarint | at varint, only with opDeliver, opAck, opAckAll, opDelay |
type op struct {
	kind opKind
	seq  uint64
	at   int64
}

func (k opKind) timed() bool { return k >= opDeliver && k <= opDelay }

func (o op) append(b []byte) []byte {
	b = append(b, byte(o.kind))
	b = binary.AppendUvarint(b, o.seq)
	if o.kind.timed() {
		b = binary.AppendVarint(b, o.at)
	}
	return b
}

// nextOp decodes the first op of a journal and returns the rest.
func nextOp(b []byte) (o op, rest []byte, err error) {
	if len(b) == 0 || opKind(b[0]) < opDeliver || opKind(b[0]) > opBase {
		return o, nil, errOp
	}
	o.kind = opKind(b[0])
	b = b[1:]
	seq, n := binary.Uvarint(b)
	if n <= 0 || seq == 0 {
		return o, nil, errOp
	}
	o.seq, b = seq, b[n:]
	if o.kind.timed() {
		at, n := binary.Varint(b)
		if n <= 0 {
			return o, nil, errOp
		}
		o.at, b = at, b[n:]
	}
	return o, b, nil
}
