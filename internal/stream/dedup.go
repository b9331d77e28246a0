package stream

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
)

// dedup remembers the Nats-Msg-Id of every message stored within the duplicate window. Each entry is
// an auxiliary record too, written with the message, so that neither a restart nor the removal of
// the message makes a publisher's second attempt a second message.
type dedup struct {
	byID  map[string]stored // the newest message of each id
	queue []seen            // by sequence, which is by time
	head  int               // of queue; what is before it is dropped
}

type stored struct {
	seq  uint64
	time int64
}

type seen struct {
	stored
	id string
}

// find returns the sequence of the message with that id, if it was stored after since. Entries that
// have left the window do not count, whether they are pruned already or not.
func (d *dedup) find(id []byte, since int64) (seq uint64, ok bool) {
	s, ok := d.byID[string(id)]
	return s.seq, ok && s.time > since
}

func (d *dedup) add(tx storage.Tx, id []byte, seq uint64, time int64) {
	e := seen{stored{seq, time}, string(id)}
	d.push(e)
	tx.SetAux(dedupKey(seq), append(binary.AppendVarint(nil, time), id...))
}

func (d *dedup) push(e seen) {
	if d.byID == nil {
		d.byID = make(map[string]stored)
	}
	d.byID[e.id] = e.stored
	d.queue = append(d.queue, e)
}

// prune drops the entries that were stored at or before since.
func (d *dedup) prune(tx storage.Tx, since int64) {
	for d.head < len(d.queue) && d.queue[d.head].time <= since {
		e := &d.queue[d.head]
		if d.byID[e.id] == e.stored {
			delete(d.byID, e.id)
		}
		tx.DeleteAux(dedupKey(e.seq))
		*e = seen{}
		d.head++
	}
	if d.head > 64 && d.head > len(d.queue)/2 {
		n := copy(d.queue, d.queue[d.head:])
		clear(d.queue[n:])
		d.queue, d.head = d.queue[:n], 0
	}
}

// load reads the entries anew.
func (d *dedup) load(r storage.Reader) (err error) {
	*d = dedup{}
	r.AuxRange(auxDedup, func(key string, value []byte) bool {
		tail := strings.TrimPrefix(key, auxDedup)
		time, n := binary.Varint(value)
		if len(tail) != 8 || n <= 0 {
			err = fmt.Errorf("stream: malformed deduplication record %q", key)
			return false
		}
		d.push(seen{stored{binary.BigEndian.Uint64([]byte(tail)), time}, string(value[n:])})
		return true
	})
	return err
}

func dedupKey(seq uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte(auxDedup), seq))
}
