package wal

import (
	"fmt"
	"slices"
)

// Finding is something on the disk that is not as it was written, whether or not it harms a group.
type Finding struct {
	File   string
	Offset int64
	What   string
}

func (f Finding) String() string { return fmt.Sprintf("%s at offset %d: %s", f.File, f.Offset, f.What) }

// judge turns what the scan finds, in order, into the state of the groups and a verdict on what is
// missing:
//
//	found                                        verdict
//	stamps right                                 good
//	zeros at the end, or an incomplete batch     torn tail: cut, never acknowledged
//	  with nothing behind it
//	zeros or an incomplete batch, with a later   lost write: damaged
//	  batch or proof that it was durable
//	a sector neither right nor zero, or not      damaged, also at the end
//	  readable, where a batch was or may be
//	headers gone, segment missing                damaged, the whole segment
//	content wrong under right stamps             ErrInconsistent, Open fails
//
// Batches are numbered and chained, so a stretch between two batches with consecutive numbers held
// nothing, whatever it looks like now. A lost batch is identified by its own directory if that can
// be read, else by the copy in its successor; if both are gone, then by the rows of each group,
// which name the batch of the row before, and by the segment's index. Groups for which all that
// leaves a doubt are reported as such.
type judge struct {
	groups   map[GroupID]*group
	findings []Finding

	// The last good batch is held back until its successor confirmed its chain value.
	last    *item
	between []*item // found since
	any     bool    // a batch was seen
	first   uint64  // sequence of the first batch

	applied uint64 // sequence of the last batch that is in groups
	rows    []row  // of the last batch, for the copy
	gaps    []gap  // batches of which nothing is known

	firstSegment uint64
	durable      place // what some header says is durable
}

// gap is lost batches with unknown content, first to last.
type gap struct {
	first, last uint64
	loss        *lostRun
}

func (j *judge) find(at place, what string) {
	j.findings = append(j.findings, Finding{segmentName(at.segment), at.offset(), what})
}

// add takes the next item.
func (j *judge) add(it *item) {
	if it.kind != itemHole {
		if j.durable.less(it.head.durable) {
			j.durable = it.head.durable
		}
	}
	switch {
	case it.kind != itemBatch:
		j.between = append(j.between, it)
	case j.last != nil && it.head.seq <= j.last.head.seq:
		j.find(it.at, "batch out of order")
		j.between = append(j.between, it)
	default:
		j.settle(it)
		j.last, j.any = it, true
		j.firstSegment = max(j.firstSegment, it.head.firstSegment)
	}
}

// settle applies the batch that was held back, and then what lies between it and its good
// successor.
func (j *judge) settle(next *item) {
	seq := next.head.seq
	if !j.any {
		j.first, j.applied = seq, seq-1
		j.leading(next)
		return
	}
	j.confirm(next)
	j.applied = j.last.head.seq
	if j.applied+1 < seq {
		j.lost(next)
	} else {
		for _, it := range j.between {
			j.harmless(it)
		}
	}
	j.between = j.between[:0]
}

// leading judges what comes before the first good batch.
func (j *judge) leading(next *item) {
	for _, it := range j.between {
		if it.kind == itemBroken && it.head.seq < next.head.seq {
			j.first, j.applied = min(j.first, it.head.seq), min(j.applied, it.head.seq-1)
		}
	}
	if len(j.between) > 0 && j.first == next.head.seq && next.head.copySeq == next.head.seq-1 && next.head.copySeq > 0 {
		j.first, j.applied = next.head.copySeq, next.head.copySeq-1
	}
	if j.applied+1 < next.head.seq {
		j.lost(next)
	} else {
		for _, it := range j.between {
			j.harmless(it)
		}
	}
	j.between = j.between[:0]
}

// confirm applies the batch that was held back; if its successor knows another chain value, its
// content is not what was acknowledged.
func (j *judge) confirm(next *item) {
	last := j.last
	if next == nil || last.chain == next.head.previousChain || next.head.seq != last.head.seq+1 {
		j.apply(last, last.rows, last.runs)
		return
	}
	j.find(last.at, last.reason())
	loss := last.loss("")
	if next.head.copySeq == last.head.seq {
		j.applyLost(last.at.segment, last.head.seq, next.copied, loss)
	} else {
		j.gaps = append(j.gaps, gap{last.head.seq, last.head.seq, loss})
	}
}

// harmless reports an item that lies where nothing was.
func (j *judge) harmless(it *item) {
	if it.bad > 0 {
		j.find(place{it.at.segment, it.firstBad}, "sector damaged, nothing was there")
	} else if it.kind == itemHole && it.first == sectorBad {
		j.find(it.at, "sector damaged, nothing was there")
	}
}

// lost judges the batches between the last one applied and next, which are missing or broken.
func (j *judge) lost(next *item) {
	for seq := j.applied + 1; seq < next.head.seq; seq++ {
		it := j.broken(seq)
		switch {
		case it != nil && it.rowsOK:
			j.find(place{it.at.segment, uint32(it.loss("").offset / sectorSize)}, it.reason())
			j.apply(it, it.rows, it.runs)
		case next.head.copySeq == seq:
			loss := j.blame(it, next)
			j.applyLost(next.at.segment, seq, next.copied, loss)
		default:
			last := j.nextKnown(seq, next.head)
			j.gaps = append(j.gaps, gap{seq, last, j.blame(it, next)})
			seq = last
		}
	}
	j.applied = next.head.seq - 1
}

// nextKnown is the last of the unknown batches from seq on.
func (j *judge) nextKnown(seq uint64, next batchHeader) uint64 {
	last := next.seq - 1
	if next.copySeq == last {
		last--
	}
	for _, it := range j.between {
		if it.kind == itemBroken && it.rowsOK && it.head.seq > seq {
			last = min(last, it.head.seq-1)
		}
	}
	return max(last, seq)
}

func (j *judge) broken(seq uint64) *item {
	for _, it := range j.between {
		if it.kind == itemBroken && it.head.seq == seq {
			return it
		}
	}
	return nil
}

// blame finds the place to report for a batch that is missing before next.
func (j *judge) blame(it *item, next *item) *lostRun {
	if it == nil {
		for _, hole := range j.between {
			if it == nil || hole.bad > 0 && it.bad == 0 {
				it = hole
			}
		}
	}
	loss := &lostRun{file: segmentName(next.at.segment), offset: next.at.offset(), reason: "the batch before is missing"}
	if it != nil {
		loss = it.loss("")
		if it.bad+it.zero == 0 {
			loss.reason = "batch is missing"
		}
	}
	j.findings = append(j.findings, Finding{loss.file, loss.offset, loss.reason})
	return loss
}

// apply executes the rows of a batch, whose entries are where runs say.
func (j *judge) apply(it *item, rows []row, runs [][]*run) {
	for i := range rows {
		var rs []*run
		if runs != nil {
			rs = runs[i]
		}
		j.applyRow(it.at.segment, it.head.seq, &rows[i], rs)
	}
	j.rows = rows
}

// applyLost executes the rows of a batch whose entries are lost.
func (j *judge) applyLost(segment, seq uint64, rows []row, loss *lostRun) {
	for i := range rows {
		var rs []*run
		if r := &rows[i]; r.count > 0 {
			l := *loss
			rs = []*run{r.lostRun(&l)}
		}
		j.applyRow(segment, seq, &rows[i], rs)
	}
}

func (j *judge) applyRow(segment, seq uint64, r *row, runs []*run) {
	g := j.groups[r.group]
	if r.flags&rowRemove != 0 {
		delete(j.groups, r.group)
		return
	}
	if g == nil {
		g = &group{id: r.group}
		j.groups[r.group] = g
	}
	switch {
	case r.flags&rowReset != 0:
		g.runs, g.last, g.doubt = nil, r.start.Index, nil
	case r.prev == g.rowSeq, r.prev == seq, g.rowSeq == 0 && r.prev < j.first:
	default:
		g.doubt = j.doubtOf(r.group, r.prev)
	}
	g.hard, g.start = r.hard, r.start
	g.rowSeq, g.rowSegment = seq, segment
	if r.count > 0 {
		g.cut(r.first)
		g.runs = append(g.runs, runs...)
		g.last = r.last()
	}
}

// cut drops the entries from index on, as replaceFrom does, but allows a gap: entries may have been
// in segments that are deleted since.
func (g *group) cut(index uint64) {
	for n := len(g.runs); n > 0; n-- {
		r := g.runs[n-1]
		if r.first < index {
			r.last = min(r.last, index-1)
			return
		}
		g.runs = g.runs[:n-1]
	}
}

// doubtOf says that the row of batch seq is lost.
func (j *judge) doubtOf(g GroupID, seq uint64) *DamageError {
	d := &DamageError{Group: g, Unknown: true, Reason: "a batch is missing"}
	for i := range j.gaps {
		if gap := &j.gaps[i]; gap.first <= seq && seq <= gap.last {
			d.File, d.Offset, d.Reason = gap.loss.file, gap.loss.offset, gap.loss.reason
		}
	}
	return d
}

// tail is where the log goes on.
type tail struct {
	at      place // behind the last batch
	seq     uint64
	chain   uint64
	rows    []row
	rowsSeq uint64
	clear   []*item // torn: to be overwritten with zeros
	damaged bool    // at must not be written, start a new segment
	skip    bool    // a batch of unknown content may have had the next sequence
}

// finish judges what lies behind the last good batch.
func (j *judge) finish() tail {
	var t tail
	if j.any {
		j.confirm(nil)
		l := j.last
		j.applied = l.head.seq
		t = tail{at: l.next(), seq: l.head.seq, chain: l.chain, rows: l.rows, rowsSeq: l.head.seq}
	}
	for i, it := range j.between {
		if i == 0 && t.at.segment == 0 {
			t.at = it.at
		}
		j.end(&t, it, i)
	}
	slices.SortFunc(j.findings, func(a, b Finding) int {
		if a.File != b.File {
			return cmpString(a.File, b.File)
		}
		return int(a.Offset - b.Offset)
	})
	return t
}

// end judges one item behind the last good batch.
func (j *judge) end(t *tail, it *item, i int) {
	durable := it.at.less(j.durable)
	switch {
	case it.kind == itemFooter:
		// A footer is written after the next segment got its first batch.
		if it.footer != nil {
			t.damaged, t.skip = true, true
			j.gaps = append(j.gaps, gap{it.head.seq + 1, ^uint64(0), &lostRun{file: segmentName(it.at.segment + 1), reason: "the batches behind a sealed segment are missing"}})
		} else {
			j.harmless(it)
			t.damaged = true
		}
	case it.kind == itemHole && it.first == sectorZero && !durable:
		// If a batch had been here and were lost without a trace, its first sector would
		// show zeros too: that much is undecidable. Garbage further on proves nothing more.
		j.harmless(it)
		if it.bad > 0 || it.zero < it.sectors {
			t.clear = append(t.clear, it)
		}
	case it.kind == itemHole:
		loss := it.loss("")
		j.find(place{it.at.segment, uint32(loss.offset / sectorSize)}, loss.reason)
		j.gaps = append(j.gaps, gap{j.applied + 1, j.applied + 1, loss})
		t.damaged, t.skip = true, true
	case it.kind == itemBroken && it.bad == 0 && !durable && it.head.seq == j.applied+1:
		t.clear = append(t.clear, it)
	case it.kind == itemBroken:
		j.endBroken(t, it)
	}
}

// endBroken judges a batch at the end that was acknowledged, or may have been.
func (j *judge) endBroken(t *tail, it *item) {
	loss := it.loss("")
	j.find(place{it.at.segment, uint32(loss.offset / sectorSize)}, loss.reason)
	if it.head.seq > j.applied+1 {
		last := it.head.seq - 1
		if it.copyOK && it.head.copySeq == last {
			if last > j.applied+1 {
				j.gaps = append(j.gaps, gap{j.applied + 1, last - 1, loss})
			}
			j.applyLost(it.at.segment, last, it.copied, loss)
		} else {
			j.gaps = append(j.gaps, gap{j.applied + 1, last, loss})
		}
	}
	if it.rowsOK {
		j.apply(it, it.rows, it.runs)
	} else {
		j.gaps = append(j.gaps, gap{it.head.seq, it.head.seq, loss})
	}
	j.applied = it.head.seq
	t.seq, t.damaged, t.skip = it.head.seq, true, !it.rowsOK
	t.rows, t.rowsSeq = it.rows, it.head.seq
}

// doubts says for each group without a row behind an unknown batch that it may have been in it,
// unless an index of the segment knows better.
func (j *judge) doubts() (rest *DamageError) {
	for i := range j.gaps {
		gap := &j.gaps[i]
		d := DamageError{File: gap.loss.file, Offset: gap.loss.offset, Reason: gap.loss.reason, Unknown: true}
		for _, g := range j.groups {
			if g.rowSeq < gap.first && g.doubt == nil {
				c := d
				c.Group = g.id
				g.doubt = &c
			}
		}
		rest = &d
	}
	return rest
}

// complete makes sure that each group has all entries from its start to its end; what is not there
// is lost without identity.
func (j *judge) complete(g *group) {
	n := 0
	for n < len(g.runs) && g.runs[n].last <= g.start.Index {
		n++
	}
	g.runs = g.runs[n:]
	g.last = max(g.last, g.start.Index)
	next := g.start.Index + 1
	var runs []*run
	missing := func(to uint64) {
		if next > to {
			return
		}
		loss := &lostRun{reason: "log entries are missing"}
		if g.doubt != nil {
			loss.file, loss.offset, loss.reason = g.doubt.File, g.doubt.Offset, g.doubt.Reason
		}
		runs = append(runs, &run{first: next, last: to, count: to - next + 1, lost: loss})
	}
	for _, r := range g.runs {
		missing(r.first - 1)
		runs = append(runs, r)
		next = r.last + 1
	}
	missing(g.last)
	g.runs = runs
	for _, r := range g.runs {
		if r.lost != nil && r.term == 0 && g.doubt == nil {
			g.doubt = &DamageError{Group: g.id, File: r.lost.file, Offset: r.lost.offset, Reason: r.lost.reason, Unknown: true}
		}
	}
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
