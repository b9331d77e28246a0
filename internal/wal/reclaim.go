package wal

import (
	"cmp"
	"maps"
	"slices"
)

// segmentsPinned is how many segments a group may hold back before what it still needs of them is
// written again at the head of the log.
const segmentsPinned = 4

// oldest is the first segment that the group needs, 0 if it has none yet. A group in doubt needs all.
// The caller holds g.mu.
func (g *group) oldest(first uint64) uint64 {
	if g.doubt != nil {
		return first
	}
	n := g.rowSegment
	if len(g.runs) > 0 {
		if s := g.runs[0].at.segment; s != 0 && (n == 0 || s < n) {
			n = s
		}
	}
	return n
}

// unpinned is called after an update to g: if it does not need the oldest segment any more and was
// the last group that did, the writer shall look which segments can go. The caller holds g.mu.
func (l *Log) unpinned(g *group) {
	if !g.pins || !g.removed && g.oldest(l.pinned.Load()) <= l.pinned.Load() {
		return
	}
	g.pins = false
	if l.pins.Add(-1) == 0 {
		l.look.Store(true)
	}
}

// reclaim finds out which segments nobody needs and submits what must be on disk before they are
// deleted: the start of each log that was compacted since the disk heard of it. Groups that hold back
// many segments are moved to the head of the log.
func (l *Log) reclaim() {
	w := &l.w
	if w.firstSegment >= w.active.number {
		return
	}
	l.look.Store(false)
	if w.active.number-w.firstSegment > segmentsPinned {
		l.relocate(w.active.number - segmentsPinned)
	}
	q := &l.queue
	q.Lock()
	defer q.Unlock()
	if q.err != nil {
		return
	}
	groups := l.sorted()
	first := w.active.number
	for _, g := range groups {
		g.mu.Lock()
		if n := g.oldest(w.firstSegment); n != 0 {
			first = min(first, n)
		}
		g.mu.Unlock()
	}
	l.pin(groups, first)
	if first <= w.firstSegment {
		return
	}
	for _, g := range groups {
		g.mu.Lock()
		if g.dirty {
			q.ops = append(q.ops, g.stateOp())
		}
		g.mu.Unlock()
	}
	if len(q.ops) == 0 {
		q.ops = append(q.ops, op{}) // An empty batch, for its header.
	}
	q.subs = append(q.subs, submission{ops: q.base + len(q.ops), firstSegment: first})
}

// pin counts the groups that need the oldest segment.
func (l *Log) pin(groups []*group, first uint64) {
	l.pinned.Store(first)
	pins := int64(0)
	for _, g := range groups {
		g.mu.Lock()
		if g.pins = g.oldest(first) == first; g.pins {
			pins++
		}
		g.mu.Unlock()
	}
	l.pins.Store(pins)
}

// stateOp is a row with the group's state as of the last update. The caller holds g.mu.
func (g *group) stateOp() op {
	g.dirty = false
	return op{g: g, hard: g.hard, start: g.start}
}

// relocate writes groups that need segments below limit again: a row like that of a reset with all
// that is left of the log. Groups with much left stay where they are; it is for their owner to compact
// them.
func (l *Log) relocate(limit uint64) {
	left := uint64(l.o.SegmentBytes / 4)
	for _, g := range l.sorted() {
		g.mu.Lock()
		n := g.oldest(limit)
		candidate := n != 0 && n < limit && !g.damaged && !g.pending() && g.size() <= left
		lo, hi, version := g.start.Index+1, g.last+1, g.version
		g.mu.Unlock()
		if !candidate {
			continue
		}
		var entries []Entry
		if lo < hi {
			var err error
			entries, err = l.Entries(nil, g.id, lo, hi, left)
			if err != nil || uint64(len(entries)) != hi-lo {
				continue
			}
		}
		size := uint64(0)
		for i := range entries {
			size += uint64(len(entries[i].Data))
		}
		if size > left {
			continue
		}
		left -= size
		l.resubmit(g, entries, version)
	}
}

// size is about how many bytes of payloads the group's log has. The caller holds g.mu.
func (g *group) size() (n uint64) {
	for _, r := range g.runs {
		n += uint64(r.payloadLen)
	}
	return n
}

// pending tells whether an entry is on its way to the disk. The caller holds g.mu.
func (g *group) pending() bool {
	n := len(g.runs)
	return n > 0 && g.runs[n-1].at.segment == 0
}

// resubmit puts the whole log of g into the queue again, unless it changed since version.
func (l *Log) resubmit(g *group, entries []Entry, version uint64) {
	q := &l.queue
	q.Lock()
	defer q.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if q.err != nil || g.version != version || g.removed {
		return
	}
	first := len(q.ops)
	g.runs, g.tail, g.last = nil, nil, g.start.Index
	for rest := entries; len(rest) > 0; {
		n := sameTerm(rest)
		q.ops = append(q.ops, op{g: g, hard: g.hard, start: g.start, run: g.push(rest[:n]), entries: rest[:n]})
		rest = rest[n:]
	}
	if len(entries) == 0 {
		q.ops = append(q.ops, op{g: g, hard: g.hard, start: g.start})
	}
	q.ops[first].flags = rowReset
	g.dirty = false
	bytes := l.keepCached(g, entries)
	q.bytes += bytes
	q.subs = append(q.subs, submission{ops: q.base + len(q.ops), bytes: bytes})
}

// flush submits the state that the disk has not heard of, at the end.
func (l *Log) flush() {
	q := &l.queue
	q.Lock()
	defer q.Unlock()
	n := len(q.ops)
	for _, g := range l.sorted() {
		g.mu.Lock()
		if g.dirty {
			q.ops = append(q.ops, g.stateOp())
		}
		g.mu.Unlock()
	}
	if len(q.ops) > n {
		q.subs = append(q.subs, submission{ops: q.base + len(q.ops)})
	}
}

// sorted returns the groups in the order of their ids.
func (l *Log) sorted() []*group {
	l.groups.RLock()
	defer l.groups.RUnlock()
	return sortGroups(l.groups.m)
}

func sortGroups(m map[GroupID]*group) []*group {
	return slices.SortedFunc(maps.Values(m), func(a, b *group) int { return cmp.Compare(a.id, b.id) })
}
