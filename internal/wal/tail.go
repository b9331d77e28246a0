package wal

import (
	"cmp"
	"fmt"
	"slices"
)

// tail is where the log goes on.
type tail struct {
	at      place // behind the last batch
	seq     uint64
	chain   uint64
	rows    []row
	rowsSeq uint64
	clear   []*item // torn: to be overwritten with zeros
	damaged bool    // at must not be written, start a new segment
}

// finish judges what lies behind the last good batch and completes the verdict.
func (j *judge) finish() {
	t := &j.tail
	if j.any {
		j.confirm(nil)
		l := j.last
		*t = tail{at: l.next(), seq: l.head.seq, chain: l.chain, rows: l.rows, rowsSeq: l.head.seq}
	} else if len(j.between) > 0 {
		t.at = j.between[0].at
	}
	for _, it := range j.between {
		j.behind(it)
	}
	j.doubts()
	for _, g := range j.groups { // order: each completes itself, and findings are sorted below
		g.complete()
	}
	slices.SortFunc(j.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.What, b.What))
	})
	j.findings = slices.Compact(j.findings)
}

// behind judges one item behind the last good batch.
func (j *judge) behind(it *item) {
	t := &j.tail
	durable := it.at.less(j.durable)
	switch {
	case it.kind == itemGone:
		t.damaged = true
		if it.footer != nil {
			j.missing(it.head.segmentSeq-1, it.loss(""))
			j.applyKnown(it)
			t.seq = j.applied
			break
		}
		// How many batches it had is not known; leave room for their numbers.
		t.seq += 1 << 20
		j.missing(t.seq, it.loss("segment is missing or has no header"))
	case it.kind == itemFooter:
		// A footer is written after the next segment got its first batch.
		t.damaged = true
		t.seq += 1 << 20
		j.missing(t.seq, j.blame(it, "the batches behind a sealed segment are missing"))
	case it.kind == itemHole && it.first == sectorZero && !durable:
		// If a batch had been here and were lost without a trace, its first sector would
		// show zeros too: that much is undecidable. Garbage further on proves nothing more.
		if it.bad > 0 {
			j.harmless(it)
			t.damaged = true
		} else if it.zero < it.sectors {
			t.clear = append(t.clear, it)
		}
	case it.kind == itemHole:
		t.damaged = true
		t.seq++
		j.missing(t.seq, j.blame(it, ""))
	case it.bad == 0 && !durable && it.head.seq == j.applied+1:
		t.clear = append(t.clear, it)
	default:
		j.behindBroken(it)
	}
}

// missing notes that batches up to seq are lost.
func (j *judge) missing(seq uint64, loss *lostRun) {
	if j.applied < seq {
		j.gaps = append(j.gaps, gap{j.applied + 1, seq, loss})
		j.applied = seq
	}
}

// behindBroken judges a batch at the end that was acknowledged, or may have been.
func (j *judge) behindBroken(it *item) {
	t := &j.tail
	t.damaged = true
	loss := j.blame(it, "")
	if it.copyOK && it.head.copySeq > j.applied {
		j.missing(it.head.copySeq-1, loss)
		j.applied = it.head.copySeq
		j.applyLost(it.at.segment, it.head.copySeq, it.copied, loss)
	}
	j.missing(it.head.seq-1, loss)
	if it.rowsOK {
		j.apply(it)
		j.applied = it.head.seq
	} else {
		j.missing(it.head.seq, loss)
	}
	t.seq, t.chain = it.head.seq, it.chain
	t.rows, t.rowsSeq = it.rows, it.head.seq
}

// doubts says for each group without a row behind an unknown batch that it may have been in it,
// unless the footer of the segment knows better.
func (j *judge) doubts() {
	for i := range j.gaps {
		gap := &j.gaps[i]
		if f := j.footerOf(gap); f != nil {
			j.doubtListed(gap, f)
			continue
		}
		for _, g := range j.groups { // order: each takes the same doubt
			if g.rowSeq < gap.first && g.doubt == nil {
				g.doubt = gap.loss.doubt(g.id)
			}
		}
		j.rest = gap.loss.doubt(0)
	}
}

// footerOf returns the footer of the segment that had all batches of the gap.
func (j *judge) footerOf(gap *gap) *footer {
	for _, it := range j.footers { // order: one at most has the gap
		if it.head.segmentSeq <= gap.first && gap.last <= it.head.seq {
			return it.footer
		}
	}
	return nil
}

// doubtListed says of the groups whose last row in a segment is in the gap that they lost it.
func (j *judge) doubtListed(gap *gap, f *footer) {
	for i := range f.rows {
		r := &f.rows[i]
		g := j.groups[r.group]
		if r.seq < gap.first || r.seq > gap.last || r.flags&rowRemove != 0 || g != nil && g.rowSeq > gap.last {
			continue
		}
		if g == nil {
			g = &group{id: r.group}
			j.groups[r.group] = g
		}
		g.doubt = gap.loss.doubt(r.group)
	}
}

// complete makes sure that the group has all entries from its start to its end; what is not there is
// lost without identity.
func (g *group) complete() {
	n := 0
	for n < len(g.runs) && g.runs[n].last <= g.start.Index {
		n++
	}
	old := g.runs[n:]
	g.runs = make([]*run, 0, len(old))
	g.last = max(g.last, g.start.Index)
	next := g.start.Index + 1
	for _, r := range old {
		g.loseTo(next, r.first-1)
		g.runs = append(g.runs, r)
		next = r.last + 1
	}
	g.loseTo(next, g.last)
	g.checkRepaired()
}

// loseTo appends a run of lost entries of which nothing is known.
func (g *group) loseTo(first, last uint64) {
	if first > last {
		return
	}
	if g.doubt == nil {
		g.doubt = (&lostRun{reason: fmt.Sprintf("log entries %d to %d are missing", first, last)}).doubt(g.id)
	}
	loss := &lostRun{file: g.doubt.File, offset: g.doubt.Offset, reason: g.doubt.Reason}
	g.runs = append(g.runs, &run{first: first, last: last, count: last - first + 1, lost: loss})
}
