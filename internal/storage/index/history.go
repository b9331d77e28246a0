package index

import "encoding/binary"

// history holds the sequences of one subject that has more than two: up to historyPacked of them
// as varints, each but the first less the one before, and more in a tree. What it points to is
// shared between copies and never changes, but for a tree of the owner's.
type history struct {
	packed []byte
	tree   *seqTree
}

const historyPacked = 96

func (h *history) empty() bool { return h.packed == nil && h.tree == nil }

// unpack returns the sequences of a history that is not a tree.
func (h *history) unpack(seqs []uint64) []uint64 {
	seq := uint64(0)
	for b := h.packed; len(b) > 0; {
		v, n := binary.Uvarint(b)
		b = b[n:]
		seq += v
		seqs = append(seqs, seq)
	}
	return seqs
}

func pack(seqs []uint64) []byte {
	var buf [historyPacked * binary.MaxVarintLen64]byte
	b := buf[:0]
	last := uint64(0)
	for _, seq := range seqs {
		b = binary.AppendUvarint(b, seq-last)
		last = seq
	}
	return append([]byte(nil), b...)
}

func (h *history) own(owner uint64) {
	if h.tree.owner != owner {
		t := h.tree.clone(owner)
		h.tree = &t
	}
}

// add adds a sequence above all others.
func (h *history) add(seq, owner uint64) {
	if h.tree != nil {
		h.own(owner)
		h.tree.append(&Entry{Seq: seq})
		return
	}
	var buf [historyPacked]uint64
	seqs := h.unpack(buf[:0])
	if len(seqs) < historyPacked {
		h.packed = pack(append(seqs, seq))
		return
	}
	t := newSeqTree(owner)
	for _, s := range append(seqs, seq) {
		t.append(&Entry{Seq: s})
	}
	h.packed, h.tree = nil, &t
}

// remove takes out a sequence that is there.
func (h *history) remove(seq, owner uint64) {
	var buf [historyPacked]uint64
	if h.tree == nil {
		seqs := h.unpack(buf[:0])
		kept := seqs[:0]
		for _, s := range seqs {
			if s != seq {
				kept = append(kept, s)
			}
		}
		h.packed = pack(kept)
		return
	}
	h.own(owner)
	h.tree.remove(seq)
	if h.tree.len() > historyPacked/2 {
		return
	}
	seqs := buf[:0]
	h.ascend(0, func(s uint64) bool { seqs = append(seqs, s); return true })
	h.packed, h.tree = pack(seqs), nil
}

func (h *history) first() uint64 {
	if h.tree != nil {
		e, _ := h.tree.first()
		return e.Seq
	}
	seq, _ := binary.Uvarint(h.packed)
	return seq
}

func (h *history) last() uint64 { return h.floor(1<<64 - 1) }

func (h *history) ascend(from uint64, fn func(uint64) bool) {
	if h.tree != nil {
		c := h.tree.cursor()
		for ok := c.Seek(from); ok && fn(c.Seq()); ok = c.Next() {
		}
		return
	}
	var buf [historyPacked]uint64
	for _, seq := range h.unpack(buf[:0]) {
		if seq >= from && !fn(seq) {
			return
		}
	}
}

// floor returns the newest sequence at or below upTo, which is not below the first.
func (h *history) floor(upTo uint64) uint64 {
	if h.tree != nil {
		c := h.tree.cursor()
		c.SeekBack(upTo)
		return c.Seq()
	}
	found := uint64(0)
	var buf [historyPacked]uint64
	for _, seq := range h.unpack(buf[:0]) {
		if seq > upTo {
			break
		}
		found = seq
	}
	return found
}
