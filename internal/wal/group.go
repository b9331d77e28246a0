package wal

import (
	"slices"
	"sort"
	"sync"

	"github.com/cleatkv/cleat/internal/invariant"
)

// group is what the log knows of one Raft group, updates on their way to the disk included.
type group struct {
	id GroupID

	mu    sync.Mutex
	hard  HardState
	start Position // the log begins right behind it
	last  uint64

	// runs say where the entries are, in index order and without a gap; together they cover
	// (start.Index, last], the first one perhaps more.
	runs []*run

	// tail caches the last len(tail) entries, up to last. Entries that are not written yet are
	// always in it.
	tail []Entry

	// dirty is set while start or hard differ from the group's last row.
	dirty   bool
	removed bool

	// pins is set while the group is counted in Log.pins.
	pins bool

	// damaged is set if doubt is, or some run is lost. doubt is set if it is unknown what the
	// group lost.
	damaged bool
	doubt   *DamageError

	// version counts the updates.
	version uint64

	// rowSegment and rowSeq say where the group's last row on disk is, 0 if it has none.
	rowSegment uint64

	// The writer owns the rest. footerAt is the group's last row in the footer of footerSegment.
	rowSeq        uint64
	footerSegment uint64
	footerAt      int
}

// run is consecutive entries of one term that one batch brought.
type run struct {
	first, last, term uint64 // last shrinks when a later update replaces entries

	// at is the batch; segment 0 says that it is not written yet. Heads and payloads are byte
	// ranges of the batch's data, of all entries that the run had when it was written.
	at         place
	count      uint64
	headAt     uint32
	headLen    uint32
	payloadAt  uint32
	payloadLen uint32

	// lost is set if the disk lost these entries.
	lost *lostRun
}

type lostRun struct {
	fold   uint64
	file   string
	offset int64
	reason string
}

// op is one row on its way to the disk, with the group's state right after it.
type op struct {
	g       *group
	flags   uint8
	hard    HardState
	start   Position
	run     *run // nil without entries
	entries []Entry

	// Set when the batch is encoded: the row, and where the run's heads and payloads are in those of
	// the batch.
	row                                    row
	headAt, headLen, payloadAt, payloadLen uint32
}

// apply executes an update in memory and appends the rows that must reach the disk to ops: none if
// a later row of the group will do.
func (l *Log) apply(g *group, u *Update, ops []op) []op {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer l.unpinned(g)
	g.version++
	if g.damaged {
		g.checkDamaged(u)
		defer g.checkRepaired()
	}
	if u.Remove {
		g.removed = true
		g.runs, g.tail, g.doubt = nil, nil, nil
		return append(ops, op{g: g, flags: rowRemove})
	}
	var flags uint8
	sync := false
	if u.Reset != nil {
		g.start, g.last = *u.Reset, u.Reset.Index
		g.runs, g.tail, g.doubt = nil, nil, nil
		flags, sync = rowReset, true
	}
	if h := u.Hard; h != nil && *h != g.hard {
		sync = sync || h.Term != g.hard.Term || h.Vote != g.hard.Vote
		g.hard, g.dirty = *h, true
	}
	if len(u.Entries) > 0 {
		g.replaceFrom(u.Entries[0].Index)
	}
	first := len(ops)
	for rest := u.Entries; len(rest) > 0; {
		n := sameTerm(rest)
		ops = append(ops, op{g: g, run: g.push(rest[:n]), entries: rest[:n]})
		rest = rest[n:]
	}
	if u.Compact.Index > g.start.Index {
		g.compact(u.Compact)
	}
	if len(ops) == first && sync {
		ops = append(ops, op{g: g})
	}
	for i := first; i < len(ops); i++ {
		ops[i].hard, ops[i].start = g.hard, g.start
		ops[i].flags = flags
		flags = 0
		g.dirty = false
	}
	return ops
}

// push appends entries of one term.
func (g *group) push(entries []Entry) *run {
	for i := range entries {
		e := &entries[i]
		if e.Index != g.last+1 {
			invariant.Assert(false, "group %d: entry %d follows %d", g.id, e.Index, g.last)
		}
		if e.Hash == 0 {
			e.Hash = HashData(e.Data)
		}
		g.last++
	}
	r := &run{first: entries[0].Index, last: g.last, term: entries[0].Term, count: uint64(len(entries))}
	g.runs = append(g.runs, r)
	g.tail = append(g.tail, entries...)
	return r
}

// replaceFrom drops the entries from index on.
func (g *group) replaceFrom(index uint64) {
	switch {
	case index == g.last+1:
		return
	case index <= g.start.Index:
		invariant.Assert(false, "group %d: entry %d is compacted, the log starts behind %d", g.id, index, g.start.Index)
	case index > g.last:
		invariant.Assert(false, "group %d: entry %d leaves a gap behind %d", g.id, index, g.last)
	}
	cached := g.last + 1 - uint64(len(g.tail))
	if index <= cached {
		g.tail = nil
	} else {
		g.tail = g.tail[:index-cached]
	}
	g.last = index - 1
	for n := len(g.runs); n > 0; n-- {
		r := g.runs[n-1]
		if r.first < index {
			r.last = min(r.last, g.last)
			break
		}
		g.runs = g.runs[:n-1]
	}
}

// compact moves the start of the log up to p.
func (g *group) compact(p Position) {
	if p.Index > g.last {
		invariant.Assert(false, "group %d: compaction to %d behind the last entry %d", g.id, p.Index, g.last)
	}
	if term := g.termLocked(p.Index); term != 0 {
		if p.Term != 0 && p.Term != term {
			invariant.Assert(false, "group %d: entry %d has term %d, not %d", g.id, p.Index, term, p.Term)
		}
		p.Term = term
	}
	cached := g.last + 1 - uint64(len(g.tail))
	g.start, g.dirty = p, true
	n := 0
	for n < len(g.runs) && g.runs[n].last <= p.Index {
		n++
	}
	clear(g.runs[:n])
	g.runs = g.runs[n:]
	if p.Index >= cached {
		g.dropTail(int(p.Index + 1 - cached))
	}
}

// dropTail forgets the oldest n cached entries.
func (g *group) dropTail(n int) {
	clear(g.tail[:n])
	g.tail = g.tail[n:]
	if len(g.tail) == 0 {
		g.tail = nil
	}
}

// evict forgets cached entries up to index, those that are not on disk excepted, and tells whether
// all of them are gone.
func (g *group) evict(index uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	cached := g.last + 1 - uint64(len(g.tail))
	limit := min(index, g.last)
	for n := len(g.runs); n > 0 && g.runs[n-1].at.segment == 0; n-- {
		limit = min(limit, g.runs[n-1].first-1)
	}
	if limit >= cached && len(g.tail) > 0 {
		g.dropTail(int(limit + 1 - cached))
	}
	return limit == index || limit == g.last
}

// checkDamaged asserts that an update to a damaged group repairs it.
func (g *group) checkDamaged(u *Update) {
	if u.Remove || u.Reset != nil {
		return
	}
	invariant.Assert(g.doubt == nil, "group %d is damaged and takes a reset only: %v", g.id, g.doubt)
	for _, r := range g.runs {
		if r.lost == nil {
			continue
		}
		repairs := len(u.Entries) > 0 && u.Entries[0].Index <= max(r.first, g.start.Index+1)
		invariant.Assert(repairs || u.Compact.Index >= r.last || len(u.Entries) == 0 && u.Hard == nil,
			"group %d is damaged and takes a repair only", g.id)
	}
}

// runOf returns the run that holds index.
func (g *group) runOf(index uint64) *run {
	i := sort.Search(len(g.runs), func(i int) bool { return g.runs[i].last >= index })
	if i == len(g.runs) || g.runs[i].first > index {
		return nil
	}
	return g.runs[i]
}

// termLocked returns the term of an entry or of the start, 0 if there is none.
func (g *group) termLocked(index uint64) uint64 {
	if index == g.start.Index {
		return g.start.Term
	}
	if n := len(g.runs); n > 0 && g.runs[n-1].first <= index && index <= g.last {
		return g.runs[n-1].term
	}
	if r := g.runOf(index); r != nil {
		return r.term
	}
	return 0
}

func (g *group) state() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return State{Hard: g.hard, First: g.start.Index + 1, Last: g.last, Snapshot: g.start, Damage: g.damage()}
}

// checkRepaired notes that nothing lost is left.
func (g *group) checkRepaired() {
	g.damaged = g.doubt != nil || slices.ContainsFunc(g.runs, func(r *run) bool { return r.lost != nil })
}

// damage describes what the group lost, nil if nothing.
func (g *group) damage() *DamageError {
	if !g.damaged {
		return nil
	}
	var d *DamageError
	if g.doubt != nil {
		c := *g.doubt
		d = &c
	}
	for _, r := range g.runs {
		if r.lost == nil {
			continue
		}
		if d == nil {
			d = &DamageError{Group: g.id, File: r.lost.file, Offset: r.lost.offset, Reason: r.lost.reason}
		}
		d.Lost = append(d.Lost, LostRange{First: r.first, Last: r.last, Term: r.term, Fold: r.lost.fold})
	}
	return d
}

// sameTerm is how many of the first entries have one term.
func sameTerm(entries []Entry) int {
	n := 1
	for n < len(entries) && entries[n].Term == entries[0].Term {
		n++
	}
	return n
}
