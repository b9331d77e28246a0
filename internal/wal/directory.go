package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// directory reads the files of a log.
type directory struct {
	fs              vfs.FS
	dir             string
	cluster, server uint64
	readOnly        bool

	numbers   []uint64 // of the segments, in order; some of them may be missing
	segments  map[uint64]*segment
	temporary []string // files that a crash left half made
}

func (d *directory) path(name string) string { return d.fs.PathJoin(d.dir, name) }

// open lists the directory and opens the segments. One whose headers are gone is left out: it is
// damaged as a whole.
func (d *directory) open() error {
	d.segments = make(map[uint64]*segment)
	names, err := d.fs.List(d.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", d.dir, err)
	}
	d.list(names)
	for _, n := range d.numbers {
		s, err := d.openSegment(n)
		if err != nil {
			return err
		}
		if s != nil {
			d.segments[n] = s
		}
	}
	return nil
}

// list sorts the names. A segment of which only an index file tells counts as missing, and so does the
// one behind it: a full segment always has a successor.
func (d *directory) list(names []string) {
	var indexes []uint64
	for _, name := range names {
		if n, ok := parseName(name, segmentSuffix); ok {
			d.numbers = append(d.numbers, n)
		}
		if n, ok := parseName(name, indexSuffix); ok {
			indexes = append(indexes, n)
		}
		if strings.HasSuffix(name, temporarySuffix) {
			d.temporary = append(d.temporary, name)
		}
	}
	slices.Sort(d.numbers)
	slices.Sort(d.temporary)
	if len(indexes) == 0 {
		return
	}
	slices.Sort(indexes)
	if len(d.numbers) == 0 {
		d.numbers = append(d.numbers, indexes[0])
	}
	if next := indexes[len(indexes)-1] + 1; d.numbers[len(d.numbers)-1] < next {
		d.numbers = append(d.numbers, next)
	}
}

// close closes the segments.
func (d *directory) close() {
	for _, n := range slices.Sorted(maps.Keys(d.segments)) {
		_ = d.segments[n].f.Close()
	}
}

// openSegment opens a segment and checks whose it is. It returns nil if neither header can be read.
func (d *directory) openSegment(number uint64) (*segment, error) {
	name := d.path(segmentName(number))
	if _, err := d.fs.Stat(name); isNotExist(err) {
		return nil, nil
	}
	var f vfs.File
	var err error
	if d.readOnly {
		f, err = d.fs.Open(name)
	} else {
		f, err = d.fs.OpenReadWrite(name, writeCategory)
	}
	if err != nil {
		return nil, err
	}
	h, version, ok := readSegmentHeader(f)
	switch {
	case !ok || version == segmentVersion && h.number != number:
		return nil, f.Close()
	case version != segmentVersion:
		err = fmt.Errorf("segment %s has format %d, this program reads %d", name, version, segmentVersion)
	case h.server != d.server || h.cluster != d.cluster:
		err = fmt.Errorf("segment %s belongs to server %x of cluster %x, this is server %x of cluster %x",
			name, h.server, h.cluster, d.server, d.cluster)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &segment{number: number, size: h.size, f: f, stamp: newStamper(d.server, number)}, nil
}

// readSegmentHeader reads the header at the start of a segment, or else the copy at its end.
func readSegmentHeader(f vfs.File) (h segmentHeader, version uint32, ok bool) {
	var b [sectorSize]byte
	if _, err := f.ReadAt(b[:], 0); err == nil {
		if h, version, ok = decodeSegmentHeader(b[:]); ok {
			return h, version, true
		}
	}
	info, err := f.Stat()
	if err != nil || info.Size() < sectorSize {
		return h, 0, false
	}
	if _, err := f.ReadAt(b[:], info.Size()-sectorSize); err != nil {
		return h, 0, false
	}
	h, version, ok = decodeSegmentHeader(b[:])
	return h, version, ok && (version != segmentVersion || h.size == info.Size())
}

// judge reads all segments and judges what it finds.
func (d *directory) judge() (*judge, error) {
	j, err := d.judgeFrom(0)
	if err == nil && len(d.numbers) > 0 && j.firstSegment != d.numbers[0] {
		// The log itself says where it begins: behind what a crash kept from being deleted, or
		// in a segment that is not there.
		j, err = d.judgeFrom(j.firstSegment)
	}
	return j, err
}

func (d *directory) judgeFrom(first uint64) (*judge, error) {
	j := newJudge()
	if err := d.walk(first, j); err != nil {
		return nil, err
	}
	j.finish()
	return j, nil
}

// visitor takes what a walk over the log comes across.
type visitor interface {
	add(*item)
	report(Finding)
	endSegment(number uint64, index bool)
}

// walk reads the segments from number first on; first is 0 if the log begins with the first file.
func (d *directory) walk(first uint64, v visitor) error {
	next := first
	for _, n := range d.numbers {
		if n < first {
			continue
		}
		// Of a long stretch of missing segments, the first ones stand for all.
		for missing := 0; next > 0 && next < n && missing < missingMax; missing++ {
			if err := d.scan(next, v); err != nil {
				return err
			}
			next++
		}
		if err := d.scan(n, v); err != nil {
			return err
		}
		next = n + 1
	}
	return nil
}

const missingMax = 1000

// scan reads one segment.
func (d *directory) scan(number uint64, v visitor) error {
	index, exists := readIndex(d.fs, d.path(indexName(number)), d.server, number)
	if exists && index == nil {
		v.report(Finding{indexName(number), 0, "index of a segment damaged"})
	}
	s := d.segments[number]
	if s == nil {
		it := &item{kind: itemGone, at: place{number, 0}}
		if index != nil {
			it.head, it.footer, it.chain = index.head, index.footer, index.head.previousChain
		}
		v.add(it)
		return nil
	}
	sc := &scanner{f: s.f, stamp: s.stamp, seg: number, end: s.end() + 1}
	for _, at := range []uint32{s.end(), 0} {
		if sc.ensure(at, 1); sc.state(at) != sectorBody {
			v.report(Finding{segmentName(number), int64(at) * sectorSize, "header damaged, the other copy is used"})
		}
	}
	sc.end = s.end()
	for at := uint32(1); at < sc.end; {
		it, err := sc.next(at)
		if err != nil {
			return err
		}
		v.add(it)
		at += it.sectors
	}
	v.endSegment(number, index != nil)
	return nil
}
