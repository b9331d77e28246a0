package wal

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// item is a stretch of a segment as a scan found it.
type item struct {
	kind    itemKind
	at      place
	sectors uint32

	// What the sectors are besides right ones, and where the first bad one is.
	zero, bad uint32
	firstBad  uint32
	first     sectorState // of the first sector

	// Of batches and footers, as far as it could be read.
	head   batchHeader
	rows   []row
	rowsOK bool
	copied []row
	copyOK bool
	runs   [][]*run // of each row
	chain  uint64
	footer *footer
}

type itemKind uint8

const (
	itemHole   itemKind = iota // no batch starts here
	itemBatch                  // complete
	itemBroken                 // its header can be read, but not all of it is right
	itemFooter
	itemGone // a whole segment; footer is set if its index could be read
)

func (it *item) next() place { return place{it.at.segment, it.at.sector + it.sectors} }

// scanner reads the sectors of one segment in order.
type scanner struct {
	f     vfs.File
	stamp stamper
	seg   uint64
	end   uint32 // behind the last sector to scan

	// A window of sectors from base on, with what they are.
	base   uint32
	buf    []byte
	states []sectorState

	scratch []byte
}

const scanWindow = 512 // sectors

// ensure moves the window so that it holds sectors [from, from+n).
func (s *scanner) ensure(from, n uint32) {
	have := s.base + uint32(len(s.states))
	if from >= s.base && from+n <= have {
		return
	}
	if from > have || from < s.base {
		s.base, s.buf, s.states, have = from, s.buf[:0], s.states[:0], from
	}
	drop := from - s.base
	s.buf = s.buf[:copy(s.buf, s.buf[drop*sectorSize:])]
	s.states = s.states[:copy(s.states, s.states[drop:])]
	s.base = from
	s.load(have, min(max(from+n, have+scanWindow), s.end))
}

// load appends the sectors [from, to) to the window. Sectors that cannot be read are bad.
func (s *scanner) load(from, to uint32) {
	old := len(s.buf)
	s.buf = slices.Grow(s.buf, int(to-from)*sectorSize)[:old+int(to-from)*sectorSize]
	b := s.buf[old:]
	failed := false
	if n, err := s.f.ReadAt(b, int64(from)*sectorSize); n < len(b) && err != nil {
		failed = true
	}
	for i := from; i < to; i++ {
		sector := b[(i-from)*sectorSize:][:sectorSize]
		if failed {
			if _, err := io.ReadFull(io.NewSectionReader(s.f, int64(i)*sectorSize, sectorSize), sector); err != nil {
				clear(sector)
				s.states = append(s.states, sectorBad)
				continue
			}
		}
		s.states = append(s.states, s.stamp.check(sector, i))
	}
}

func (s *scanner) state(i uint32) sectorState { return s.states[i-s.base] }

func (s *scanner) from(i uint32) []byte { return s.buf[int(i-s.base)*sectorSize:] }

// next returns what starts at a sector where a batch may start.
func (s *scanner) next(at uint32) (*item, error) {
	s.ensure(at, 1)
	if s.state(at) != sectorStart {
		return s.hole(at), nil
	}
	it := &item{at: place{s.seg, at}, first: sectorStart}
	it.head.decode(s.from(at))
	h := &it.head
	n := sectorsFor(h.bytes())
	if h.magic != batchMagic && h.magic != footerMagic || n > int(s.end-at) {
		return nil, fmt.Errorf("segment %s at %d: no batch header under a good stamp: %w", segmentName(s.seg), it.at.offset(), ErrInconsistent)
	}
	it.sectors = uint32(n)
	s.ensure(at, it.sectors)
	for i := at + 1; i < at+it.sectors; i++ {
		it.count(s.state(i), i, sectorBody)
	}
	err := s.parse(it)
	if err != nil {
		err = fmt.Errorf("segment %s at %d: %w", segmentName(s.seg), it.at.offset(), err)
	}
	return it, err
}

// hole is everything up to the next start of a batch.
func (s *scanner) hole(at uint32) *item {
	it := &item{kind: itemHole, at: place{s.seg, at}, first: s.state(at)}
	i := at
	for ; i < s.end; i++ {
		s.ensure(i, 1)
		if s.state(i) == sectorStart {
			break
		}
		it.count(s.state(i), i, sectorBody)
	}
	it.sectors = i - at
	return it
}

func (it *item) count(state sectorState, at uint32, want sectorState) {
	switch {
	case state == want:
	case state == sectorZero:
		it.zero++
	default:
		if it.bad == 0 {
			it.firstBad = at
		}
		it.bad++
	}
}

// good tells whether the sectors under bytes [lo, hi) of the batch are right.
func (s *scanner) good(it *item, lo, hi int) bool {
	if it.zero == 0 && it.bad == 0 {
		return true
	}
	for n := lo / sectorData; n*sectorData < hi; n++ {
		i := it.at.sector + uint32(n)
		if st := s.state(i); n > 0 && st != sectorBody {
			return false
		}
	}
	return true
}

// parse reads what can be read of a batch. An error means that bytes are wrong under good stamps.
func (s *scanner) parse(it *item) error {
	h := &it.head
	sectors := s.from(it.at.sector)
	s.scratch = gather(s.scratch[:0], sectors, 0, h.prefixBytes())
	prefix := s.scratch
	rowsEnd := headerSize + int(h.rowBytes)
	copyEnd := rowsEnd + int(h.copyBytes)

	it.kind = itemBroken
	var err error
	if h.magic == footerMagic {
		it.kind = itemFooter
		if it.zero+it.bad == 0 {
			if it.footer, err = decodeFooter(prefix[headerSize:], h.seq); err != nil {
				return fmt.Errorf("footer: %w: %w", err, ErrInconsistent)
			}
		}
		return nil
	}
	if s.good(it, headerSize, rowsEnd) {
		if it.rows, err = decodeRows(prefix[headerSize:rowsEnd], h.seq); err != nil {
			return fmt.Errorf("rows: %w: %w", err, ErrInconsistent)
		}
		it.rowsOK = true
	}
	if s.good(it, rowsEnd, copyEnd) {
		if it.copied, err = decodeRows(prefix[rowsEnd:copyEnd], h.copySeq); err != nil {
			return fmt.Errorf("copied rows: %w: %w", err, ErrInconsistent)
		}
		it.copyOK = true
	}
	it.chain = chainHash(prefix)
	if it.zero+it.bad == 0 {
		if !s.trailerOK(it) {
			return fmt.Errorf("trailer: %w", ErrInconsistent)
		}
		it.kind = itemBatch
	}
	if it.rowsOK {
		return s.locate(it, prefix, copyEnd)
	}
	return nil
}

func (s *scanner) trailerOK(it *item) bool {
	n := it.head.bytes()
	var b [trailerSize]byte
	gather(b[:0], s.from(it.at.sector), n-trailerSize, n)
	return binary.LittleEndian.Uint64(b[:]) == it.head.seq && binary.LittleEndian.Uint64(b[8:]) == it.chain
}

// locate finds the entries of each row, checks their payloads and splits them into runs that can be
// read and runs that are lost.
func (s *scanner) locate(it *item, prefix []byte, headAt int) error {
	it.runs = make([][]*run, len(it.rows))
	headsOK := s.good(it, headAt, len(prefix))
	heads := decoder{fields.Reader{B: prefix[headAt:]}}
	payloadAt := len(prefix)
	for i := range it.rows {
		r := &it.rows[i]
		if r.count == 0 {
			continue
		}
		if !headsOK {
			it.runs[i] = []*run{r.lostRun(it.at, it.loss("the list of its log entries cannot be read"))}
			continue
		}
		var err error
		if it.runs[i], err = s.locateRow(it, r, &heads, len(prefix), &payloadAt); err != nil {
			return err
		}
	}
	if headsOK && (len(heads.B) != 0 || payloadAt != len(prefix)+int(it.head.payloadBytes)) {
		return fmt.Errorf("heads: %w: %w", errMalformed, ErrInconsistent)
	}
	return nil
}

func (s *scanner) locateRow(it *item, r *row, heads *decoder, prefixLen int, payloadAt *int) (runs []*run, err error) {
	payloadEnd := prefixLen + int(it.head.payloadBytes)
	var fold uint64
	for index := r.first; index < r.first+r.count; index++ {
		headAt := prefixLen - len(heads.B)
		h := heads.head()
		if heads.Bad || h.len > uint64(payloadEnd-*payloadAt) {
			return nil, fmt.Errorf("heads: %w: %w", errMalformed, ErrInconsistent)
		}
		lo, hi := *payloadAt, *payloadAt+int(h.len)
		*payloadAt = hi
		fold = FoldHash(fold, h.hash)
		ok := s.good(it, lo, hi)
		if ok {
			s.scratch = gather(s.scratch[:len(s.scratch)], s.from(it.at.sector), lo, hi)
			data := s.scratch[len(s.scratch)-int(h.len):]
			wrong := HashData(data) != h.hash
			s.scratch = s.scratch[:prefixLen]
			if wrong {
				return nil, fmt.Errorf("payload of log entry %d of group %d: %w", index, r.group, ErrInconsistent)
			}
		}
		if n := len(runs); n == 0 || (runs[n-1].lost == nil) != ok {
			next := &run{first: index, term: r.term, at: it.at, headAt: uint32(headAt), payloadAt: uint32(lo)}
			if !ok {
				next.lost = it.loss("")
			}
			runs = append(runs, next)
		}
		last := runs[len(runs)-1]
		last.last = index
		last.count++
		last.headLen = uint32(prefixLen - len(heads.B) - int(last.headAt))
		last.payloadLen = uint32(hi) - last.payloadAt
		if last.lost != nil {
			last.lost.fold = FoldHash(last.lost.fold, h.hash)
		}
	}
	if fold != r.fold {
		return nil, fmt.Errorf("payload hashes of group %d: %w", r.group, ErrInconsistent)
	}
	return runs, nil
}

// loss describes damage of this item.
func (it *item) loss(reason string) *lostRun {
	at := it.at.sector
	if it.bad > 0 {
		at = it.firstBad
	}
	if reason == "" {
		reason = it.reason()
	}
	return &lostRun{file: segmentName(it.at.segment), offset: int64(at) * sectorSize, reason: reason}
}

func (it *item) reason() string {
	switch {
	case it.bad > 0:
		return "sector damaged"
	case it.zero > 0:
		return "sector lost, a write never reached the disk"
	}
	return "batch is missing"
}

// lostRun is all entries of the row, lost.
func (r *row) lostRun(at place, l *lostRun) *run {
	l.fold = r.fold
	return &run{first: r.first, last: r.last(), term: r.term, count: r.count, at: at, lost: l}
}
