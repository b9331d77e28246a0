package filelog

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// History tells how many messages of each subject the stream keeps, by one of its auxiliary records; 0: all.
type History struct {
	Aux    string
	Decode func(value []byte) (int, error)
}

// rebuild makes an index out of the blocks where that on disk is damaged: messages carry all that it says of
// them. Which of them were removed it can tell of those that newer ones of their subject have replaced, and of
// those that what is left of the index names. The manifest knows how many there are, of how many bytes in
// which block: if that is what is found, they are the right ones.
func (i *inspection) rebuild(h History) error {
	left, whole, err := i.remnant()
	if err != nil {
		return i.note(err)
	}
	value, ok := left.Index().Aux(h.Aux)
	if !ok {
		return nil // What the stream is configured as is lost.
	}
	history, err := h.Decode(value)
	if err != nil {
		return nil
	}
	found, ok, err := i.candidates(left.Removed)
	if err != nil || !ok {
		return err
	}
	if history > 0 {
		found = newest(found, history)
	}
	x := left.Index()
	live := make(map[uint32]int64)
	for _, en := range found {
		if err := x.Append(en); err != nil {
			return nil // Messages that do not fit together are none to go on with.
		}
		live[en.Loc.Block] += int64(en.Loc.Len)
	}
	x.SetLast(i.m.lastSeq, i.m.lastTime)
	x.SetApplied(i.m.applied)
	x.Freeze()
	st := x.State()
	exact := st.Msgs == i.m.msgs && st.Bytes == i.m.bytes
	for _, mb := range i.m.blocks {
		exact = exact && live[mb.number] == mb.live
	}
	i.idx, i.out.State = x, st
	i.out.Rebuilt = &storage.Rebuilt{Exact: exact, Want: i.m.msgs, Records: whole}
	return nil
}

// remnant reads the index file past what is damaged in it. whole is false if auxiliary records may have been there.
func (i *inspection) remnant() (left *index.Remnant, whole bool, err error) {
	left = index.NewRemnant()
	b, err := i.d.readFile(indexName(i.m.index))
	if err != nil || b == nil {
		return left, false, err
	}
	b = b[:min(int64(len(b)), i.m.indexLen)]
	whole = int64(len(b)) == i.m.indexLen
	for at := int64(indexHeaderBytes); at < int64(len(b)); {
		n := frameAt(b, at, i.m.index)
		if n == 0 {
			next := at + 1
			for next < int64(len(b)) && frameAt(b, next, i.m.index) == 0 {
				next++
			}
			whole = whole && pages(b[at:next])
			at = next
			continue
		}
		if err := left.Frame(b[at+4], b[at+5:at+n-4]); err != nil {
			return left, false, &storage.CorruptError{Path: i.d.path(indexName(i.m.index)), Offset: at, Detail: err.Error()}
		}
		at += n
	}
	return left, whole, nil
}

// frameAt returns the length of the frame there, 0 if there is none that is right.
func frameAt(b []byte, at int64, number uint32) int64 {
	if int64(len(b))-at < frameOverhead {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(b[at:]))
	if n < frameOverhead || n > int64(len(b))-at || b[at+4] < index.FrameRows || b[at+4] > index.FrameSubjects {
		return 0
	}
	f := b[at : at+n]
	if placed(crc32.Checksum(f[:n-4], castagnoli), number, at) != binary.LittleEndian.Uint32(f[n-4:]) {
		return 0
	}
	return n
}

// pages tells whether a damaged stretch is one frame about messages, not of auxiliary records.
func pages(b []byte) bool {
	if len(b) < frameOverhead || int(binary.LittleEndian.Uint32(b)) != len(b) {
		return false
	}
	return b[4] != index.FrameSet && b[4] != index.FrameDeleted
}

// candidates lists the messages of all blocks that are not known to have been removed, in order. ok is false if a
// block is damaged, too.
func (i *inspection) candidates(removed func(seq uint64) bool) (found []index.Entry, ok bool, err error) {
	bySeq := make(map[uint64]index.Entry)
	for _, mb := range i.m.blocks {
		b := i.open(mb)
		ok = true
		_, err := b.scan(blockHeaderBytes, b.size, func(at uint32, rec []byte) bool {
			if rec[4] == kindErased {
				return true
			}
			m, good := decodeRecord(rec)
			if ok = good; good && !removed(m.Seq) && m.Seq <= i.m.lastSeq {
				// Blocks come in order: a message that was moved is where it was found last.
				bySeq[m.Seq] = index.Entry{
					Seq: m.Seq, Time: m.Time, Expires: m.Expires, Size: m.Size(), Subject: m.Subject,
					Loc: index.Loc{Block: b.number, Offset: at, Len: uint32(len(rec))},
				}
			}
			return ok
		})
		b.release()
		if err = i.noteAgain(err); err != nil || !ok {
			return nil, false, err
		}
	}
	return slices.SortedFunc(maps.Values(bySeq), func(a, b index.Entry) int { return cmp.Compare(a.Seq, b.Seq) }), true, nil
}

// noteAgain turns damage that is noted already into nothing.
func (i *inspection) noteAgain(err error) error {
	n := len(i.out.Damage)
	err = i.note(err)
	if i.out.Damage = i.out.Damage[:n]; err != nil {
		return fmt.Errorf("storage: rebuild the index: %w", err)
	}
	return nil
}

// newest keeps the newest of each subject.
func newest(all []index.Entry, history int) []index.Entry {
	count := make(map[string]int)
	kept := make([]index.Entry, 0, len(all))
	for _, en := range slices.Backward(all) {
		if count[en.Subject]++; count[en.Subject] <= history {
			kept = append(kept, en)
		}
	}
	slices.Reverse(kept)
	return kept
}
