package stream

import (
	"encoding/binary"

	"github.com/cleatkv/cleat/internal/api"
)

// A stream that is made of a backup is created without subjects and marked as being restored. Its
// messages come in by commands of their own, with the sequences and times that they had; the mark
// goes with the configuration that it has in the end.

// Restored is a message of a backup; without a subject it says that there is none between Prev and
// Seq, nor at Seq.
type Restored struct {
	Prev    uint64 // what the stream's last sequence has to be
	Seq     uint64
	Time    int64
	Subject string
	Header  []byte
	Data    []byte
}

// restored stores a message if everything before it is there.
func (a *apply) restored(m *mirroredParts, r *Result) error {
	last := a.tx.State().LastSeq
	switch {
	case a.set == nil:
		r.Err = api.ErrUnavailable
	case !a.set.Config.Restoring():
		r.Err = api.ErrBadRequest
	case m.prev != last || m.seq <= last:
		r.Err = api.ErrWrongLastSequence.With(last)
	}
	if r.Err != nil {
		return nil
	}
	if len(m.subject) == 0 {
		return a.skipTo(m.seq)
	}
	p := &publish{publishParts: m.publishParts, seq: m.seq, time: m.time}
	a.prepare(p)
	a.adopt(p)
	p.prior, _ = a.tx.Subject(p.name)
	if err := a.checkRoom(p, r); err != nil || r.Err != nil {
		return err
	}
	if m.seq > last+1 {
		if err := a.skipTo(m.seq - 1); err != nil {
			return err
		}
	}
	return a.store(p, r)
}

// AppendRestored appends the command to b. It is encoded as Mirrored, of origin 0. The caller may
// reuse b once the command is proposed.
func AppendRestored(b []byte, m *Restored) []byte {
	b = append(b, byte(KindRestored), 0)
	b = binary.AppendUvarint(b, m.Prev)
	b = binary.AppendUvarint(b, m.Seq)
	b = binary.AppendVarint(b, m.Time)
	if m.Subject == "" {
		return b
	}
	return appendMessage(b, m.Subject, m.Header, m.Data)
}
