package wal

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Kind is what a Part of a log is.
type Kind string

const (
	KindBatch   Kind = "batch"
	KindBroken  Kind = "broken batch" // its header can be read, but not all of it is right
	KindFooter  Kind = "footer"
	KindZeros   Kind = "zeros" // nothing was written here, or it is lost
	KindGarbage Kind = "garbage"
	KindMissing Kind = "missing segment"
)

// Part is a stretch of a segment, as it is on the disk.
type Part struct {
	Kind    Kind
	File    string
	Offset  int64
	Sectors uint32 // Zero and Bad of them are zeros, or neither right nor zeros
	Zero    uint32
	Bad     uint32

	// Of batches and footers.
	Seq   uint64
	Chain uint64
	Rows  []Row // those of a footer are in short; none if they cannot be read
}

// Row is what a batch did to one group.
type Row struct {
	Group         GroupID
	Previous      uint64 // the batch with the group's row before this one, 0 if there was none
	Reset, Remove bool
	Hard          HardState
	Start         Position

	// The entries First to First+Count-1, if Count is not 0.
	First, Count, Term, Fold uint64
}

// Report is the verdict on a log as Open would give it.
type Report struct {
	Cluster, Server uint64
	Segments        int
	FirstSegment    uint64
	Batches         uint64 // sequence of the last one
	TornBytes       int64  // at the end, to be cut
	Findings        []Finding
	Groups          []GroupReport

	// Doubt is set if groups that are not listed may have been lost.
	Doubt *DamageError
}

// GroupReport is the verdict on one group.
type GroupReport struct {
	Group GroupID
	State
}

// Walk calls fn for everything in the log in dir, in order. It changes nothing and takes no lock; if a
// server is writing to the log, the end of it may look torn.
func Walk(fs vfs.FS, dir string, fn func(Part) error) error {
	d, err := openOffline(fs, dir)
	if err != nil {
		return err
	}
	defer d.close()
	w := &partWalk{fn: fn}
	if err := d.walk(0, w); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return w.err
}

// Check judges the log in dir as Open would, every byte of it. It changes nothing and takes no lock.
func Check(fs vfs.FS, dir string) (*Report, error) {
	d, err := openOffline(fs, dir)
	if err != nil {
		return nil, err
	}
	defer d.close()
	j, err := d.judge()
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	r := &Report{
		Cluster: d.cluster, Server: d.server, Segments: len(d.segments), FirstSegment: j.firstSegment,
		Batches: j.tail.seq, Findings: j.findings, Doubt: j.rest,
	}
	for _, it := range j.tail.clear {
		r.TornBytes += int64(it.sectors-it.zero) * sectorSize
	}
	for _, g := range sortGroups(j.groups) {
		r.Groups = append(r.Groups, GroupReport{g.id, g.state()})
	}
	return r, nil
}

// openOffline opens a log for reading, whoever it belongs to.
func openOffline(fs vfs.FS, dir string) (*directory, error) {
	d := &directory{fs: fs, dir: dir, readOnly: true}
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: list %s: %w", dir, err)
	}
	d.list(names)
	if len(d.numbers) == 0 {
		return nil, fmt.Errorf("wal: %s: %w", dir, errNoLog)
	}
	for _, n := range d.numbers {
		if d.identify(n) {
			break
		}
	}
	d.numbers, d.temporary = nil, nil
	if err := d.open(); err != nil {
		d.close()
		return nil, fmt.Errorf("wal: %w", err)
	}
	return d, nil
}

var errNoLog = errors.New("no segments")

// identify takes over whose log it is from the header of a segment.
func (d *directory) identify(number uint64) bool {
	f, err := d.fs.Open(d.path(segmentName(number)))
	if err != nil {
		return false
	}
	defer f.Close()
	h, version, ok := readSegmentHeader(f)
	if ok && version == segmentVersion {
		d.cluster, d.server = h.cluster, h.server
	}
	return ok
}

// partWalk hands items to a function until it fails.
type partWalk struct {
	fn  func(Part) error
	err error
}

func (w *partWalk) add(it *item) {
	if w.err == nil {
		w.err = w.fn(it.part())
	}
}

func (w *partWalk) report(Finding) {}

func (w *partWalk) endSegment(uint64, bool) {}

func (it *item) part() Part {
	p := Part{
		File: segmentName(it.at.segment), Offset: it.at.offset(), Sectors: it.sectors, Zero: it.zero, Bad: it.bad,
		Seq: it.head.seq, Chain: it.chain,
	}
	switch it.kind {
	case itemBatch:
		p.Kind = KindBatch
	case itemBroken:
		p.Kind = KindBroken
	case itemFooter:
		p.Kind = KindFooter
	case itemGone:
		p.Kind = KindMissing
	case itemHole:
		p.Kind = KindGarbage
		if it.zero == it.sectors {
			p.Kind = KindZeros
		}
	}
	for i := range it.rows {
		p.Rows = append(p.Rows, it.rows[i].public())
	}
	if it.footer != nil {
		for i := range it.footer.rows {
			p.Rows = append(p.Rows, it.footer.rows[i].public())
		}
	}
	return p
}

func (r *row) public() Row {
	return Row{
		Group: r.group, Previous: r.prev, Reset: r.flags&rowReset != 0, Remove: r.flags&rowRemove != 0,
		Hard: r.hard, Start: r.start, First: r.first, Count: r.count, Term: r.term, Fold: r.fold,
	}
}
