package inspect

import (
	"bufio"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// Snapshot is what a snapshot file says: the state of a replica as it is sent to another one.
type Snapshot struct {
	Path     string   `json:"path"`
	Index    uint64   `json:"index"`
	Term     uint64   `json:"term"`
	Messages uint64   `json:"messages"`
	Bytes    uint64   `json:"bytes"`
	Last     uint64   `json:"last_sequence"`
	Read     uint64   `json:"messages_read"` // before the damage, if there is any
	Records  uint64   `json:"records_read"`
	Damage   []Damage `json:"damage"`
}

// CheckSnapshot reads a snapshot file to its end and checks every byte of it.
func CheckSnapshot(fs vfs.FS, path string) (*Snapshot, error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &Snapshot{Path: path, Damage: []Damage{}}
	err = s.read(bufio.NewReaderSize(f, 1<<20))
	var corrupt *storage.CorruptError
	if errors.As(err, &corrupt) {
		s.Damage, err = append(s.Damage, Damage{path, corrupt.Offset, corrupt.Detail}), nil
	}
	return s, err
}

func (s *Snapshot) read(r io.Reader) error {
	sr, err := storage.NewSnapshotReader(r)
	if err != nil {
		return err
	}
	st := sr.State()
	s.Index, s.Term, s.Messages, s.Bytes, s.Last = st.Applied.Index, st.Applied.Term, st.Msgs, st.Bytes, st.LastSeq
	for {
		it, err := sr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if it.Message != nil {
			s.Read++
		} else {
			s.Records++
		}
	}
}

// WriteSnapshot writes what is known of a snapshot for people.
func WriteSnapshot(w io.Writer, s *Snapshot) error {
	p := printer{w: w}
	p.line("%s: up to log entry %d of term %d; last sequence %d; %d messages, %d bytes", s.Path, s.Index, s.Term, s.Last, s.Messages, s.Bytes)
	p.line("  %d messages and %d records are right", s.Read, s.Records)
	for _, d := range s.Damage {
		p.line("  DAMAGED at offset %d: %s", d.Offset, d.Reason)
	}
	return p.err
}
