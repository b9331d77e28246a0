package filelog

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/index"
)

// tx is a change under construction: a clone of the index or the index itself, a copy of the tail with
// more at its end and, kept aside until Commit, what becomes of the engine's own state.
type tx struct {
	view // what the change sees

	e      *Engine
	sole   bool // made in place
	active *block
	size   int64 // of active
	limit  int64 // at which it is full
	full   []use // blocks that got full, with their sizes
	uses   []use // bytes that became live, or dead if negative

	ownTail bool
	removed []uint64
	erase   []place
	aux     []string
	written int64
	done    bool
}

// use is a number of bytes of a block.
type use struct {
	b *block
	n int64
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
	t := &tx{
		sole:   sole,
		view:   view{Index: v.Edit(sole), tail: v.tail, blocks: v.blocks, version: v.version},
		e:      e,
		active: e.active,
		limit:  e.limit,
	}
	if t.active != nil {
		t.size = t.active.size
	}
	return t
}

// Append implements storage.Tx.
func (t *tx) Append(m storage.Message) error {
	n := recordBytesMax(&m)
	if n > math.MaxInt32/2 {
		return fmt.Errorf("storage: a message of %d bytes is too large", n)
	}
	if !t.ownTail {
		t.tail = slices.Clone(t.tail.trim(tailBytes))
		t.ownTail = true
	}
	if t.active == nil || t.size+int64(n) > t.limit && t.size > blockHeaderBytes {
		t.roll(n)
	}
	var buf []byte
	t.tail, buf = t.tail.room(t.active, t.size, n)
	offset := uint32(t.size)
	rec, scratch := appendRecord(buf, &m, t.active.number, offset, t.e.scratch)
	t.e.scratch = scratch
	err := t.Index.Append(index.Entry{
		Seq:     m.Seq,
		Time:    m.Time,
		Expires: m.Expires,
		Size:    m.Size(),
		Loc:     index.Loc{Block: t.active.number, Offset: offset, Len: uint32(len(rec))},
		Subject: m.Subject,
	})
	if err != nil {
		return err
	}
	t.grow(len(rec))
	t.uses = append(t.uses, use{t.active, int64(len(rec))})
	return nil
}

// roll begins a new block, whose first chunk has room for n bytes of records.
func (t *tx) roll(n int) {
	if t.active != nil {
		t.full = append(t.full, use{t.active, t.size})
	}
	t.limit = t.e.blockBytes(&t.view)
	t.active = newBlock(t.e.dir, t.e.dir.number())
	t.size = 0
	t.blocks = t.with(t.active)
	var buf []byte
	t.tail, buf = t.tail.room(t.active, 0, blockHeaderBytes+n)
	appendBlockHeader(buf, t.active.number, t.e.dir.id)
	t.grow(blockHeaderBytes)
}

// grow makes the n bytes behind the end of the tail part of it.
func (t *tx) grow(n int) {
	t.size += int64(n)
	t.tail[len(t.tail)-1].end += uint32(n)
	t.written += int64(n)
}

// Err implements storage.Reader.
func (t *tx) Err() error { return t.e.Err() }

// Load implements storage.Reader.
func (t *tx) Load(seq uint64) (storage.Message, error) {
	m, err := t.view.Load(seq)
	return m, t.e.noted(err)
}

// Remove implements storage.Tx.
func (t *tx) Remove(seq uint64) (bool, error) {
	_, ok := t.remove(seq)
	return ok, nil
}

func (t *tx) remove(seq uint64) (index.Loc, bool) {
	en, ok := t.Index.Remove(seq)
	if !ok {
		return index.Loc{}, false
	}
	t.uses = append(t.uses, use{t.block(en.Loc.Block), -int64(en.Loc.Len)})
	t.removed = append(t.removed, seq)
	return en.Loc, true
}

// Erase implements storage.Tx. The bytes on disk are overwritten by the next checkpoint, once it
// no longer needs them.
func (t *tx) Erase(seq uint64) (bool, error) {
	loc, ok := t.remove(seq)
	if !ok {
		return false, nil
	}
	t.erase = append(t.erase, place{loc.Block, loc.Offset, loc.Len})
	if old, ok := t.e.copies[seq]; ok {
		t.erase = append(t.erase, old)
	}
	return true, nil
}

// SkipTo implements storage.Tx.
func (t *tx) SkipTo(seq uint64) error { return t.Index.SkipTo(seq) }

// SetAux implements storage.Tx.
func (t *tx) SetAux(key string, value []byte) {
	t.Index.SetAux(key, append([]byte{}, value...))
	t.aux = append(t.aux, key)
	t.written += int64(len(key) + len(value))
}

// DeleteAux implements storage.Tx.
func (t *tx) DeleteAux(key string) {
	t.Index.DeleteAux(key)
	t.aux = append(t.aux, key)
}

// Commit implements storage.Tx.
func (t *tx) Commit(at storage.Applied) error {
	e := t.e
	if err := errors.Join(e.dir.failed(), e.Err()); err != nil {
		t.Discard()
		return err
	}
	for _, u := range t.full {
		u.b.size = u.n
	}
	for _, u := range t.uses {
		u.b.live += u.n
	}
	if e.active = t.active; e.active != nil {
		e.active.size = t.size
		e.limit = t.limit
	}
	e.since.add(t)
	at.Conf = bytes.Clone(at.Conf)
	t.SetApplied(at)
	t.Freeze()
	t.version++
	v := t.view
	e.Release(&v)
	e.dirty.Add(commitBytes + t.written + 8*int64(len(t.removed)))
	t.end()
	return e.flushSome(&v)
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

// add notes what a change did to what the last checkpoint saved.
func (c *changes) add(t *tx) {
	c.erase = append(c.erase, t.erase...)
	for _, seq := range t.removed {
		if seq <= c.upTo {
			c.removed = append(c.removed, seq)
		}
	}
	if len(t.aux) > 0 && c.aux == nil {
		c.aux = make(map[string]struct{})
	}
	for _, key := range t.aux {
		c.aux[key] = struct{}{}
	}
	c.bound()
}

// merge adds changes that a checkpoint took and could not save.
func (c *changes) merge(older changes) {
	c.erase = append(older.erase, c.erase...)
	c.removed = append(older.removed, c.removed...)
	c.moved = append(older.moved, c.moved...)
	if older.aux != nil {
		for key := range c.aux {
			older.aux[key] = struct{}{}
		}
		c.aux = older.aux
	}
	c.all = c.all || older.all
	c.upTo = older.upTo
	c.bound()
}

// bound gives up a list that got too long.
func (c *changes) bound() {
	if c.all || len(c.removed)+len(c.moved) > removedMax {
		c.all, c.removed, c.moved = true, nil, nil
	}
}

// flushSome writes what has gathered in memory, if it is much. A write that fails is left for
// later, as long as memory allows: the data are in the Raft log too, and a checkpoint will say
// what is wrong.
func (e *Engine) flushSome(v *view) error {
	unwritten := v.tail.unwritten()
	if unwritten < flushBytes {
		return nil
	}
	wait := unwritten > unwrittenMax
	if err := v.tail.flush(wait); err != nil && wait {
		return err
	}
	return nil
}

// flush writes what is not in the files yet, in order. Without wait it leaves out what would have
// to wait for another call on a file, such as a sync.
func (t tail) flush(wait bool) error {
	for i := range t {
		s := &t[i]
		from := max(s.block.written.Load(), int64(s.start))
		if from >= int64(s.end) {
			continue
		}
		if wait {
			s.block.writing.Lock()
		} else if !s.block.writing.TryLock() {
			return nil
		}
		err := s.block.writeLocked(s.buf[from-int64(s.start):s.end-s.start], from)
		s.block.writing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}
