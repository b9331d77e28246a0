package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
)

// Digest is a checksum of everything that an engine holds at one position: the messages and auxiliary
// records, byte for byte, and the last sequence and time. Two replicas of one group at the same position
// have the same one, whatever engines they keep it in. It reads everything, so it costs as much as a
// snapshot.
type Digest struct {
	At  Applied
	Sum [sha256.Size]byte
}

// ReadDigest makes the digest of what a snapshot stream carries. Frames and their sizes do not count: what is in them does.
func ReadDigest(r io.Reader) (d Digest, err error) {
	sr, err := NewSnapshotReader(r)
	if err != nil {
		return d, err
	}
	s := sr.State()
	d.At = s.Applied
	h := sha256.New()
	b := binary.LittleEndian.AppendUint64(nil, s.LastSeq)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.LastTime))
	for {
		h.Write(b)
		it, err := sr.Next()
		if errors.Is(err, io.EOF) {
			h.Sum(d.Sum[:0])
			return d, nil
		}
		if err != nil {
			return d, err
		}
		b = appendItem(b[:0], &it)
	}
}

// appendItem encodes an item so that no two different ones have the same bytes.
func appendItem(b []byte, it *SnapshotItem) []byte {
	m := it.Message
	if m == nil {
		b = append(b, frameAux)
		b = appendBytes(b, it.Key)
		return appendBytes(b, it.Value)
	}
	b = append(b, frameMessages)
	b = binary.LittleEndian.AppendUint64(b, m.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Time))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.Expires))
	b = appendBytes(b, m.Subject)
	b = appendBytes(b, m.Header)
	return appendBytes(b, m.Data)
}
