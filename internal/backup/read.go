package backup

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/s2"

	"github.com/cleatkv/cleat/internal/storage"
)

// Bounds on what one entry may claim to be, well above what servers accept.
const (
	nameLenMax   = 64 << 10
	entryLenMax  = 128 << 20
	jsonLenMax   = 16 << 20
	blockLenMax  = 1 << 30
	tarFilesMax  = 1 << 20
	eraseBit     = 1 << 63
	tombstoneBit = 1 << 62
)

// ErrArchive is what all errors of a damaged or unknown archive wrap.
var ErrArchive = errors.New("not a whole backup of a stream")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrArchive, fmt.Sprintf(format, args...))
}

// Visitor is told what is in an archive, in any order but that of the messages' sequences.
type Visitor interface {
	Consumer(c *Consumer) error
	// Message is given one message, which it may keep.
	Message(m *storage.Message) error
	// Removed says that a message given before was removed later.
	Removed(seq uint64) error
}

// Read reads an archive to its end, of the stream of that name. An error of the visitor ends it.
func Read(r io.Reader, stream string, v Visitor) error {
	return read(bufio.NewReaderSize(s2.NewReader(r), 64<<10), stream, v)
}

func read(in *bufio.Reader, stream string, v Visitor) error {
	start, err := in.Peek(len(magic))
	if err != nil {
		return damaged("%v", early(err))
	}
	if string(start) != magic {
		return readTar(in, stream, v)
	}
	if _, err := in.Discard(len(magic)); err != nil {
		return damaged("%v", early(err))
	}
	var last uint64
	for {
		e, err := nextEntry(in)
		if err != nil {
			return damaged("behind message %d: %v", last, early(err))
		}
		switch {
		case e.name == "" && e.seq == 0:
			return atEnd(in)
		case e.seq == 0:
			if err := readFile(e, v); err != nil {
				return err
			}
		case e.seq <= last:
			return damaged("message %d follows message %d", e.seq, last)
		default:
			last = e.seq
			m := &storage.Message{Seq: e.seq, Time: e.time, Subject: e.name, Data: e.data}
			if len(e.header) > 0 {
				m.Header = e.header
			}
			if err := v.Message(m); err != nil {
				return err
			}
		}
	}
}

// early names what io calls the end.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// atEnd makes sure that the compressed stream ends where the archive does, so that its checksums have been checked.
func atEnd(in *bufio.Reader) error {
	if _, err := in.ReadByte(); err != io.EOF {
		return damaged("something follows its end (%v)", err)
	}
	return nil
}

func readFile(e *entry, v Visitor) error {
	if !strings.HasPrefix(e.name, consumerPrefix) {
		return nil // The state of the stream, which follows from its messages, or what a later version adds.
	}
	c := new(Consumer)
	if err := json.Unmarshal(e.data, c); err != nil {
		return damaged("%s: %v", e.name, err)
	}
	return v.Consumer(c)
}

type entry struct {
	name         string
	time         int64
	seq          uint64
	header, data []byte
}

func nextEntry(in *bufio.Reader) (*entry, error) {
	var n [3]uint64 // Lengths of name, header, data.
	e := new(entry)
	var err error
	if n[0], err = binary.ReadUvarint(in); err != nil {
		return nil, err
	}
	if e.time, err = binary.ReadVarint(in); err != nil {
		return nil, err
	}
	for _, to := range []*uint64{&e.seq, &n[1], &n[2]} {
		if *to, err = binary.ReadUvarint(in); err != nil {
			return nil, err
		}
	}
	if n[0] > nameLenMax || n[1] > entryLenMax || n[2] > entryLenMax {
		return nil, fmt.Errorf("an entry of %d, %d and %d bytes", n[0], n[1], n[2])
	}
	b, err := readBytes(in, int(n[0]+n[1]+n[2]))
	if err != nil {
		return nil, err
	}
	e.name, e.header, e.data = string(b[:n[0]]), b[n[0]:n[0]+n[1]:n[0]+n[1]], b[n[0]+n[1]:]
	return e, nil
}

// readBytes reads n bytes. Memory follows what is really there, not what n claims.
func readBytes(in io.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	if n <= step {
		b := make([]byte, n)
		_, err := io.ReadFull(in, b)
		return b, err
	}
	b, err := io.ReadAll(io.LimitReader(in, int64(n)))
	if err == nil && len(b) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}
