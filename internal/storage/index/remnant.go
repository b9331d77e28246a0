package index

import "github.com/cleatkv/cleat/internal/fields"

// Remnant takes what is left of the frames of an index when some are lost: the auxiliary records, and which
// messages were removed. What it is not given it can not know.
type Remnant struct {
	x       *Index
	removed map[uint64]struct{}
}

// NewRemnant returns one that knows nothing yet.
func NewRemnant() *Remnant {
	return &Remnant{x: New(), removed: make(map[uint64]struct{})}
}

// Frame takes the next frame.
func (r *Remnant) Frame(kind byte, payload []byte) error {
	switch kind {
	case FrameSet, FrameDeleted:
		return r.x.decode(kind, payload)
	case FrameRemoved:
		d := reader{Reader: fields.Reader{B: payload}}
		for seq := uint64(0); len(d.B) > 0; {
			seq += d.Uvarint()
			r.removed[seq] = struct{}{}
		}
		if d.Bad {
			return errFrame
		}
	}
	return nil
}

// Removed tells whether a message is known to have been removed.
func (r *Remnant) Removed(seq uint64) bool {
	_, ok := r.removed[seq]
	return ok
}

// Index is an index without messages, to which the caller may append those that are there.
func (r *Remnant) Index() *Index { return r.x }
