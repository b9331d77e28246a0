package cluster

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/cleatkv/cleat/internal/replica"
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
	return digestOf(l.machine)
}

// MetaDigest does the same for the meta group.
func (c *Cluster) MetaDigest() (Digest, error) {
	m := c.Meta()
	if m == nil {
		return Digest{}, ErrNoReplica
	}
	return digestOf(m)
}

func digestOf(m replica.Machine) (Digest, error) {
	r, w := io.Pipe()
	go func() { // Ends at the latest when r is closed.
		_, err := m.WriteSnapshot(w)
		w.CloseWithError(err)
	}()
	d, err := storage.ReadDigest(r)
	r.Close()
	if err != nil {
		return Digest{}, fmt.Errorf("cluster: digest: %w", err)
	}
	return Digest{Applied: d.At.Index, Term: d.At.Term, Sum: hex.EncodeToString(d.Sum[:])}, nil
}
