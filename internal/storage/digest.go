package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
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

// Frozen is the state of an engine at one moment. It stays what it was, whatever is done with the engine,
// also after its end, but for messages that are erased: then Walk, Scan and Load fail, which says nothing of
// the engine. It holds on to memory and files, so who has one releases it, once.
type Frozen interface {
	Reader
	Scanner
	// Walk calls message for all messages in order of sequence, then aux for all auxiliary records in order
	// of key, until one returns an error, which it returns. What they are given is theirs until they return.
	Walk(message func(*Message) error, aux func(key string, value []byte) error) error
	// Last is the last sequence ever assigned and the time of the last message ever stored.
	Last() (seq uint64, time int64)
	Release()
}

// Held is the state of a machine behind the log entry with a command to compare replicas. All replicas hold on
// to the same one, if nothing is wrong with them.
type Held struct {
	Frozen
	Stamp int64 // the leader's time when it asked for it
}

// Release lets go of the state, if there is one.
func (h Held) Release() {
	if h.Frozen != nil {
		h.Frozen.Release()
	}
}

// digestStep is after how many bytes pause is called.
const digestStep = 64 << 10

// DigestOf makes the digest of a frozen state. pause is called again and again on the way; its error ends
// that.
func DigestOf(f Frozen, pause func() error) (Digest, error) {
	h := newHasher(f.Last())
	step := func() error {
		if len(h.buf) < digestStep {
			return nil
		}
		h.flush()
		return pause()
	}
	err := f.Walk(func(m *Message) error {
		h.message(m)
		return step()
	}, func(key string, value []byte) error {
		h.aux(key, value)
		return step()
	})
	return Digest{At: f.Applied(), Sum: h.sum()}, err
}

// ReadDigest makes the digest of what a snapshot stream carries. Frames and their sizes do not count: what is in them does.
func ReadDigest(r io.Reader) (d Digest, err error) {
	sr, err := NewSnapshotReader(r)
	if err != nil {
		return d, err
	}
	s := sr.State()
	d.At = s.Applied
	h := newHasher(s.LastSeq, s.LastTime)
	for {
		it, err := sr.Next()
		switch {
		case errors.Is(err, io.EOF):
			d.Sum = h.sum()
			return d, nil
		case err != nil:
			return d, err
		case it.Message == nil:
			h.aux(it.Key, it.Value)
		default:
			h.message(it.Message)
		}
		h.flush()
	}
}

// hasher takes in a state, encoded so that no two different ones have the same bytes.
type hasher struct {
	h   hash.Hash
	buf []byte
}

func newHasher(lastSeq uint64, lastTime int64) *hasher {
	h := &hasher{h: sha256.New()}
	h.buf = binary.LittleEndian.AppendUint64(h.buf, lastSeq)
	h.buf = binary.LittleEndian.AppendUint64(h.buf, uint64(lastTime))
	return h
}

func (h *hasher) flush() {
	h.h.Write(h.buf)
	h.buf = h.buf[:0]
}

func (h *hasher) message(m *Message) {
	h.buf = append(h.buf, frameMessages)
	h.buf = binary.LittleEndian.AppendUint64(h.buf, m.Seq)
	h.buf = binary.LittleEndian.AppendUint64(h.buf, uint64(m.Time))
	h.buf = binary.LittleEndian.AppendUint64(h.buf, uint64(m.Expires))
	h.buf = appendBytes(h.buf, m.Subject)
	h.buf = appendBytes(h.buf, m.Header)
	h.buf = appendBytes(h.buf, m.Data)
}

func (h *hasher) aux(key string, value []byte) {
	h.buf = append(h.buf, frameAux)
	h.buf = appendBytes(h.buf, key)
	h.buf = appendBytes(h.buf, value)
}

func (h *hasher) sum() (sum [sha256.Size]byte) {
	h.flush()
	h.h.Sum(sum[:0])
	return sum
}
