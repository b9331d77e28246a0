package stream

import (
	"encoding/binary"
	"fmt"

	"github.com/cleatkv/cleat/internal/api"
)

// A mirror is a copy with the sequences and times of its origin. Its position is its last sequence.

// Mirrored is a message of a mirror's origin; without a subject it says that there is none between
// Prev and Seq, nor at Seq, and never will be.
type Mirrored struct {
	Origin  uint64 // group of the origin
	Prev    uint64 // what the mirror's last sequence has to be
	Seq     uint64
	Time    int64
	Subject string
	Header  []byte
	Data    []byte
}

// ErrOriginReplaced says that the origin is not the stream that the mirror began as a copy of: the
// sequences of the two mean different messages.
var ErrOriginReplaced = api.ErrMirrorConsumerSetup.With("the origin was deleted and made again: its sequences are other ones")

// mirrored stores a message if the mirror has everything before it.
func (a *apply) mirrored(m *mirroredParts, r *Result) error {
	switch {
	case a.set == nil:
		r.Err = api.ErrUnavailable
		return nil
	case a.set.Config.Mirror == nil:
		r.Err = api.ErrBadRequest
		return nil
	case a.set.Config.Sealed:
		r.Err = api.ErrSealed
		return nil
	}
	key := a.set.Config.Mirror.Key()
	origin, _ := sourcePosition(a.tx, key)
	last := a.tx.State().LastSeq
	switch {
	case origin != 0 && origin != m.origin:
		r.Err = ErrOriginReplaced
		return nil
	case m.prev != last || m.seq <= last:
		r.Err = api.ErrWrongLastSequence.With(last)
		return nil
	}
	p := &publish{publishParts: m.publishParts, seq: m.seq, time: m.time}
	a.prepare(p)
	a.adopt(p)
	missing := len(m.subject) == 0 || a.isTooLarge(p)
	if !missing {
		p.prior, _ = a.tx.Subject(p.name)
		if err := a.checkRoom(p, r); err != nil || r.Err != nil {
			return err // A refusal holds until there is room.
		}
	}
	if origin == 0 {
		a.advance(&copiedParts{source: key, origin: m.origin})
	}
	if missing {
		return a.skipTo(m.seq)
	}
	if m.seq > last+1 {
		if err := a.skipTo(m.seq - 1); err != nil {
			return err
		}
	}
	return a.store(p, r)
}

func (a *apply) skipTo(seq uint64) error {
	if err := a.tx.SkipTo(seq); err != nil {
		return fmt.Errorf("stream: skip to sequence %d: %w", seq, err)
	}
	return nil
}

// mirroredParts is a decoded Mirrored:
//
//	| origin uvarint | prev uvarint | seq uvarint | time varint | as Publish, or nothing |
type mirroredParts struct {
	origin, prev, seq uint64
	time              int64
	publishParts
}

// AppendMirrored appends the command to b. The caller may reuse b once the command is proposed.
func AppendMirrored(b []byte, m *Mirrored) []byte {
	b = append(b, byte(KindMirrored))
	b = binary.AppendUvarint(b, m.Origin)
	b = binary.AppendUvarint(b, m.Prev)
	b = binary.AppendUvarint(b, m.Seq)
	b = binary.AppendVarint(b, m.Time)
	if m.Subject == "" {
		return b
	}
	return appendMessage(b, m.Subject, m.Header, m.Data)
}

func decodeMirrored(b []byte) (m *mirroredParts, err error) {
	m = new(mirroredParts)
	for _, n := range []*uint64{&m.origin, &m.prev, &m.seq} {
		if *n, b, err = takeUvarint(b); err != nil {
			return nil, err
		}
	}
	time, n := binary.Varint(b)
	if n <= 0 {
		return nil, errCommand
	}
	m.time = time
	if b = b[n:]; len(b) > 0 {
		m.publishParts, err = decodePublish(b)
	}
	return m, err
}
