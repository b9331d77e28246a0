package filelog

import (
	"fmt"

	"github.com/cleatkv/cleat/internal/storage/index"
)

const (
	compactMoveBytes = 128 << 10 // moved in one piece: readers and the owner see pieces come
	compactMovesMax  = 500       // records in one piece
	smallBlocksMax   = 8         // small full blocks that are left alone
)

// compaction moves what is live out of one block.
type compaction struct {
	b    *block
	size int64
	at   int64 // where to go on

	read, moved []byte // reused
}

// move is a record on its way to another block.
type move struct {
	seq      uint64
	from, to index.Loc
}

// Compact implements storage.Engine. A block that is less than half live is emptied into another,
// piece by piece; the next checkpoint removes its file. So once there is no more to do, and after that
// checkpoint, the blocks take at most twice what is live and one block, which is the newest.
func (e *Engine) Compact() (more bool, err error) {
	e.work.Lock()
	defer e.work.Unlock()
	if e.closed.Load() {
		return false, errClosed
	}
	if err := e.dir.failed(); err != nil {
		return false, err
	}
	for looked := int64(0); looked < e.tuning.compactBytes; {
		if e.victim == nil {
			if e.victim = e.choose(); e.victim == nil {
				e.rest()
				return false, nil
			}
		}
		from := e.victim.at
		done, err := e.compact(e.victim)
		if err != nil {
			return false, e.noted(err)
		}
		looked += e.victim.at - from
		if done {
			e.victim = nil
		}
	}
	return true, nil
}

// Reclaimable implements storage.Engine: the blocks that hold nothing live any more.
func (e *Engine) Reclaimable() (bytes int64) {
	e.change.Lock()
	defer e.change.Unlock()
	for _, b := range e.View().blocks {
		if e.empty(b) {
			bytes += b.size
		}
	}
	return bytes
}

// empty tells whether a block goes with the next checkpoint. e.change is held.
func (e *Engine) empty(b *block) bool { return b.live == 0 && b != e.active && b != e.moving }

// choose returns the block most worth the work, or nil.
func (e *Engine) choose() *compaction {
	e.change.Lock()
	defer e.change.Unlock()
	v := e.View()
	full := e.blockBytes(v)
	if m := e.moving; m != nil && 2*m.live < m.size && m.durable.Load() >= m.size {
		e.moving = nil // What was moved there is gone in turn: it is a block like any other.
	}
	var worst, small *block
	smalls := 0
	for _, b := range v.blocks {
		if b == e.active || b == e.moving || b.live == 0 || b.durable.Load() < b.size {
			continue
		}
		// live/size < worst.live/worst.size
		if 2*b.live < b.size && (worst == nil || b.live*worst.size < worst.live*b.size) {
			worst = b
		}
		if b.size < full/4 {
			smalls++
			if small == nil || b.size < small.size {
				small = b
			}
		}
	}
	if worst == nil && smalls > smallBlocksMax {
		worst = small
	}
	if worst == nil {
		return nil
	}
	return &compaction{b: worst, size: worst.size, at: blockHeaderBytes, read: make([]byte, min(scanBytes, worst.size))}
}

// compact moves a piece, and tells whether it was the last.
func (e *Engine) compact(c *compaction) (done bool, err error) {
	v := e.View()
	out, offset, err := e.output(v)
	if err != nil {
		return false, err
	}
	var moves []move
	buf := c.moved[:0]
	if offset == 0 {
		buf = appendBlockHeader(buf, out.number, e.dir.id)
	}
	stop := c.at + e.tuning.compactBytes/4
	c.at, err = c.b.scanWith(c.read, c.at, c.size, func(at uint32, rec []byte) bool {
		from := index.Loc{Block: c.b.number, Offset: at, Len: uint32(len(rec))}
		if seq := recordSeq(rec); v.IsAt(seq, from) {
			to := index.Loc{Block: out.number, Offset: uint32(offset) + uint32(len(buf)), Len: from.Len}
			buf = append(buf, rec...)
			sealRecord(buf[len(buf)-len(rec):], to.Block, to.Offset)
			moves = append(moves, move{seq, from, to})
		}
		return len(buf) < compactMoveBytes && len(moves) < compactMovesMax && int64(at) < stop
	})
	c.moved = buf
	if len(moves) > 0 {
		if err := out.writeAt(buf, offset); err != nil {
			return false, err
		}
		e.publishMoves(out, offset+int64(len(buf)), moves)
	}
	if err != nil {
		err = e.skipDead(c, err)
	}
	return c.at >= c.size, err
}

// skipDead goes on behind a record that can not be read, where the next live one is, if it is dead by the
// index: nothing is lost with it. A live one stops compaction.
func (e *Engine) skipDead(c *compaction, unreadable error) error {
	next := c.size
	e.View().Match(nil, 0, func(en *index.Entry) bool {
		if at := int64(en.Loc.Offset); en.Loc.Block == c.b.number && at+int64(en.Loc.Len) > c.at {
			next = min(next, at)
		}
		return next > c.at
	})
	if next <= c.at {
		return unreadable
	}
	e.report(fmt.Sprintf("%s at offset %d: what can not be read there was removed before, so nothing is lost, and compaction goes on at offset %d: %v",
		c.b.path(), c.at, next, unreadable))
	c.at = next
	return nil
}

// output returns the block that takes what is moved, and its size.
func (e *Engine) output(v *view) (*block, int64, error) {
	e.change.Lock()
	defer e.change.Unlock()
	if e.moving == nil || e.moving.size >= e.blockBytes(v) {
		e.moving = newBlock(e.dir, e.dir.number())
	}
	return e.moving, e.moving.size, nil
}

// publishMoves makes the moved records found where they are now, but for those that were removed
// in the meantime.
func (e *Engine) publishMoves(out *block, size int64, moves []move) {
	e.change.Lock()
	defer e.change.Unlock()
	v := *e.View()
	v.Index = v.Clone()
	v.version++
	from := v.block(moves[0].from.Block)
	for _, m := range moves {
		if !v.Move(m.seq, m.from, m.to) {
			continue
		}
		from.live -= int64(m.from.Len)
		out.live += int64(m.to.Len)
		e.dirty.Add(int64(m.to.Len))
		e.copies[m.seq] = place{m.from.Block, m.from.Offset, m.from.Len}
		if m.seq <= e.since.upTo {
			e.since.moved = append(e.since.moved, m.seq)
		}
	}
	e.since.bound()
	out.size = size
	if v.block(out.number) == nil {
		v.blocks = v.with(out)
	}
	v.Freeze()
	e.Publish(&v)
}
