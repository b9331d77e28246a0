package wal

import (
	"errors"
	"fmt"
)

// Scrubbed is what one call of Scrub came across.
type Scrubbed struct {
	Read int64
	Done bool // it came to the end of the log; the next call begins anew

	// Findings is what is not as it was written, whether or not it harms a group; Damage says of which
	// groups log entries cannot be read any more.
	Findings []Finding
	Damage   []*DamageError
}

// scrubbing is where Scrub goes on.
type scrubbing struct {
	segment uint64
	sector  uint32
}

// scrubHole bounds the sectors without a batch that are read in one piece.
const scrubHole = 2048

// Scrub reads about limit bytes of the log, going on where the last call ended, and checks them: damage
// is found before somebody needs what is damaged, while there are good copies elsewhere. It changes
// nothing. One call at a time.
func (l *Log) Scrub(limit int64) (out Scrubbed) {
	for out.Read < limit {
		s, end := l.scrubbable()
		if s == nil {
			l.scrubs = scrubbing{}
			out.Done = true
			return out
		}
		err := l.scrubSegment(s, end, limit, &out)
		l.files.giveBack(s)
		if err != nil {
			_ = l.fail(err) // As when a read meets it: nothing can be trusted any more.
			out.Done = true
			return out
		}
	}
	return out
}

// scrubbable acquires the segment to go on in, and says before which sector to end; nil at the end. What
// is written right now is left out: the head of the log, and a segment whose footer is not there yet.
func (l *Log) scrubbable() (s *segment, end uint32) {
	f, at := &l.files, &l.scrubs
	f.Lock()
	defer f.Unlock()
	for _, o := range f.open { // order: the least number is taken
		if o.number >= at.segment && o.number <= f.synced.segment && (s == nil || o.number < s.number) {
			s = o
		}
	}
	if s == nil || s.number < f.synced.segment && !s.sealed {
		return nil, 0
	}
	if s.number != at.segment {
		*at = scrubbing{s.number, 0}
	}
	end = s.end() + 1
	if s.number == f.synced.segment {
		end = f.synced.sector
	}
	s.readers++
	return s, end
}

// scrubSegment checks a segment from where scrubbing goes on, until end or limit.
func (l *Log) scrubSegment(s *segment, end uint32, limit int64, out *Scrubbed) error {
	at := &l.scrubs.sector
	sc := &scanner{f: s.f, stamp: s.stamp, seg: s.number, end: end}
	if *at == 0 {
		l.scrubEdges(s, sc, end, out)
		*at = 1
	}
	for *at < min(end, s.end()) && out.Read < limit {
		sc.end = min(end, s.end())
		if sc.ensure(*at, 1); sc.state(*at) != sectorStart {
			sc.end = min(sc.end, *at+scrubHole)
		}
		it, err := sc.next(*at)
		if err != nil {
			return err
		}
		l.scrubItem(it, out)
		*at += it.sectors
		out.Read += int64(it.sectors) * sectorSize
	}
	if *at >= min(end, s.end()) {
		l.scrubs = scrubbing{segment: s.number + 1}
	}
	return nil
}

// scrubEdges checks the headers of a segment, and the index of a sealed one.
func (l *Log) scrubEdges(s *segment, sc *scanner, end uint32, out *Scrubbed) {
	edges := []uint32{0}
	if end > s.end() {
		edges = []uint32{s.end(), 0}
		if it, exists := readIndex(l.o.FS, l.path(indexName(s.number)), l.o.ServerID, s.number); exists && it == nil && !l.released(s) {
			out.Findings = append(out.Findings, Finding{indexName(s.number), 0, "index of a segment damaged"})
		}
	}
	for _, at := range edges {
		if sc.ensure(at, 1); sc.state(at) != sectorBody {
			out.Findings = append(out.Findings, Finding{segmentName(s.number), int64(at) * sectorSize, "header damaged, there is another copy"})
		}
	}
}

// scrubItem says what is wrong with an item, and whom it harms.
func (l *Log) scrubItem(it *item, out *Scrubbed) {
	whole := it.zero+it.bad == 0
	if (it.kind == itemBatch || it.kind == itemFooter) && whole {
		return
	}
	harmed := false
	for _, g := range l.sorted() {
		runs, from := g.runsIn(it)
		for i := range runs {
			if d := l.unreadableRun(g, &runs[i], from); d != nil {
				out.Damage = append(out.Damage, d)
				harmed = true
			}
		}
	}
	// Zeros are what is left of a tail that was cut, as far as they harm nobody.
	if !harmed && (it.kind != itemHole || it.zero < it.sectors) {
		loss := it.loss("")
		out.Findings = append(out.Findings, Finding{loss.file, loss.offset, loss.reason + ", where nothing is needed any more"})
	}
}

// runsIn lists the runs of the group that have a part in the sectors of an item, and are not lost yet. What
// is before from is compacted.
func (g *group) runsIn(it *item) (in []run, from uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.runs {
		first := r.at.sector + r.headAt/sectorData
		last := r.at.sector + (r.payloadAt+r.payloadLen)/sectorData
		if r.at.segment == it.at.segment && r.lost == nil && r.last > g.start.Index &&
			first < it.at.sector+it.sectors && last >= it.at.sector {
			in = append(in, *r)
		}
	}
	return in, g.start.Index + 1
}

// unreadableRun reads a run from the disk, from an entry on, and returns the damage that this meets.
func (l *Log) unreadableRun(g *group, r *run, from uint64) *DamageError {
	d := diskReader{l: l}
	defer d.close()
	left := budget{bytes: 1 << 62, empty: true}
	_, _, _, err := d.entries(nil, g, r, max(r.first, from), r.last+1, &left)
	var damage *DamageError
	if errors.As(err, &damage) {
		damage.Reason = fmt.Sprintf("found while scrubbing: %s", damage.Reason)
		return damage
	}
	return nil // It is right, or was moved or compacted meanwhile.
}
