package simfs

import (
	"maps"
	"slices"
)

// node is a file or a directory, whatever its names.
type node struct {
	dir  bool
	refs int // names and open handles; at 0 a file's space is free

	// Of a file: what reads see, and what is on the disk.
	now, disk         image
	nowSize, diskSize int64
	pending           []write // not synced, oldest first
	unreadable        map[int64]bool

	// Of a directory.
	names     map[string]*node // what lookups see
	diskNames map[string]*node
}

// write is one write that is not synced. data is nil for zeros.
type write struct {
	seq  int // of the operation
	at   int64
	len  int64
	data []byte
}

func newFile() *node { return &node{now: newImage(), disk: newImage()} }

func newDir() *node {
	return &node{dir: true, names: map[string]*node{}, diskNames: map[string]*node{}}
}

// sortedNames lists the names that lookups see.
func (n *node) sortedNames() []string { return slices.Sorted(maps.Keys(n.names)) }

// writeAt writes to the cache.
func (n *node) writeAt(b []byte, at int64, seq int) (filled int) {
	w := write{seq: seq, at: at, len: int64(len(b))}
	if !allZero(b) {
		w.data = slices.Clone(b)
	}
	n.pending = append(n.pending, w)
	n.nowSize = max(n.nowSize, at+w.len)
	return n.now.write(b, at)
}

// sync brings all that is pending to the disk.
func (n *node) sync() {
	for i := range n.pending {
		n.pending[i].apply(&n.disk, 0, n.pending[i].len)
	}
	n.diskSize = n.nowSize
	n.drop()
}

// drop forgets what is pending.
func (n *node) drop() {
	clear(n.pending)
	n.pending = n.pending[:0]
}

// apply writes bytes [lo, hi) of w.
func (w *write) apply(m *image, lo, hi int64) {
	if w.data != nil {
		m.write(w.data[lo:hi], w.at+lo)
		return
	}
	var zeros [pageSize]byte
	for ; lo < hi; lo += pageSize {
		m.write(zeros[:min(pageSize, hi-lo)], w.at+lo)
	}
}

// sectors returns the first sector that w touches and the one behind the last.
func (w *write) sectors() (first, end int64) {
	return w.at / SectorSize, (w.at + w.len + SectorSize - 1) / SectorSize
}

// applySector writes the part of w that lies in sector s, up to cut bytes into the sector.
func (w *write) applySector(m *image, s int64, cut int64) {
	lo := max(s*SectorSize, w.at)
	hi := min(s*SectorSize+cut, w.at+w.len)
	if lo < hi {
		w.apply(m, lo-w.at, hi-w.at)
	}
}
