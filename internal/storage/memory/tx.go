package memory

import (
	"bytes"
	"slices"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// tx is a change under construction: a clone of the index or the index itself, with the view's chunks and
// perhaps more.
type tx struct {
	view // what the change sees

	e       *Engine
	sole    bool // made in place
	fill    uint32
	number  uint32
	uses    []use
	written int64
	done    bool
}

// use is a number of bytes of a chunk that became live or, negative, dead; 0 for a chunk that may be
// dropped.
type use struct {
	chunk uint32
	n     int64
}

var _ storage.Tx = (*tx)(nil)

// commitBytes is what a commit counts for in Dirty though it may change nothing: the position, which
// lets go of a part of the Raft log.
const commitBytes = 16

// Begin implements storage.Engine.
func (e *Engine) Begin() storage.Tx { return e.begin() }

func (e *Engine) begin() *tx {
	e.change.Lock()
	return e.newTx(e.View(), false)
}

// BeginInPlace implements storage.InPlacer.
func (e *Engine) BeginInPlace() storage.Tx {
	e.change.Lock()
	return e.newTx(e.Claim())
}

func (e *Engine) newTx(v *view, sole bool) *tx {
	return &tx{
		sole:   sole,
		view:   view{Index: v.Edit(sole), chunks: v.chunks},
		e:      e,
		fill:   e.fill,
		number: e.number,
	}
}

// Append implements storage.Tx.
func (t *tx) Append(m storage.Message) error {
	loc := t.room(recordBytes(&m))
	err := t.Index.Append(index.Entry{
		Seq:     m.Seq,
		Time:    m.Time,
		Expires: m.Expires,
		Size:    m.Size(),
		Loc:     loc,
		Subject: m.Subject,
	})
	if err != nil {
		return err
	}
	appendRecord(t.chunk(loc.Block).buf[loc.Offset:loc.Offset], &m)
	t.take(loc)
	return nil
}

// room finds n free bytes at the end of the log; take makes them used.
func (t *tx) room(n int) index.Loc {
	if len(t.chunks) == 0 || int(t.fill)+n > len(t.newest().buf) {
		size := chunkBytesMin << min(len(t.chunks), 16)
		if len(t.chunks) > 0 {
			t.uses = append(t.uses, use{t.number, 0}) // If it is empty, it is no longer needed.
		}
		t.number++
		t.fill = 0
		c := &chunk{number: t.number, buf: make([]byte, max(n, min(size, chunkBytesMax)))}
		// Others hold the old slice: a new one is made, never the spare room of the old used.
		t.chunks = append(slices.Clip(t.chunks), c)
	}
	return index.Loc{Block: t.number, Offset: t.fill, Len: uint32(n)}
}

func (t *tx) newest() *chunk { return t.chunks[len(t.chunks)-1] }

func (t *tx) take(loc index.Loc) {
	t.fill += loc.Len
	t.uses = append(t.uses, use{loc.Block, int64(loc.Len)})
	t.written += int64(loc.Len)
}

// Remove implements storage.Tx.
func (t *tx) Remove(seq uint64) (bool, error) {
	en, ok := t.Index.Remove(seq)
	if ok {
		t.uses = append(t.uses, use{en.Loc.Block, -int64(en.Loc.Len)})
	}
	return ok, nil
}

// Erase implements storage.Tx. There is no disk to overwrite.
func (t *tx) Erase(seq uint64) (bool, error) { return t.Remove(seq) }

// SkipTo implements storage.Tx.
func (t *tx) SkipTo(seq uint64) error { return t.Index.SkipTo(seq) }

// SetAux implements storage.Tx.
func (t *tx) SetAux(key string, value []byte) {
	t.Index.SetAux(key, bytes.Clone(value))
	t.written += int64(len(key) + len(value))
}

// DeleteAux implements storage.Tx.
func (t *tx) DeleteAux(key string) { t.Index.DeleteAux(key) }

// Commit implements storage.Tx.
func (t *tx) Commit(at storage.Applied) error {
	e := t.e
	if err := e.Err(); err != nil {
		t.Discard()
		return err
	}
	for _, u := range t.uses {
		e.live[u.chunk] += u.n
	}
	e.fill, e.number = t.fill, t.number
	at.Conf = bytes.Clone(at.Conf)
	t.SetApplied(at)
	t.dropEmpty()
	t.Freeze()
	v := t.view
	e.Release(&v)
	e.dirty.Add(commitBytes + t.written)
	t.end()
	return nil
}

// dropEmpty lets go of the chunks in which nothing is live any more.
func (t *tx) dropEmpty() {
	emptied := false
	for _, u := range t.uses {
		emptied = emptied || u.n <= 0 && u.chunk != t.number && t.e.live[u.chunk] == 0
	}
	if !emptied {
		return
	}
	kept := make([]*chunk, 0, len(t.chunks))
	for _, c := range t.chunks {
		if t.e.live[c.number] > 0 || c.number == t.number {
			kept = append(kept, c)
		} else {
			delete(t.e.live, c.number)
		}
	}
	t.chunks = kept
}

// Discard implements storage.Tx. After Commit it does nothing.
func (t *tx) Discard() {
	if t.done {
		return
	}
	if t.sole {
		v := t.view
		t.e.Abandon(&v)
	}
	t.end()
}

func (t *tx) end() {
	t.done = true
	t.e.change.Unlock()
}

// Reclaimable implements storage.Engine.
func (e *Engine) Reclaimable() int64 { return 0 }

// Compact implements storage.Engine: it copies what is live in one chunk that is mostly dead to
// the end of the log.
func (e *Engine) Compact() (more bool, err error) {
	t := e.begin()
	defer t.Discard()
	sparse := t.sparse()
	if len(sparse) == 0 {
		return false, nil
	}
	c := t.chunk(sparse[0])
	left := e.live[c.number]
	t.uses = append(t.uses, use{c.number, 0})
	for at := uint32(0); left > 0; {
		r, n := nextRecord(c.buf[at:])
		from := index.Loc{Block: c.number, Offset: at, Len: uint32(n)}
		at += uint32(n)
		en, ok := t.Get(r.seq)
		if !ok || en.Loc != from {
			continue
		}
		to := t.room(n)
		copy(t.chunk(to.Block).bytes(to), c.bytes(from))
		t.take(to)
		t.Move(r.seq, from, to)
		t.uses = append(t.uses, use{from.Block, -int64(n)})
		left -= int64(n)
	}
	dirty := e.dirty.Load()
	if err := t.Commit(t.Applied()); err != nil {
		return false, err
	}
	e.dirty.Store(dirty)
	return len(sparse) > 1, nil
}

// sparse lists the chunks less than half full of live bytes, but for the newest.
func (t *tx) sparse() []uint32 {
	var numbers []uint32
	for _, c := range t.chunks {
		if c.number != t.number && int(t.e.live[c.number]) < len(c.buf)/2 {
			numbers = append(numbers, c.number)
		}
	}
	return numbers
}
