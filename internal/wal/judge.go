package wal

import "fmt"

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
// be read, else by the copy in its successor, a lost segment by its index file; if all is gone, then
// the rows of each group tell, which name the batch of the row before. Groups for which that leaves a
// doubt are reported as such.
type judge struct {
	groups   map[GroupID]*group
	findings []Finding
	hurt     map[uint64]bool // segments with findings

	// The last good batch is held back until its successor confirmed its chain value.
	last    *item
	between []*item // found since

	any     bool   // a batch was seen
	first   uint64 // sequence of the first batch that the log still has
	applied uint64 // sequence of the last batch that is in groups
	gaps    []gap  // batches of which nothing is known

	firstSegment uint64 // where the log begins, 1 if nothing else is known
	durable      place  // what some header says is durable

	// To seal segments that a crash left unsealed.
	footer   footerBuilder
	end      place // of the last batch
	endSeq   uint64
	chain    uint64
	sealed   map[uint64]bool
	unsealed []unsealed
	footers  map[uint64]*item // of segments with gaps

	tail tail
	rest *DamageError // of groups that are not known
}

// gap is lost batches with unknown content, first to last.
type gap struct {
	first, last uint64
	loss        *lostRun
}

type unsealed struct {
	segment uint64
	at      place
	footer  []byte
}

func newJudge() *judge {
	return &judge{
		firstSegment: 1,
		groups:       make(map[GroupID]*group),
		hurt:         make(map[uint64]bool),
		sealed:       make(map[uint64]bool),
		footers:      make(map[uint64]*item),
	}
}

func (j *judge) find(at place, what string) {
	j.report(Finding{segmentName(at.segment), at.offset(), what})
}

// report notes a finding.
func (j *judge) report(f Finding) {
	j.findings = append(j.findings, f)
	if n, ok := parseName(f.File, segmentSuffix); ok {
		j.hurt[n] = true
	}
}

// blame reports an item and makes the loss of it.
func (j *judge) blame(it *item, reason string) *lostRun {
	loss := it.loss(reason)
	j.find(place{it.at.segment, uint32(loss.offset / sectorSize)}, loss.reason)
	return loss
}

// add takes the next item.
func (j *judge) add(it *item) {
	if it.kind != itemHole && j.durable.less(it.head.durable) {
		j.durable = it.head.durable
	}
	switch {
	case it.kind == itemBatch && (j.last == nil || it.head.seq > j.last.head.seq):
		j.settle(it)
		j.last, j.any = it, true
		j.firstSegment = max(j.firstSegment, it.head.firstSegment)
		return
	case it.kind == itemBatch:
		j.find(it.at, "batch out of order")
	case it.kind == itemFooter && it.footer != nil && (j.hurt[it.at.segment] || len(j.between) > 0):
		j.footers[it.at.segment] = it
	case it.kind == itemGone:
		j.find(it.at, "segment is missing or has no header")
		if it.footer != nil {
			j.footers[it.at.segment] = it
		}
	}
	j.between = append(j.between, it)
}

// endSegment is called behind the last item of a segment.
func (j *judge) endSegment(number uint64, index bool) {
	for _, it := range j.between {
		if it.at.segment == number && it.kind == itemFooter && it.footer != nil {
			j.sealed[number] = index
		}
	}
}

// settle applies the batch that was held back, and then what lies between it and its good
// successor.
func (j *judge) settle(next *item) {
	if j.any {
		j.confirm(next)
	} else {
		j.first = j.firstSeq(next)
		j.applied = j.first - 1
	}
	if j.applied+1 < next.head.seq {
		j.lost(next)
	} else {
		for _, it := range j.between {
			j.harmless(it)
		}
	}
	clear(j.between)
	j.between = j.between[:0]
}

// firstSeq is the sequence of the first batch that the log must have: every batch says with which one
// its segment began.
func (j *judge) firstSeq(next *item) uint64 {
	segment := next.at.segment
	if len(j.between) > 0 {
		segment = j.between[0].at.segment
	}
	for _, it := range append(j.between, next) {
		if it.at.segment == segment && it.head.segmentSeq > 0 {
			return it.head.segmentSeq
		}
	}
	return 1
}

// confirm applies the batch that was held back; if its successor knows another chain value, its
// content is not what was acknowledged.
func (j *judge) confirm(next *item) {
	last := j.last
	j.applied = last.head.seq
	if next == nil || last.chain == next.head.previousChain || next.head.seq != last.head.seq+1 {
		j.apply(last)
		return
	}
	loss := j.blame(last, "batch differs from what its successor knows")
	if next.head.copySeq == last.head.seq {
		j.applyLost(last.at.segment, last.head.seq, next.copied, loss)
	} else {
		j.gaps = append(j.gaps, gap{last.head.seq, last.head.seq, loss})
	}
}

// harmless reports an item that lies where nothing was.
func (j *judge) harmless(it *item) {
	switch {
	case it.kind == itemGone:
		// Reported already.
	case it.bad > 0:
		j.find(place{it.at.segment, it.firstBad}, "sector damaged where nothing was written")
	case it.kind == itemBroken || it.kind == itemHole && it.zero < it.sectors:
		j.find(it.at, "remains of a batch that was cut")
	}
}

// lost judges the batches between the last one applied and next, which are missing or broken.
func (j *judge) lost(next *item) {
	for j.applied+1 < next.head.seq {
		seq := j.applied + 1
		if it := j.known(seq); it != nil {
			j.applyKnown(it)
			continue
		}
		j.applied = j.nextKnown(seq, next) - 1
		loss := j.blameBetween(seq, next)
		if next.head.copySeq == seq {
			j.applied = seq
			j.applyLost(next.at.segment, seq, next.copied, loss)
			continue
		}
		j.gaps = append(j.gaps, gap{seq, j.applied, loss})
	}
}

// known returns the item that tells what batch seq held.
func (j *judge) known(seq uint64) *item {
	for _, it := range j.between {
		switch {
		case it.kind == itemBroken && it.rowsOK && it.head.seq == seq:
			return it
		case it.kind == itemGone && it.footer != nil && it.head.segmentSeq <= seq && seq <= it.head.seq:
			return it
		}
	}
	return nil
}

// nextKnown is the first batch behind seq whose content is known.
func (j *judge) nextKnown(seq uint64, next *item) uint64 {
	known := next.head.seq
	if c := next.head.copySeq; seq < c && c+1 == known {
		known = c
	}
	for _, it := range j.between {
		switch {
		case it.kind == itemBroken && it.rowsOK && seq < it.head.seq:
			known = min(known, it.head.seq)
		case it.kind == itemGone && it.footer != nil && seq < it.head.segmentSeq:
			known = min(known, it.head.segmentSeq)
		}
	}
	return known
}

// applyKnown applies what is left of a broken batch, or what the index says of a segment.
func (j *judge) applyKnown(it *item) {
	j.applied = it.head.seq
	if it.kind == itemBroken {
		j.blame(it, "")
		j.apply(it)
		return
	}
	loss := it.loss("segment is missing or has no header")
	for i := range it.footer.rows {
		r := &it.footer.rows[i]
		j.applyLost(it.at.segment, r.seq, []row{r.row}, loss)
	}
}

// blameBetween finds the place to report for batch seq and those behind it, which are missing before
// next.
func (j *judge) blameBetween(seq uint64, next *item) *lostRun {
	worst := next
	for _, it := range j.between {
		// Which segment it was in is known.
		if it.kind == itemFooter || (it.at.segment == next.at.segment) != (seq >= next.head.segmentSeq) {
			continue
		}
		if worst == next || it.bad > 0 && worst.bad == 0 {
			worst = it
		}
	}
	if worst == next {
		return j.blame(next, "the batch before is missing")
	}
	return j.blame(worst, "")
}

// apply executes the rows of a batch as far as it could be read.
func (j *judge) apply(it *item) {
	j.seal(it.at.segment, it.head.segmentSeq)
	for i := range it.rows {
		j.applyRow(it.at.segment, it.head.seq, it.head.segmentSeq, &it.rows[i], it.runs[i])
	}
	j.end, j.endSeq, j.chain = it.next(), it.head.seq, it.chain
}

// applyLost executes the rows of a batch whose entries are lost.
func (j *judge) applyLost(segment, seq uint64, rows []row, loss *lostRun) {
	for i := range rows {
		var runs []*run
		if r := &rows[i]; r.count > 0 {
			l := *loss
			runs = []*run{r.lostRun(place{segment: segment}, &l)}
		}
		j.applyRow(segment, seq, seq, &rows[i], runs)
	}
}

func (j *judge) applyRow(segment, seq, first uint64, r *row, runs []*run) {
	g := j.groups[r.group]
	if g == nil {
		g = &group{id: r.group}
		j.groups[r.group] = g
	}
	j.seal(segment, first)
	j.footer.add(g, segment, seq, *r)
	switch {
	case r.flags&rowRemove != 0:
		delete(j.groups, r.group)
		return
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

// seal notes the footer of the segment before, if it has none, when the rows of another one come.
func (j *judge) seal(segment, first uint64) {
	f := &j.footer
	if f.segment == segment {
		return
	}
	if f.segment != 0 && !j.sealed[f.segment] && !j.hurt[f.segment] && j.end.segment == f.segment {
		j.unsealed = append(j.unsealed, unsealed{f.segment, j.end, f.encode(j.endSeq, j.chain)})
	}
	f.begin(segment, first)
}

// cut drops the entries from index on, as replaceFrom does, but allows a gap: entries may have been
// in segments that are deleted since.
func (g *group) cut(index uint64) {
	for n := len(g.runs); n > 0; n-- {
		r := g.runs[n-1]
		if r.first < index {
			if r.last >= index && r.lost != nil {
				r.lost.fold = 0 // It was of more entries.
			}
			r.last = min(r.last, index-1)
			return
		}
		g.runs = g.runs[:n-1]
	}
}

// doubtOf says that the row of batch seq is lost.
func (j *judge) doubtOf(g GroupID, seq uint64) *DamageError {
	for i := range j.gaps {
		if gap := &j.gaps[i]; gap.first <= seq && seq <= gap.last {
			return gap.loss.doubt(g)
		}
	}
	return (&lostRun{reason: fmt.Sprintf("batch %d is missing", seq)}).doubt(g)
}

func (l *lostRun) doubt(g GroupID) *DamageError {
	return &DamageError{Group: g, File: l.file, Offset: l.offset, Reason: l.reason, Unknown: true}
}
