package filelog

import (
	"errors"
	"maps"
	"slices"

	"github.com/cleatkv/cleat/internal/storage/index"
)

// checkpoint is one on its way to the disk.
type checkpoint struct {
	e     *Engine
	v     *view
	took  changes
	dirty int64
	m     *manifest
	empty []*block // blocks that the state no longer needs
}

// Checkpoint implements storage.Engine.
func (e *Engine) Checkpoint() error {
	e.work.Lock()
	defer e.work.Unlock()
	return e.checkpoint()
}

func (e *Engine) checkpoint() error {
	if e.closed.Load() {
		return errClosed
	}
	if err := errors.Join(e.dir.failed(), e.Current.Err()); err != nil {
		return err
	}
	c := e.take()
	if c == nil {
		return nil
	}
	if err := c.save(); err != nil {
		e.change.Lock()
		e.since.merge(c.took)
		e.change.Unlock()
		return err
	}
	e.manifest, e.renew = c.m, false
	e.saved = c.v.version
	applied := c.m.applied
	e.durable.Store(&applied)
	e.dirty.Add(-c.dirty)
	if err := c.erase(); err != nil {
		e.change.Lock()
		e.since.merge(changes{erase: c.took.erase, upTo: e.since.upTo})
		e.change.Unlock()
		return err
	}
	e.drop(c.empty)
	return nil
}

// take fixes what the checkpoint is to save, and begins a new list of changes. It returns nil if
// nothing happened since the last one.
func (e *Engine) take() *checkpoint {
	e.change.Lock()
	defer e.change.Unlock()
	v := e.View()
	if v.version == e.saved && !e.renew && len(e.since.erase) == 0 && !slices.ContainsFunc(v.blocks, e.empty) {
		return nil
	}
	c := &checkpoint{e: e, v: v, took: e.since, dirty: e.dirty.Load()}
	st := v.State()
	c.m = &manifest{
		next:     e.dir.last.Load(),
		applied:  v.Applied(),
		lastSeq:  st.LastSeq,
		lastTime: st.LastTime,
		msgs:     st.Msgs,
		bytes:    st.Bytes,
		erasures: e.since.erase,
	}
	for _, b := range v.blocks {
		if e.empty(b) {
			c.empty = append(c.empty, b)
			continue
		}
		c.m.blocks = append(c.m.blocks, manifestBlock{b.number, b.size, b.live})
	}
	e.since = changes{upTo: st.LastSeq}
	return c
}

// rest lets go of the newest bytes and of the open files of an engine whose last checkpoint is all
// there is: thousands of streams may be idle.
func (e *Engine) rest() {
	e.change.Lock()
	v := e.View()
	if v.version != e.saved || len(v.tail) == 0 || v.tail.unwritten() > 0 {
		e.change.Unlock()
		return
	}
	e.Publish(&view{Index: v.Index, blocks: v.blocks, version: v.version})
	e.change.Unlock()
	for _, b := range v.blocks {
		b.close()
	}
}

// save makes the state durable: first the blocks, then the index, then the names of new files, and
// last the manifest that speaks of them.
func (c *checkpoint) save() error {
	if err := c.v.tail.flush(true); err != nil {
		return err
	}
	names := false
	for _, b := range c.v.blocks {
		if slices.Contains(c.empty, b) {
			continue
		}
		names = names || b.durable.Load() == 0
		if err := b.sync(); err != nil {
			return err
		}
	}
	x, err := c.saveIndex()
	if err != nil {
		return err
	}
	fresh := x != c.e.index
	if fresh || names {
		err = c.e.dir.sync()
	}
	c.m.index, c.m.indexLen, c.m.baseLen = x.number, x.end, x.base
	if err == nil {
		err = c.e.dir.prepareManifest(c.m)
	}
	if err != nil {
		c.abandon(x)
		return err
	}
	x.close()
	if err := c.e.dir.switchManifest(); err != nil {
		return err // The new index file may be that of the manifest, so it stays.
	}
	x.size = x.end
	if old := c.e.index; fresh && old != nil {
		old.remove()
	}
	c.e.index = x
	return nil
}

// abandon gives up what was written to an index file: a new one goes, so that tries on a full disk
// do not fill it further.
func (c *checkpoint) abandon(x *indexFile) {
	if x == c.e.index {
		x.close()
	} else {
		x.remove()
	}
}

// saveIndex writes what changed in the index behind the file it is in, or all of it to a new one.
// The new one is due when the changes have come to a third of the size of what they change.
func (c *checkpoint) saveIndex() (x *indexFile, err error) {
	x = c.e.index
	if x == nil || c.took.all || c.e.renew || x.size-x.base > max(c.e.tuning.baseBytesMin, x.base/3) {
		return c.saveBase()
	}
	x.end = x.size // Overwrites what an earlier checkpoint did not finish.
	if err = c.saveDelta(x); err == nil && x.end > x.size {
		err = x.sync()
	}
	if err != nil {
		c.abandon(x)
		return nil, err
	}
	return x, nil
}

func (c *checkpoint) saveBase() (*indexFile, error) {
	x, err := newIndexFile(c.e.dir)
	if err != nil {
		return nil, err
	}
	if err = c.v.EncodeBase(x.emit); err == nil {
		x.base = x.end
		err = x.sync()
	}
	if err != nil {
		c.abandon(x)
		return nil, err
	}
	return x, nil
}

func (c *checkpoint) saveDelta(x *indexFile) error {
	before := c.e.manifest.lastSeq
	if err := index.EncodeRemoved(upTo(c.took.removed, before), x.emit); err != nil {
		return err
	}
	if err := c.v.EncodeMoved(upTo(c.took.moved, before), x.emit); err != nil {
		return err
	}
	if err := c.v.EncodeRows(before+1, x.emit); err != nil {
		return err
	}
	return c.v.EncodeAuxKeys(slices.Sorted(maps.Keys(c.took.aux)), x.emit)
}

// upTo returns the sequences that are at most last, ascending, each once.
func upTo(seqs []uint64, last uint64) []uint64 {
	kept := make([]uint64, 0, len(seqs))
	for _, seq := range seqs {
		if seq <= last {
			kept = append(kept, seq)
		}
	}
	slices.Sort(kept)
	return slices.Compact(kept)
}

// erase overwrites what was erased. Only now: the state before this checkpoint still had it.
func (c *checkpoint) erase() error {
	byBlock := make(map[uint32][]place)
	for _, p := range c.took.erase {
		byBlock[p.block] = append(byBlock[p.block], p)
	}
	for _, number := range slices.Sorted(maps.Keys(byBlock)) {
		if b := c.v.block(number); b != nil && b.written.Load() > 0 {
			if err := b.erase(byBlock[number]); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop gives up blocks. Their files go as soon as no reader is in the middle of one.
func (e *Engine) drop(blocks []*block) {
	if len(blocks) == 0 {
		return
	}
	gone := func(b *block) bool { return slices.Contains(blocks, b) }
	if e.victim != nil && gone(e.victim.b) {
		e.victim = nil // What compaction had not moved yet was removed meanwhile.
	}
	e.change.Lock()
	v := *e.View()
	v.blocks = slices.DeleteFunc(slices.Clone(v.blocks), gone)
	v.tail = slices.DeleteFunc(slices.Clone(v.tail), func(s span) bool { return gone(s.block) })
	for seq, p := range e.copies { // order: each is judged alone
		if slices.ContainsFunc(blocks, func(b *block) bool { return b.number == p.block }) {
			delete(e.copies, seq)
		}
	}
	e.Publish(&v)
	e.change.Unlock()
	for _, b := range blocks {
		b.doomed.Store(true)
		b.release()
	}
}
