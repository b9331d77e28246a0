package wal

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/invariant"
)

// writer is the head of the log. Only Step touches it: the goroutine of Run, or the owner of a
// stepped log.
type writer struct {
	l *Log

	active *segment
	next   uint32 // the sector for the next batch

	seq     uint64 // of the last batch
	chain   uint64 // its chain value
	rows    []byte // its rows, for the copy in the next batch
	rowsSeq uint64 // whose rows these are; older than seq after a loss
	footer  footerBuilder

	durable      place  // all before it is on disk
	firstSegment uint64 // segments below are not needed

	// Taken from the queue, being written. They stay while the disk has no room.
	ops  []op
	subs []submission

	// The batch of ops; seq is 0 until it is encoded. The buffers are reused.
	batch    batchHeader
	newChain uint64
	newRows  []byte
	heads    []byte
	prefix   []byte
	trailer  [trailerSize]byte
	sectors  sectorWriter

	// What to do once the batch is on disk.
	sealed       *segment // full; its footer can be written
	sealedAt     uint32
	sealedFooter []byte
	releaseBelow uint64 // segments below can be deleted

	prepareAt uint32 // the sector at which to make the next segment
}

// waiting tells whether submissions wait for room on the disk.
func (w *writer) waiting() bool { return len(w.subs) > 0 }

// Step writes one batch of what is submitted and runs the callbacks. It returns false if there was
// nothing to do, or nothing could be done for lack of space. With Options.Stepped its caller is the
// writer; otherwise only Run calls it.
func (l *Log) Step() bool {
	w := &l.w
	err := l.Err()
	if !w.waiting() {
		l.take()
	}
	if !w.waiting() {
		return false
	}
	if err == nil && len(w.ops) > 0 {
		l.clock.start()
		if err = w.write(); vfs.IsNoSpaceError(err) && !l.closing() {
			return false
		}
		if err != nil {
			err = l.fail(err)
		} else {
			l.clock.count(len(w.subs), len(w.sectors.buf))
		}
		l.clock.stop()
	}
	w.answer(err)
	if err == nil && l.look.Load() {
		l.reclaim()
	}
	if l.o.Stepped {
		l.runPending()
	}
	return true
}

// answer runs the callbacks and forgets what was taken.
func (w *writer) answer(err error) {
	for i := range w.subs {
		if done := w.subs[i].done; done != nil {
			done(err)
		}
	}
	clear(w.subs)
	clear(w.ops)
	w.subs, w.ops = w.subs[:0], w.ops[:0]
	w.batch.seq = 0
	if int64(cap(w.sectors.buf)) > 2*w.l.o.BatchBytes {
		w.sectors.buf = nil // It was an exception.
	}
}

// take moves submissions from the queue to the writer, as many as fit in a batch and at least one.
func (l *Log) take() {
	q, w := &l.queue, &l.w
	q.Lock()
	defer q.Unlock()
	n, ops, bytes := 0, 0, int64(0)
	for ; n < len(q.subs); n++ {
		bytes += q.subs[n].bytes
		if n > 0 && bytes > l.o.BatchBytes {
			break
		}
		ops = q.subs[n].ops - q.base
		w.releaseBelow = max(w.releaseBelow, q.subs[n].firstSegment)
	}
	if n == len(q.subs) {
		w.subs, q.subs = q.subs, w.subs
		w.ops, q.ops = q.ops, w.ops
		q.base = 0
		return
	}
	w.subs = append(w.subs, q.subs[:n]...)
	w.ops = append(w.ops, q.ops[:ops]...)
	q.subs = dropFront(q.subs, n)
	q.ops = dropFront(q.ops, ops)
	q.base += ops
}

func dropFront[T any](s []T, n int) []T {
	m := copy(s, s[n:])
	clear(s[m:])
	return s[:m]
}

// write makes the taken ops durable in one batch.
func (w *writer) write() error {
	if w.batch.seq == 0 {
		w.firstSegment = max(w.firstSegment, w.releaseBelow)
		w.encodeRows()
	}
	h := &w.batch
	sectors := sectorsFor(h.bytes())
	if err := w.room(sectors); err != nil {
		return err
	}
	w.layOut()
	at := place{w.active.number, w.next}
	w.active.stamp.seal(w.sectors.buf, at.sector, true)
	if err := w.writeSync(at); err != nil {
		return err
	}
	w.next += uint32(sectors)
	w.durable = place{at.segment, w.next}
	w.settle(at)
	w.l.noteSynced()
	w.rows, w.newRows = w.newRows, w.rows
	w.afterBatch()
	return nil
}

// noteSynced tells others how far the log is on disk.
func (l *Log) noteSynced() {
	l.files.Lock()
	defer l.files.Unlock()
	l.files.synced = l.w.durable
}

// afterBatch gives the keeper what can be done now that the batch is on disk.
func (w *writer) afterBatch() {
	if w.sealed != nil {
		w.l.seal(w.sealed, w.sealedAt, w.sealedFooter)
		w.sealed, w.sealedFooter = nil, nil
		w.l.look.Store(true)
	}
	if w.releaseBelow != 0 {
		w.l.release(w.releaseBelow)
		w.releaseBelow = 0
	}
	if w.next >= w.prepareAt {
		// Not at once: a server that is hardly used needs one segment, not two. If there is
		// no room, another try when some more of this segment is used.
		w.prepareAt = w.next + w.active.end()/16
		w.l.prepare(w.active)
	}
}

// layOut spreads the batch over sectors that are not stamped yet.
func (w *writer) layOut() {
	h := &w.batch
	if w.footer.segment != w.active.number {
		w.footer.begin(w.active.number, h.seq)
	}
	h.segmentSeq = w.footer.first
	w.prefix = h.append(w.prefix[:0])
	w.prefix = append(w.prefix, w.newRows...)
	w.prefix = append(w.prefix, w.rows...)
	w.prefix = append(w.prefix, w.heads...)
	w.newChain = chainHash(w.prefix)

	s := &w.sectors
	s.buf, s.at = s.buf[:0], 0
	s.write(w.prefix)
	for i := range w.ops {
		for j := range w.ops[i].entries {
			s.write(w.ops[i].entries[j].Data)
		}
	}
	s.write(appendTrailer(w.trailer[:0], h.seq, w.newChain))
}

// encodeRows encodes the rows and heads of the ops and notes where in the batch they are.
func (w *writer) encodeRows() {
	h := &w.batch
	*h = batchHeader{
		magic:         batchMagic,
		seq:           w.seq + 1,
		durable:       w.durable,
		copyBytes:     uint32(len(w.rows)),
		copySeq:       w.rowsSeq,
		firstSegment:  w.firstSegment,
		previousChain: w.chain,
	}
	w.newRows, w.heads = w.newRows[:0], w.heads[:0]
	payload := 0
	for i := range w.ops {
		o := &w.ops[i]
		if o.g == nil {
			continue
		}
		r := row{flags: o.flags, group: o.g.id, prev: o.g.rowSeq, hard: o.hard, start: o.start}
		o.g.rowSeq = h.seq
		if o.run != nil {
			r.first, r.term, r.count = o.entries[0].Index, o.run.term, uint64(len(o.entries))
			o.headAt, o.payloadAt = uint32(len(w.heads)), uint32(payload)
			for j := range o.entries {
				e := &o.entries[j]
				r.fold = FoldHash(r.fold, e.Hash)
				w.heads = head{typ: e.Type, len: uint64(len(e.Data)), hash: e.Hash}.append(w.heads)
				payload += len(e.Data)
			}
			o.headLen, o.payloadLen = uint32(len(w.heads))-o.headAt, uint32(payload)-o.payloadAt
		}
		o.row = r
		w.newRows = r.append(w.newRows, h.seq)
	}
	invariant.Assert(payload <= 1<<31, "a batch of %d bytes", payload)
	h.payloadBytes = uint32(payload)
	h.rowBytes, h.headBytes = uint32(len(w.newRows)), uint32(len(w.heads))
}

// writeSync writes the sectors and waits until they are on disk. It is the only place where
// acknowledged bytes come from.
func (w *writer) writeSync(at place) error {
	name := segmentName(at.segment)
	if _, err := w.active.f.WriteAt(w.sectors.buf, at.offset()); err != nil {
		return fmt.Errorf("write %s at %d: %w", name, at.offset(), notSpace(err))
	}
	if err := w.active.f.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", name, notSpace(err))
	}
	return nil
}

// notSpace hides that an error says that the disk is full. Space for a batch was there before; if it
// is gone, the file system breaks its word, and trying again is no remedy.
func notSpace(err error) error {
	if vfs.IsNoSpaceError(err) {
		return fmt.Errorf("on preallocated space: %v", err)
	}
	return err
}

// settle tells the groups where their entries are now.
func (w *writer) settle(at place) {
	h := &w.batch
	w.seq, w.chain, w.rowsSeq = h.seq, w.newChain, h.seq
	heads := headerSize + h.rowBytes + h.copyBytes
	payloads := heads + h.headBytes
	for i := range w.ops {
		o := &w.ops[i]
		if o.g == nil {
			continue
		}
		w.footer.add(o.g, at.segment, h.seq, o.row)
		o.g.mu.Lock()
		o.g.rowSegment = at.segment
		if r := o.run; r != nil {
			r.at = at
			r.headAt, r.headLen = heads+o.headAt, o.headLen
			r.payloadAt, r.payloadLen = payloads+o.payloadAt, o.payloadLen
		}
		w.l.unpinned(o.g)
		o.g.mu.Unlock()
	}
}

// room makes sure that a batch fits behind the last one, with the footer behind it; in a new segment if
// need be.
func (w *writer) room(sectors int) error {
	if w.fits(w.active, w.next, sectors) {
		return nil
	}
	s, err := w.l.successor(w.active, sectors+w.footer.sectorsMax(w.active.number+1, len(w.ops)))
	if err != nil {
		return err
	}
	if w.footer.segment == w.active.number {
		w.sealed, w.sealedAt = w.active, w.next
		w.sealedFooter = w.footer.encode(w.seq, w.chain)
	}
	w.start(s, 1)
	w.l.files.Lock()
	w.l.files.open[s.number] = s
	w.l.files.Unlock()
	return nil
}

// start makes s the segment that is written, from sector next on.
func (w *writer) start(s *segment, next uint32) {
	w.active, w.next = s, next
	w.prepareAt = s.end() / 4
}

func (w *writer) fits(s *segment, at uint32, sectors int) bool {
	return int64(at)+int64(sectors)+int64(w.footer.sectorsMax(s.number, len(w.ops))) <= int64(s.end())
}

func (l *Log) closing() bool {
	l.queue.Lock()
	defer l.queue.Unlock()
	return l.queue.closed
}
