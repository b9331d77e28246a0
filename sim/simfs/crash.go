package simfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Outcome says what a power cut leaves of that which was not synced.
type Outcome uint8

const (
	// Nothing of it.
	Nothing Outcome = iota
	// Everything.
	Everything
	// Prefix is what was written before a moment in the past, the write of that moment in part.
	Prefix
	// Subset is some sectors and some names, at random; of a sector that was written several
	// times, the content after one of them.
	Subset
	// Torn is Subset with one sector cut in the middle, on a disk that does not write sectors
	// whole.
	Torn

	outcomes
)

func (o Outcome) String() string {
	return [...]string{"nothing", "everything", "prefix", "subset", "torn"}[o]
}

// Crash cuts the power. Open handles and locks are gone; what the disk holds follows from the outcome
// and the seed.
func (f *FS) Crash(o Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crash(o)
}

// CrashClone returns what Crash would leave now, on a disk of its own with its own seed, without hook
// and limit. f stays as it is.
func (f *FS) CrashClone(o Outcome, seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := New(seed, f.mu.names)
	copies := map[*node]*node{}
	c.mu.root = f.mu.root.clone(copies)
	for _, ch := range f.mu.journal {
		ch.dir, ch.node = ch.dir.clone(copies), ch.node.clone(copies)
		if ch.from != nil {
			ch.from = ch.from.clone(copies)
		}
		ch.replaced = nil
		c.mu.journal = append(c.mu.journal, ch)
	}
	c.crash(o)
	return c
}

// clone copies a node and all below it, each once.
func (n *node) clone(copies map[*node]*node) *node {
	if c := copies[n]; c != nil {
		return c
	}
	c := &node{dir: n.dir, nowSize: n.nowSize, diskSize: n.diskSize}
	copies[n] = c
	if !n.dir {
		c.now, c.disk = n.now.clone(), n.disk.clone()
		c.pending = slices.Clone(n.pending)
		c.unreadable = maps.Clone(n.unreadable)
		return c
	}
	c.names, c.diskNames = map[string]*node{}, map[string]*node{}
	for name, m := range n.names {
		c.names[name] = m.clone(copies)
	}
	for name, m := range n.diskNames {
		c.diskNames[name] = m.clone(copies)
	}
	return c
}

func (f *FS) crash(o Outcome) {
	f.mu.life++
	clear(f.mu.locks)
	r := f.mu.rand
	moment := f.moment(r)
	// Files that only lookups knew are gone with their names, so names come first.
	f.crashNames(o, moment, r)
	files := f.files()
	torn := -1
	if o == Torn && len(files) > 0 {
		torn = r.IntN(len(files))
	}
	f.mu.used = 0
	for i, n := range files {
		switch o {
		case Everything:
			n.sync()
		case Prefix:
			n.crashPrefix(moment, r)
		case Subset, Torn:
			n.crashSubset(r, i == torn)
		}
		n.drop()
		n.now = n.disk.clone()
		n.nowSize = n.diskSize
		f.mu.used += int64(n.now.allocated())
	}
}

// moment draws an operation from those that left something pending.
func (f *FS) moment(r *rand.Rand) int {
	var seqs []int
	for i := range f.mu.journal {
		seqs = append(seqs, f.mu.journal[i].seq)
	}
	for _, n := range f.files() {
		for i := range n.pending {
			seqs = append(seqs, n.pending[i].seq)
		}
	}
	if len(seqs) == 0 {
		return 0
	}
	return seqs[r.IntN(len(seqs))]
}

// crashNames decides which changes of names survive.
func (f *FS) crashNames(o Outcome, moment int, r *rand.Rand) {
	cut := r.IntN(len(f.mu.journal) + 1)
	for i := range f.mu.journal {
		c := &f.mu.journal[i]
		keep := false
		switch o {
		case Everything:
			keep = true
		case Prefix:
			keep = c.seq < moment
		case Subset, Torn:
			keep = r.IntN(2) == 0
			if f.mu.names == Journal {
				keep = i < cut // A journal keeps the order.
			}
		}
		if keep {
			c.commit()
		}
	}
	f.mu.journal = nil
	f.mu.root.settle(map[*node]bool{})
}

// settle makes the durable names of a directory tree the ones that lookups see.
func (n *node) settle(seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	n.refs = 0
	if !n.dir {
		return
	}
	n.names = maps.Clone(n.diskNames)
	for _, name := range n.sortedNames() {
		m := n.names[name]
		m.settle(seen)
		m.refs++
	}
}

// files lists all files that have a name, in the order of their names.
func (f *FS) files() []*node {
	var list []*node
	seen := map[*node]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if !n.dir {
			list = append(list, n)
			return
		}
		for _, name := range n.sortedNames() {
			walk(n.names[name])
		}
	}
	walk(f.mu.root)
	return list
}

// crashPrefix keeps the writes before a moment, and of the write of that moment some sectors from
// its start.
func (n *node) crashPrefix(moment int, r *rand.Rand) {
	for i := range n.pending {
		w := &n.pending[i]
		length := w.len
		if w.seq == moment {
			first, end := w.sectors()
			length = min(length, max(0, (first+r.Int64N(end-first+1))*SectorSize-w.at))
		}
		if w.seq > moment || length == 0 {
			break
		}
		w.apply(&n.disk, 0, length)
		n.diskSize = max(n.diskSize, w.at+length)
	}
}

// crashSubset decides for each sector how many of the writes to it were on the disk.
func (n *node) crashSubset(r *rand.Rand, torn bool) {
	writers := map[int64][]*write{}
	for i := range n.pending {
		w := &n.pending[i]
		for s, end := w.sectors(); s < end; s++ {
			writers[s] = append(writers[s], w)
		}
	}
	sectors := slices.Sorted(maps.Keys(writers))
	tear := int64(-1)
	if torn && len(sectors) > 0 {
		tear = sectors[r.IntN(len(sectors))]
	}
	size := n.diskSize
	for _, s := range sectors {
		ws := writers[s]
		keep := r.IntN(len(ws) + 1)
		if s == tear {
			keep = max(keep, 1)
		}
		for i, w := range ws[:keep] {
			cut := int64(SectorSize)
			if s == tear && i == keep-1 {
				cut = 1 + r.Int64N(SectorSize-1)
			}
			w.applySector(&n.disk, s, cut)
			size = max(size, min((s+1)*SectorSize, w.at+w.len))
		}
	}
	// A size that grew is there if a sector beyond the old one is; holes read as zeros.
	n.diskSize = size
}
