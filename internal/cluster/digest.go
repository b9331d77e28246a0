package cluster

import (
	"encoding/hex"
	"fmt"

	"github.com/cleatkv/cleat/internal/storage"
)

// Digest tells what the local replica holds, by a checksum. Replicas of one group that have applied
// the same entries have the same one.
type Digest struct {
	Applied uint64 // index of the last log entry in it
	Term    uint64
	Sum     string // hex
}

// Digest reads everything that the local replica holds. It is for whoever compares replicas, and costs
// what sending the whole stream would.
func (s *Stream) Digest() (Digest, error) {
	s.maint.Lock()
	defer s.maint.Unlock()
	l := s.local.Load()
	if l == nil || l.closed {
		return Digest{}, ErrNoReplica
	}
	return digestOf(l.engine)
}

// MetaDigest does the same for the meta group.
func (c *Cluster) MetaDigest() (Digest, error) {
	if c.Meta() == nil {
		return Digest{}, ErrNoReplica
	}
	return digestOf(c.metaEngine)
}

func digestOf(e storage.Engine) (Digest, error) {
	f := e.Freeze()
	defer f.Release()
	d, err := storage.DigestOf(f, func() error { return nil })
	if err != nil {
		return Digest{}, fmt.Errorf("cluster: digest: %w", err)
	}
	return asDigest(d), nil
}

func asDigest(d storage.Digest) Digest {
	return Digest{Applied: d.At.Index, Term: d.At.Term, Sum: hex.EncodeToString(d.Sum[:])}
}
