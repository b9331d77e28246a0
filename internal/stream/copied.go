package stream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// A stream may copy from others, its origins. Whoever reads an origin proposes each message with the
// position that it believes the copy to have reached; the message is taken only if that is so when it
// is applied. So each is stored once and in order, whoever proposes it, and however often.

// auxSource, with a source's key behind it, is how far that source has been copied:
// | origin uvarint | sequence uvarint |. It outlives a source that is taken out of the
// configuration, so that one put back goes on where it was.
const auxSource = "source/"

// Copied is a message of an origin, on its way into a stream that copies it.
type Copied struct {
	Source  string // api.StreamSource.Key
	Origin  uint64 // group of the origin: another stream of the same name has another one
	Prev    uint64 // sequence in the origin of the message copied before; 0 if there was none
	Seq     uint64 // its own sequence there
	Subject string
	Header  []byte
	Data    []byte
}

// SourcePosition is how far a source has been copied: which origin, and the sequence there.
func (s *Stream) SourcePosition(key string) (origin, seq uint64, err error) {
	origin, seq = sourcePosition(s.engine, key)
	return origin, seq, s.engine.Err()
}

func sourcePosition(r storage.Reader, key string) (origin, seq uint64) {
	b, ok := r.Aux(auxSource + key)
	if !ok {
		return 0, 0
	}
	origin, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, 0
	}
	seq, _ = binary.Uvarint(b[n:])
	return origin, seq
}

// copied stores a message of an origin if it is the one that is to come next. A result without a
// sequence says that the message was passed over.
func (a *apply) copied(c *copiedParts, r *Result) error {
	switch {
	case a.set == nil:
		r.Err = api.ErrUnavailable
	case !a.set.sources[c.source]:
		r.Err = api.ErrBadRequest
	case a.set.Config.Sealed:
		r.Err = api.ErrSealed
	}
	if r.Err != nil {
		return nil
	}
	origin, last := sourcePosition(a.tx, c.source)
	if c.origin > origin {
		last = 0 // The origin was deleted and made again.
	}
	if c.origin < origin || c.prev != last || c.seq <= last {
		r.Err = api.ErrWrongLastSequence.With(last)
		return nil
	}
	p := &publish{publishParts: c.publishParts}
	a.prepare(p)
	a.adopt(p)
	if a.isTooLarge(p) {
		a.advance(c)
		return nil
	}
	if seq, ok := a.duplicateOf(p); ok {
		r.Seq, r.Duplicate = seq, true
		a.advance(c)
		return nil
	}
	p.prior, _ = a.tx.Subject(p.name)
	if err := a.checkRoom(p, r); err != nil || r.Err != nil {
		return err // A refusal holds until there is room.
	}
	a.advance(c)
	return a.store(p, r)
}

// advance records that the message has been dealt with.
func (a *apply) advance(c *copiedParts) {
	b := binary.AppendUvarint(nil, c.origin)
	a.tx.SetAux(auxSource+c.source, binary.AppendUvarint(b, c.seq))
}

// adopt does what the headers ask for as far as the configuration allows it: a copy is not refused
// for what the origin has accepted.
func (a *apply) adopt(p *publish) {
	c := &a.set.Config
	if ttl, ok := parseTTL(p.marks.ttl); ok && c.AllowMsgTTL {
		p.ttl = ttl
	}
	if c.AllowRollup && p.parseRollup(true) != nil {
		p.rollup = rollupNone
	}
}

// isTooLarge tells whether the stream will never have room for a message.
func (a *apply) isTooLarge(p *publish) bool {
	c := &a.set.Config
	size := len(p.header) + len(p.data)
	return c.MaxMsgSize >= 0 && size > int(c.MaxMsgSize) || len(p.header) > headerBytesMax ||
		c.MaxBytes > 0 && storage.RecordSize(len(p.name), len(p.header), len(p.data)) > uint64(c.MaxBytes)
}

// copiedParts is a decoded Copied:
//
//	| source length uvarint | source | origin uvarint | prev uvarint | seq uvarint | as Publish |
type copiedParts struct {
	source            string
	origin, prev, seq uint64
	publishParts
}

// AppendCopied appends the command to b. The caller may reuse b once the command is proposed.
func AppendCopied(b []byte, c *Copied) []byte {
	b = append(b, byte(KindCopied))
	b = appendBytes(b, []byte(c.Source))
	b = binary.AppendUvarint(b, c.Origin)
	b = binary.AppendUvarint(b, c.Prev)
	b = binary.AppendUvarint(b, c.Seq)
	return appendMessage(b, c.Subject, c.Header, c.Data)
}

func decodeCopied(b []byte) (*copiedParts, error) {
	c := new(copiedParts)
	source, b, err := takeBytes(b)
	if err != nil {
		return nil, err
	}
	c.source = string(source)
	for _, n := range []*uint64{&c.origin, &c.prev, &c.seq} {
		if *n, b, err = takeUvarint(b); err != nil {
			return nil, err
		}
	}
	c.publishParts, err = decodePublish(b)
	return c, err
}

// HeaderOfCopy makes the header of a message that is copied by a source: what the origin's publisher
// or an earlier copy said to the origin alone is left out, and where it is from is added.
func HeaderOfCopy(m *storage.Message, key string) []byte {
	h := append(make([]byte, 0, len(m.Header)+len(key)+len(m.Subject)+64), HeaderLine...)
	for rest := m.Header; ; {
		name, value, r, ok := nextHeader(rest)
		if !ok {
			break
		}
		if rest = r; !leftOut(name) {
			h = AppendLine(h, string(name), string(value))
		}
	}
	h = fmt.Appendf(h, "%s: %s\r\n", hdrStreamSource, sourceValue(key, m))
	return append(h, "\r\n"...)
}

// sourceValue puts the sequence behind the stream's name and the subject at the end.
func sourceValue(key string, m *storage.Message) string {
	name, subjects, _ := strings.Cut(key, " ")
	return fmt.Sprintf("%s %d %s %s", name, m.Seq, subjects, m.Subject)
}

func leftOut(name []byte) bool {
	return bytes.HasPrefix(name, []byte("Nats-Expected-")) || bytes.HasPrefix(name, []byte("Nats-Batch-")) ||
		string(name) == hdrStreamSource
}
