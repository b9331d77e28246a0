package index

import (
	"encoding/binary"
	"errors"

	"github.com/cleatkv/cleat/internal/fields"
)

// The encoding below is what an engine on disk keeps of an index: frames, each a kind and a
// payload, that a Loader takes one after another. Engines frame and checksum them. A base is the
// leaves of both trees as they are, see pages.go, and all auxiliary records; a delta to it is the
// sequences removed and moved since, the rows added, and the records changed.
//
//	rows 1:    repeated: seq uv (delta) | time uv (delta) | expires sv (0, -1, or delta to time, +1) |
//	           size uv | block uv | offset uv | len uv | shared uv | rest uv ...
//	           (the first shared bytes of the subject are those of the row before)
//	removed 2: repeated: seq uv (delta)
//	moved 3:   repeated: seq uv (delta) | block uv | offset uv | len uv
//	set 4:     repeated: key | value, each uv length and bytes
//	deleted 5: repeated: key, uv length and bytes
//
// Deltas begin at 0 in each frame.
const (
	FrameRows    = 1
	FrameRemoved = 2
	FrameMoved   = 3
	FrameSet     = 4
	FrameDeleted = 5

	FrameSeqs     = 6
	FrameSubjects = 7
)

const frameBytes = 256 << 10 // frames are cut at this size

// Emit takes one frame; it does not keep payload.
type Emit func(kind byte, payload []byte) error

// framer collects the items of one kind into frames.
type framer struct {
	kind byte
	emit Emit
	buf  []byte
	err  error
}

// full ends the frame if it is large enough, and tells whether a new one begins.
func (f *framer) full() bool {
	if len(f.buf) < frameBytes {
		return false
	}
	f.flush()
	return true
}

func (f *framer) flush() {
	if f.err == nil && len(f.buf) > 0 {
		f.err = f.emit(f.kind, f.buf)
	}
	f.buf = f.buf[:0]
}

func (f *framer) uvarint(v uint64) { f.buf = binary.AppendUvarint(f.buf, v) }

func (f *framer) bytes(v []byte) {
	f.uvarint(uint64(len(v)))
	f.buf = append(f.buf, v...)
}

// EncodeRows emits the entries at or above from.
func (x *Index) EncodeRows(from uint64, emit Emit) error {
	f := framer{kind: FrameRows, emit: emit}
	var last Entry
	var subject []byte // last's own
	x.Ascend(from, func(e *Entry) bool {
		if f.full() {
			last = Entry{}
		}
		f.uvarint(e.Seq - last.Seq)
		f.uvarint(uint64(e.Time - last.Time))
		f.buf = binary.AppendVarint(f.buf, packExpires(e))
		f.uvarint(e.Size)
		f.loc(e.Loc)
		shared := sharedPrefix(last.Subject, e.Subject)
		f.uvarint(uint64(shared))
		f.uvarint(uint64(len(e.Subject) - shared))
		f.buf = append(f.buf, e.Subject[shared:]...)
		last = *e
		subject = append(subject[:0], e.Subject...)
		last.Subject = bytesAsString(subject)
		return f.err == nil
	})
	f.flush()
	return f.err
}

func (f *framer) loc(l Loc) {
	f.uvarint(uint64(l.Block))
	f.uvarint(uint64(l.Offset))
	f.uvarint(uint64(l.Len))
}

// packExpires makes the common expiries small: none is 0, never is -1, others are seen from the
// message's time and shifted away from those two.
func packExpires(e *Entry) int64 {
	if e.Expires <= 0 {
		return e.Expires
	}
	if d := e.Expires - e.Time; d >= 0 {
		return d + 1
	}
	return e.Expires - e.Time - 1
}

func unpackExpires(v, time int64) int64 {
	switch {
	case v == 0 || v == -1:
		return v
	case v > 0:
		return time + v - 1
	}
	return time + v + 1
}

func sharedPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// EncodeRemoved emits sequences, ascending, as removed.
func EncodeRemoved(seqs []uint64, emit Emit) error {
	f := framer{kind: FrameRemoved, emit: emit}
	last := uint64(0)
	for _, seq := range seqs {
		if f.full() {
			last = 0
		}
		f.uvarint(seq - last)
		last = seq
	}
	f.flush()
	return f.err
}

// EncodeMoved emits where the entries of the sequences, ascending, are now. Those that are gone
// are left out.
func (x *Index) EncodeMoved(seqs []uint64, emit Emit) error {
	f := framer{kind: FrameMoved, emit: emit}
	last := uint64(0)
	for _, seq := range seqs {
		e, ok := x.Get(seq)
		if !ok {
			continue
		}
		if f.full() {
			last = 0
		}
		f.uvarint(seq - last)
		f.loc(e.Loc)
		last = seq
	}
	f.flush()
	return f.err
}

// encodeAux emits all auxiliary records.
func (x *Index) encodeAux(emit Emit) error {
	f := framer{kind: FrameSet, emit: emit}
	x.AuxRange("", func(key string, value []byte) bool {
		f.full()
		f.bytes([]byte(key))
		f.bytes(value)
		return f.err == nil
	})
	f.flush()
	return f.err
}

// EncodeAuxKeys emits the auxiliary records with these keys as they are now: set, or deleted.
func (x *Index) EncodeAuxKeys(keys []string, emit Emit) error {
	set := framer{kind: FrameSet, emit: emit}
	deleted := framer{kind: FrameDeleted, emit: emit}
	for _, key := range keys {
		if value, ok := x.Aux(key); ok {
			set.full()
			set.bytes([]byte(key))
			set.bytes(value)
		} else {
			deleted.full()
			deleted.bytes([]byte(key))
		}
	}
	set.flush()
	deleted.flush()
	return errors.Join(set.err, deleted.err)
}

var errFrame = errors.New("an index frame does not decode")

// decode applies one frame of a delta.
func (x *Index) decode(kind byte, payload []byte) error {
	d := reader{Reader: fields.Reader{B: payload}}
	var apply func(*reader) error
	switch kind {
	case FrameRows:
		var last Entry
		apply = func(d *reader) error { return x.decodeRow(d, &last) }
	case FrameRemoved:
		apply = x.decodeRemoved
	case FrameMoved:
		apply = x.decodeMoved
	case FrameSet:
		apply = func(d *reader) error {
			key := string(d.Bytes())
			x.SetAux(key, append([]byte{}, d.Bytes()...))
			return nil
		}
	case FrameDeleted:
		apply = func(d *reader) error { x.DeleteAux(string(d.Bytes())); return nil }
	default:
		return errFrame
	}
	for len(d.B) > 0 {
		if err := apply(&d); err != nil {
			return err
		}
		if d.Bad {
			return errFrame
		}
	}
	return nil
}

func (x *Index) decodeRow(d *reader, last *Entry) error {
	e := Entry{Seq: last.Seq + d.Uvarint(), Time: last.Time + int64(d.Uvarint())}
	e.Expires = unpackExpires(d.Varint(), e.Time)
	e.Size = d.Uvarint()
	e.Loc = d.loc()
	shared := d.Uvarint()
	rest := d.Bytes()
	if d.Bad || shared > uint64(len(last.Subject)) {
		return errFrame
	}
	e.Subject = last.Subject[:shared] + string(rest)
	*last = e
	return x.Append(e)
}

func (x *Index) decodeRemoved(d *reader) error {
	d.seq += d.Uvarint()
	if _, ok := x.Remove(d.seq); !ok {
		return errFrame
	}
	return nil
}

func (x *Index) decodeMoved(d *reader) error {
	d.seq += d.Uvarint()
	e, ok := x.Get(d.seq)
	if !ok || !x.Move(d.seq, e.Loc, d.loc()) {
		return errFrame
	}
	return nil
}

// reader reads what index files are made of.
type reader struct {
	fields.Reader
	seq uint64
}

func (d *reader) loc() Loc {
	l := Loc{Block: uint32(d.Uvarint()), Offset: uint32(d.Uvarint()), Len: uint32(d.Uvarint())}
	return l
}
