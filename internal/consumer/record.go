package consumer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tidwall/btree"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// A replicated consumer is kept in auxiliary records of its stream's engine:
//
//	consumer/<name>               configuration, creation, start, as JSON
//	consumer-at/<name>            delivered and floor: six uvarints and varints, see storeMarks
//	consumer-out/<name>/<seq 8>   an outstanding message: consumer sequence, deliveries, due
//
// One record for each outstanding message makes an acknowledgement cost the same however many
// there are. Names have no slash in them.
const (
	recordEntry   = "consumer/"
	recordMarks   = "consumer-at/"
	recordUnacked = "consumer-out/"
)

var errRecord = errors.New("consumer: malformed record")

// entryRecord is the JSON form of an Entry.
type entryRecord struct {
	Config  api.ConsumerConfig `json:"config"`
	Created int64              `json:"created"`
	Start   uint64             `json:"start"`
	Snap    uint64             `json:"snap,omitempty"`
}

func (e *Entry) store(tx storage.Tx) {
	b, err := json.Marshal(entryRecord{e.Config, e.Created, e.Start.Seq, e.Start.Snap})
	if err != nil {
		panic(fmt.Sprintf("consumer: a checked configuration does not marshal: %v", err))
	}
	tx.SetAux(recordEntry+e.Name(), b)
}

func (e *Entry) storeMarks(tx storage.Tx) {
	b := make([]byte, 0, 32)
	for _, m := range []Mark{e.acks.delivered, e.acks.floor} {
		b = binary.AppendUvarint(b, m.Consumer)
		b = binary.AppendUvarint(b, m.Stream)
		b = binary.AppendVarint(b, m.Active)
	}
	tx.SetAux(recordMarks+e.Name(), b)
}

func (e *Entry) unackedKey(seq uint64) string {
	b := append(make([]byte, 0, len(recordUnacked)+len(e.Name())+9), recordUnacked...)
	b = append(b, e.Name()...)
	b = append(b, '/')
	return string(binary.BigEndian.AppendUint64(b, seq))
}

func (e *Entry) storeUnacked(tx storage.Tx, seq uint64, u unacked) {
	b := binary.AppendUvarint(make([]byte, 0, 16), u.consumer)
	b = binary.AppendUvarint(b, uint64(u.count))
	b = binary.AppendVarint(b, u.due)
	tx.SetAux(e.unackedKey(seq), b)
}

func (e *Entry) eraseUnacked(tx storage.Tx, seq uint64) { tx.DeleteAux(e.unackedKey(seq)) }

func (e *Entry) erase(tx storage.Tx) {
	e.acks.pending.Scan(func(seq uint64, _ unacked) bool {
		e.eraseUnacked(tx, seq)
		return true
	})
	tx.DeleteAux(recordMarks + e.Name())
	tx.DeleteAux(recordEntry + e.Name())
}

func loadEntries(r storage.Reader) (entries btree.Map[string, *Entry], err error) {
	r.AuxRange(recordEntry, func(key string, value []byte) bool {
		var e *Entry
		if e, err = loadEntry(r, value); err != nil {
			err = fmt.Errorf("%s: %w", key, err)
			return false
		}
		entries.Set(e.Name(), e)
		return true
	})
	return entries, errors.Join(err, r.Err())
}

func loadEntry(r storage.Reader, value []byte) (*Entry, error) {
	var rec entryRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return nil, err
	}
	e := &Entry{Config: rec.Config, Created: rec.Created, Start: Start{rec.Start, rec.Snap}}
	e.acks = newAcks(ruleOf(&e.Config), max(rec.Start, 1))
	marks, ok := r.Aux(recordMarks + e.Name())
	if !ok {
		return nil, errRecord
	}
	d := decoder{b: marks}
	for _, m := range []*Mark{&e.acks.delivered, &e.acks.floor} {
		m.Consumer, m.Stream, m.Active = d.uvarint(), d.uvarint(), d.varint()
	}
	prefix := recordUnacked + e.Name() + "/"
	r.AuxRange(prefix, func(key string, value []byte) bool {
		seq := strings.TrimPrefix(key, prefix)
		u := decoder{b: value}
		entry := unacked{consumer: u.uvarint(), count: int(u.uvarint()), due: u.varint()}
		if len(seq) != 8 || u.bad {
			d.bad = true
			return false
		}
		e.acks.restore(binary.BigEndian.Uint64([]byte(seq)), entry)
		return true
	})
	if d.bad {
		return nil, errRecord
	}
	return e, nil
}

// EncodeState returns the body of the command that carries a journal of Acks:
//
//	| length of name uvarint | name | created varint | ops ... |
func EncodeState(name string, created int64, journal []byte) []byte {
	b := make([]byte, 0, len(name)+len(journal)+16)
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	b = binary.AppendVarint(b, created)
	return append(b, journal...)
}

func decodeState(body []byte) (name string, created int64, ops []byte, err error) {
	d := decoder{b: body}
	name = string(d.bytes(d.uvarint()))
	created = d.varint()
	if d.bad {
		return "", 0, nil, errOp
	}
	return name, created, d.b, nil
}

// decoder reads varints until something is wrong, which it remembers.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	return v * d.took(n)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	return v * int64(d.took(n))
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

// took consumes n bytes and returns 1, or 0 if there was nothing to read.
func (d *decoder) took(n int) uint64 {
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return 1
}
