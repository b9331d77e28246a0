package wal

import (
	"fmt"
	"time"
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

	durable      place  // all before it is on disk
	firstSegment uint64 // segments below are not needed

	// Taken from the queue, being written.
	ops  []op
	subs []submission

	// Reused for every batch.
	prefix, heads, newRows []byte
	sectors                sectorWriter
}

// Step writes one batch of what is submitted and runs the callbacks. It returns false if there was
// nothing to do. With Options.Stepped its caller is the writer; otherwise only Run calls it.
func (l *Log) Step() bool {
	w := &l.w
	err := l.take()
	if len(w.subs) == 0 {
		return false
	}
	if err == nil && len(w.ops) > 0 {
		if err = w.write(); err != nil {
			err = l.fail(err)
		}
	}
	for i := range w.subs {
		if done := w.subs[i].done; done != nil {
			done(err)
		}
	}
	clear(w.subs)
	clear(w.ops)
	return true
}

// take moves submissions from the queue to the writer, as many as fit in a batch and at least one.
func (l *Log) take() error {
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
	}
	if n == len(q.subs) {
		w.subs, q.subs = q.subs, w.subs[:0]
		w.ops, q.ops = q.ops, w.ops[:0]
		q.base = 0
		return q.err
	}
	w.subs = append(w.subs[:0], q.subs[:n]...)
	w.ops = append(w.ops[:0], q.ops[:ops]...)
	q.subs = dropFront(q.subs, n)
	q.ops = dropFront(q.ops, ops)
	q.base += ops
	return q.err
}

func dropFront[T any](s []T, n int) []T {
	m := copy(s, s[n:])
	clear(s[m:])
	return s[:m]
}

// write makes the taken ops durable in one batch.
func (w *writer) write() error {
	h, payload := w.encodeRows()
	prefix := w.encodePrefix(&h)
	sectors := sectorsFor(h.bytes())
	if err := w.room(sectors); err != nil {
		return err
	}
	w.spread(prefix, h.seq, payload)
	at := place{w.active.number, w.next}
	w.active.stamp.seal(w.sectors.buf, at.sector, true)
	if err := w.writeSync(at); err != nil {
		return err
	}
	w.seq, w.rowsSeq = h.seq, h.seq
	w.rows, w.newRows = w.newRows, w.rows
	w.next += uint32(sectors)
	w.durable = place{at.segment, w.next}
	w.settle(at, &h)
	return nil
}

// encodeRows encodes the rows and heads of the ops.
func (w *writer) encodeRows() (h batchHeader, payload int) {
	h.seq = w.seq + 1
	w.newRows, w.heads = w.newRows[:0], w.heads[:0]
	for i := range w.ops {
		o := &w.ops[i]
		r := row{flags: o.flags, group: o.g.id, prev: o.g.rowSeq, hard: o.hard, start: o.start}
		if o.g.rowSeq == 0 {
			r.flags |= rowNew
			r.prev = h.seq
		}
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
		w.newRows = r.append(w.newRows, h.seq)
	}
	return h, payload
}

// encodePrefix completes the header and returns all that comes before the payloads.
func (w *writer) encodePrefix(h *batchHeader) []byte {
	h.magic = batchMagic
	h.durable = w.durable
	h.rowBytes = uint32(len(w.newRows))
	h.copyBytes, h.copySeq = uint32(len(w.rows)), w.rowsSeq
	h.headBytes = uint32(len(w.heads))
	for i := range w.ops {
		h.payloadBytes += w.ops[i].payloadLen
	}
	h.firstSegment = w.firstSegment
	h.previousChain = w.chain
	w.prefix = h.append(w.prefix[:0])
	w.prefix = append(w.prefix, w.newRows...)
	w.prefix = append(w.prefix, w.rows...)
	w.prefix = append(w.prefix, w.heads...)
	return w.prefix
}

// spread lays the batch out in sectors.
func (w *writer) spread(prefix []byte, seq uint64, payload int) {
	w.chain = chainHash(prefix)
	s := &w.sectors
	s.buf, s.at = s.buf[:0], 0
	s.write(prefix)
	for i := range w.ops {
		for j := range w.ops[i].entries {
			s.write(w.ops[i].entries[j].Data)
		}
	}
	s.write(appendTrailer(nil, seq, w.chain))
}

// writeSync writes the sectors and waits until they are on disk. It is the only place where
// acknowledged bytes come from.
func (w *writer) writeSync(at place) error {
	w.l.syncing.Store(int64(time.Since(w.l.epoch)) | 1)
	defer w.l.syncing.Store(0)
	name := segmentName(at.segment)
	if _, err := w.active.f.WriteAt(w.sectors.buf, at.offset()); err != nil {
		return fmt.Errorf("write %s at %d: %w", name, at.offset(), err)
	}
	if err := w.active.f.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// settle tells the groups where their entries are.
func (w *writer) settle(at place, h *batchHeader) {
	heads := headerSize + h.rowBytes + h.copyBytes
	payloads := heads + h.headBytes
	for i := range w.ops {
		o := &w.ops[i]
		o.g.rowSegment = at.segment
		if o.run == nil {
			continue
		}
		o.g.mu.Lock()
		r := o.run
		r.at = at
		r.headAt, r.headLen = heads+o.headAt, o.headLen
		r.payloadAt, r.payloadLen = payloads+o.payloadAt, o.payloadLen
		o.g.mu.Unlock()
	}
}

// room makes sure that a batch fits behind the last one, in a new segment if need be.
func (w *writer) room(sectors int) error {
	if int64(w.next)+int64(sectors) <= int64(w.active.end()) {
		return nil
	}
	size := min(w.l.o.SegmentBytes, max(w.active.size*2, segmentBytesFirst))
	size = max(size, int64(sectors+2)*sectorSize)
	s, err := w.l.createSegment(w.active.number+1, size)
	if err != nil {
		return err
	}
	w.l.files.Lock()
	w.l.files.open[s.number] = s
	w.l.files.Unlock()
	w.active, w.next = s, 1
	return nil
}
