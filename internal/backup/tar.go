package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"

	"github.com/minio/highwayhash"

	"github.com/cleatkv/cleat/internal/storage"
)

// The archive of nats-server up to 2.14 is a tar file of what its file store has, decompressed and
// decrypted: msgs/N.blk are its blocks, in order, each a sequence of records, integers little endian:
//
//	| length 4 | seq 8 | time 8 | subject length 2 | subject | [ header length 4 | header ] | data | hash 8 |
//
// The highest bit of length says that there is a header. In seq the highest bit marks a message that was erased, and the next one
// a tombstone: the message of that sequence was removed later. The hash is HighwayHash-64 of all between length
// and hash but the two lengths, under the SHA-256 of "STREAM-N". The other files are indexes of the
// blocks, and the configuration, which a restore names itself.

const (
	recordFixed = 4 + 8 + 8 + 2
	hashLen     = 8
)

func readTar(in io.Reader, stream string, v Visitor) error {
	r := tar.NewReader(in)
	var last uint64
	for range tarFilesMax {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged("%v", early(err))
		}
		switch dir, name := path.Split(h.Name); {
		case strings.HasPrefix(dir, "obs/"):
			return fmt.Errorf("the backup has consumers in a format that cannot be read here: make it without (nats stream backup --no-consumers)")
		case dir == "msgs/" && strings.HasSuffix(name, ".blk"):
			if h.Size > blockLenMax {
				return damaged("%s has %d bytes", h.Name, h.Size)
			}
			b, err := readBytes(r, int(h.Size))
			if err != nil {
				return damaged("%s: %v", h.Name, early(err))
			}
			if last, err = readBlock(b, stream+"-"+strings.TrimSuffix(name, ".blk"), last, v); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
		}
	}
	return damaged("more than %d files", tarFilesMax)
}

// readBlock reads the records of one block, whose messages follow message last, and returns the last one of
// them.
func readBlock(b []byte, key string, last uint64, v Visitor) (uint64, error) {
	secret := sha256.Sum256([]byte(key))
	sum, err := highwayhash.New64(secret[:])
	if err != nil {
		return 0, err
	}
	for len(b) > 0 {
		m, rest, err := nextRecord(b, sum)
		if err != nil {
			return 0, damaged("behind message %d: %v", last, err)
		}
		b = rest
		switch seq := m.Seq &^ (eraseBit | tombstoneBit); {
		case m.Seq&tombstoneBit != 0:
			err = v.Removed(seq)
		case m.Seq&eraseBit != 0:
		case seq <= last:
			err = damaged("message %d follows message %d", seq, last)
		default:
			last = seq
			err = v.Message(m)
		}
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}

// nextRecord takes one record apart. An erased one and a tombstone have no subject.
func nextRecord(b []byte, sum hash.Hash64) (m *storage.Message, rest []byte, err error) {
	if len(b) < recordFixed+hashLen {
		return nil, nil, io.ErrUnexpectedEOF
	}
	length := binary.LittleEndian.Uint32(b)
	hasHeader := length&(1<<31) != 0
	n := int(length &^ (1 << 31))
	if n < recordFixed+hashLen || n > len(b) {
		return nil, nil, fmt.Errorf("a record of %d bytes", n)
	}
	record, rest := b[:n-hashLen], b[n:]
	m = &storage.Message{Seq: binary.LittleEndian.Uint64(b[4:]), Time: int64(binary.LittleEndian.Uint64(b[12:]))}
	if m.Seq&(eraseBit|tombstoneBit) != 0 {
		return m, rest, nil
	}
	subjectLen := int(binary.LittleEndian.Uint16(b[20:]))
	body := record[recordFixed:]
	if subjectLen == 0 || subjectLen > len(body) {
		return nil, nil, fmt.Errorf("a subject of %d bytes", subjectLen)
	}
	m.Subject, body = string(body[:subjectLen]), body[subjectLen:]
	if hasHeader {
		if len(body) < 4 || uint64(binary.LittleEndian.Uint32(body)) > uint64(len(body)-4) {
			return nil, nil, errors.New("a header that goes beyond its record")
		}
		end := 4 + binary.LittleEndian.Uint32(body)
		m.Header, body = bytes.Clone(body[4:end]), body[end:]
	}
	m.Data = bytes.Clone(body)
	sum.Reset()
	for _, part := range [][]byte{b[4:20], []byte(m.Subject), m.Header, m.Data} {
		sum.Write(part)
	}
	if !bytes.Equal(sum.Sum(nil), b[n-hashLen:n]) {
		return nil, nil, fmt.Errorf("checksum mismatch in message %d", m.Seq)
	}
	return m, rest, nil
}
