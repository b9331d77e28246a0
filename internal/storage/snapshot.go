package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cleatkv/cleat/internal/fields"
)

// A snapshot stream carries the whole state of a stream replica from one engine to another, of
// whatever kind. It is a header and a sequence of frames:
//
//	header: | magic "CLEATSNP" 8 | version 4 |
//	frame:  | type 1 | length 4 | payload ... | crc32c 4 |
//
// The checksum covers the frame's number (8 bytes, from 0, not sent), type, length and payload, so
// that a lost, repeated or swapped frame is found as surely as a flipped bit. The first frame is
// the state, then come messages in sequence order, then auxiliary records in key order, and last
// the end frame with the counts. A stream without its end frame is damaged.
//
// Integers are little endian; "uv" is an unsigned varint, "bytes" a uv length and that many bytes.
//
//	state 1:    applied index uv | term uv | conf bytes | last seq uv | last time 8 | msgs uv | bytes uv
//	messages 2: repeated: seq uv | time 8 | expires 8 | subject bytes | header uv (0: nil, else length+1) ... | data bytes
//	aux 3:      repeated: key bytes | value bytes
//	end 4:      messages uv | aux records uv
const (
	snapshotMagic   = "CLEATSNP"
	snapshotVersion = 1

	frameState    = 1
	frameMessages = 2
	frameAux      = 3
	frameEnd      = 4

	snapshotFrameBytes    = 256 << 10 // frames are cut at this size
	snapshotFrameBytesMax = 256 << 20 // no sane frame is larger: one message of 64 MiB fits
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SnapshotState is what a snapshot says ahead of its messages.
type SnapshotState struct {
	Applied  Applied
	LastSeq  uint64
	LastTime int64
	Msgs     uint64
	Bytes    uint64
}

// SnapshotWriter writes a snapshot stream: messages in sequence order, then auxiliary records in
// key order, then Close.
type SnapshotWriter struct {
	w      io.Writer
	frames uint64
	kind   byte // of the frame in buf
	buf    []byte
	msgs   uint64
	aux    uint64
	err    error
}

// NewSnapshotWriter writes the header and the state.
func NewSnapshotWriter(w io.Writer, s SnapshotState) (*SnapshotWriter, error) {
	sw := &SnapshotWriter{w: w}
	head := binary.LittleEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion)
	if _, err := w.Write(head); err != nil {
		return nil, fmt.Errorf("storage: write snapshot: %w", err)
	}
	sw.begin(frameState)
	sw.buf = binary.AppendUvarint(sw.buf, s.Applied.Index)
	sw.buf = binary.AppendUvarint(sw.buf, s.Applied.Term)
	sw.buf = appendBytes(sw.buf, s.Applied.Conf)
	sw.buf = binary.AppendUvarint(sw.buf, s.LastSeq)
	sw.buf = binary.LittleEndian.AppendUint64(sw.buf, uint64(s.LastTime))
	sw.buf = binary.AppendUvarint(sw.buf, s.Msgs)
	sw.buf = binary.AppendUvarint(sw.buf, s.Bytes)
	return sw, sw.flush()
}

// Message adds a message.
func (sw *SnapshotWriter) Message(m *Message) error {
	sw.begin(frameMessages)
	sw.msgs++
	sw.buf = binary.AppendUvarint(sw.buf, m.Seq)
	sw.buf = binary.LittleEndian.AppendUint64(sw.buf, uint64(m.Time))
	sw.buf = binary.LittleEndian.AppendUint64(sw.buf, uint64(m.Expires))
	sw.buf = appendBytes(sw.buf, m.Subject)
	if m.Header == nil {
		sw.buf = append(sw.buf, 0)
	} else {
		sw.buf = binary.AppendUvarint(sw.buf, uint64(len(m.Header))+1)
		sw.buf = append(sw.buf, m.Header...)
	}
	sw.buf = appendBytes(sw.buf, m.Data)
	return sw.flushIfFull()
}

// Aux adds an auxiliary record.
func (sw *SnapshotWriter) Aux(key string, value []byte) error {
	sw.begin(frameAux)
	sw.aux++
	sw.buf = appendBytes(sw.buf, key)
	sw.buf = appendBytes(sw.buf, value)
	return sw.flushIfFull()
}

// Close writes the end of the stream.
func (sw *SnapshotWriter) Close() error {
	sw.begin(frameEnd)
	sw.buf = binary.AppendUvarint(sw.buf, sw.msgs)
	sw.buf = binary.AppendUvarint(sw.buf, sw.aux)
	return sw.flush()
}

// begin makes kind the kind of the frame under construction.
func (sw *SnapshotWriter) begin(kind byte) {
	if sw.kind != kind {
		sw.err = errors.Join(sw.err, sw.flush())
		sw.kind = kind
	}
	if len(sw.buf) == 0 {
		sw.buf = append(sw.buf, kind, 0, 0, 0, 0)
	}
}

func (sw *SnapshotWriter) flushIfFull() error {
	if len(sw.buf) < snapshotFrameBytes {
		return sw.err
	}
	return sw.flush()
}

func (sw *SnapshotWriter) flush() error {
	if sw.err != nil || len(sw.buf) == 0 {
		return sw.err
	}
	binary.LittleEndian.PutUint32(sw.buf[1:], uint32(len(sw.buf)-5))
	sw.buf = binary.LittleEndian.AppendUint32(sw.buf, frameSum(sw.frames, sw.buf))
	sw.frames++
	_, err := sw.w.Write(sw.buf)
	sw.buf = sw.buf[:0]
	if err != nil {
		sw.err = fmt.Errorf("storage: write snapshot: %w", err)
	}
	return sw.err
}

func frameSum(number uint64, frame []byte) uint32 {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], number)
	return crc32.Update(crc32.Checksum(n[:], castagnoli), castagnoli, frame)
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// SnapshotReader reads a snapshot stream and checks it. What it returned is to be trusted only
// once Next has returned io.EOF: only then is the stream known to be whole.
type SnapshotReader struct {
	r      io.Reader
	state  SnapshotState
	frames uint64
	offset int64 // of the frame being read
	read   int64 // bytes read so far
	kind   byte
	frame  []byte // rest of the current frame's payload
	msgs   uint64
	bytes  uint64
	aux    uint64
	last   Message // without its slices, to check the order
	key    string
	done   bool
}

// SnapshotItem is a message or an auxiliary record.
type SnapshotItem struct {
	Message *Message // nil: an auxiliary record
	Key     string
	Value   []byte
}

// NewSnapshotReader reads the header and the state. Damage is a *CorruptError with Path
// "snapshot".
func NewSnapshotReader(r io.Reader) (*SnapshotReader, error) {
	sr := &SnapshotReader{r: r}
	var head [len(snapshotMagic) + 4]byte
	if err := sr.full(head[:]); err != nil {
		return nil, err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, sr.corrupt("no snapshot: wrong magic")
	}
	if v := binary.LittleEndian.Uint32(head[len(snapshotMagic):]); v != snapshotVersion {
		return nil, sr.corrupt(fmt.Sprintf("snapshot version %d is not known", v))
	}
	if err := sr.nextFrame(); err != nil {
		return nil, err
	}
	if sr.kind != frameState {
		return nil, sr.corrupt("the first frame is not the state")
	}
	d := fields.Reader{B: sr.frame}
	sr.state.Applied.Index = d.Uvarint()
	sr.state.Applied.Term = d.Uvarint()
	sr.state.Applied.Conf = d.Bytes()
	sr.state.LastSeq = d.Uvarint()
	sr.state.LastTime = int64(d.Uint64())
	sr.state.Msgs = d.Uvarint()
	sr.state.Bytes = d.Uvarint()
	if d.Bad || len(d.B) != 0 {
		return nil, sr.corrupt("the state does not decode")
	}
	if len(sr.state.Applied.Conf) == 0 {
		sr.state.Applied.Conf = nil
	}
	sr.frame = nil
	return sr, nil
}

// State is the snapshot's summary.
func (sr *SnapshotReader) State() SnapshotState { return sr.state }

// Next returns the next message or auxiliary record, or io.EOF after the checked end. The item's
// slices stay valid.
func (sr *SnapshotReader) Next() (SnapshotItem, error) {
	if sr.done {
		return SnapshotItem{}, io.EOF
	}
	for len(sr.frame) == 0 {
		kind := sr.kind
		if err := sr.nextFrame(); err != nil {
			return SnapshotItem{}, err
		}
		if sr.kind < kind || sr.kind == frameState || sr.kind > frameEnd {
			return SnapshotItem{}, sr.corrupt(fmt.Sprintf("frame of type %d after one of type %d", sr.kind, kind))
		}
	}
	switch sr.kind {
	case frameMessages:
		return sr.message()
	case frameAux:
		return sr.record()
	}
	return SnapshotItem{}, sr.end()
}

func (sr *SnapshotReader) message() (SnapshotItem, error) {
	d := fields.Reader{B: sr.frame}
	m := &Message{}
	m.Seq = d.Uvarint()
	m.Time = int64(d.Uint64())
	m.Expires = int64(d.Uint64())
	m.Subject = string(d.Bytes())
	if n := d.Uvarint(); n > 0 {
		m.Header = d.Take(n - 1)
	}
	m.Data = d.Bytes()
	if d.Bad {
		return SnapshotItem{}, sr.corrupt("a message does not decode")
	}
	if m.Seq <= sr.last.Seq || m.Seq > sr.state.LastSeq {
		return SnapshotItem{}, sr.corrupt(fmt.Sprintf("sequence %d after %d, with %d the last", m.Seq, sr.last.Seq, sr.state.LastSeq))
	}
	if sr.msgs > 0 && m.Time <= sr.last.Time || m.Time > sr.state.LastTime {
		return SnapshotItem{}, sr.corrupt(fmt.Sprintf("time of sequence %d is out of order", m.Seq))
	}
	sr.frame = d.B
	sr.msgs++
	sr.bytes += m.Size()
	sr.last = Message{Seq: m.Seq, Time: m.Time}
	return SnapshotItem{Message: m}, nil
}

func (sr *SnapshotReader) record() (SnapshotItem, error) {
	d := fields.Reader{B: sr.frame}
	it := SnapshotItem{Key: string(d.Bytes()), Value: d.Bytes()}
	if d.Bad {
		return SnapshotItem{}, sr.corrupt("an auxiliary record does not decode")
	}
	if sr.aux > 0 && it.Key <= sr.key {
		return SnapshotItem{}, sr.corrupt("auxiliary records are out of order")
	}
	sr.frame = d.B
	sr.aux++
	sr.key = it.Key
	return it, nil
}

func (sr *SnapshotReader) end() error {
	d := fields.Reader{B: sr.frame}
	msgs, aux := d.Uvarint(), d.Uvarint()
	if d.Bad || len(d.B) != 0 || msgs != sr.msgs || aux != sr.aux {
		return sr.corrupt("the end does not agree with what came before")
	}
	if sr.msgs != sr.state.Msgs || sr.bytes != sr.state.Bytes {
		return sr.corrupt(fmt.Sprintf("%d messages of %d bytes where the state says %d of %d",
			sr.msgs, sr.bytes, sr.state.Msgs, sr.state.Bytes))
	}
	sr.done = true
	return io.EOF
}

// nextFrame reads and checks one frame. It grows the buffer as bytes arrive, so that a damaged
// length does not claim memory that nothing fills.
func (sr *SnapshotReader) nextFrame() error {
	sr.offset = sr.read
	head := make([]byte, 5)
	if err := sr.full(head); err != nil {
		return err
	}
	length := int(binary.LittleEndian.Uint32(head[1:]))
	if length > snapshotFrameBytesMax {
		return sr.corrupt(fmt.Sprintf("frame of %d bytes", length))
	}
	buf := head
	for rest := length + 4; rest > 0; {
		n := min(rest, 1<<20)
		at := len(buf)
		buf = append(buf, make([]byte, n)...)
		if err := sr.full(buf[at:]); err != nil {
			return err
		}
		rest -= n
	}
	body := buf[:5+length]
	if frameSum(sr.frames, body) != binary.LittleEndian.Uint32(buf[5+length:]) {
		return sr.corrupt("checksum mismatch")
	}
	sr.frames++
	sr.kind = body[0]
	sr.frame = body[5:]
	if length == 0 {
		return sr.corrupt("empty frame")
	}
	return nil
}

func (sr *SnapshotReader) full(p []byte) error {
	n, err := io.ReadFull(sr.r, p)
	sr.read += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return sr.corrupt("the stream ends too early")
	}
	if err != nil {
		return fmt.Errorf("storage: read snapshot at %d: %w", sr.read, err)
	}
	return nil
}

func (sr *SnapshotReader) corrupt(detail string) error {
	return &CorruptError{Path: "snapshot", Offset: sr.offset, Detail: detail}
}
