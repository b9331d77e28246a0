package wal

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A footer seals a segment: right behind the last batch, in the form of a batch with another magic,
// whose rows say in short what the segment holds. It is written once the next segment has a durable
// batch, so it also proves that there is a next segment. The same sectors, stamped with the highest
// bit of the segment number set, are kept in NNN.idx: if the segment is lost as a whole, that
// tells what was in it.
//
// A footer row is the distance of its batch's sequence from the footer's, as a varint, and a row as
// in a batch. Rows of one group with entries that follow each other in one term are merged.
type footer struct {
	rows []footerRow
}

type footerRow struct {
	row
	seq uint64 // of the last batch that is merged in this row
}

// footerRowMax bounds the encoded size of a footer row.
const footerRowMax = 1 + 11*binary.MaxVarintLen64 + 8

// footerBuilder gathers the footer of the segment being written or read.
type footerBuilder struct {
	segment uint64
	first   uint64 // sequence of the segment's first batch
	rows    []footerRow
}

// begin starts the footer of a segment whose first batch is seq.
func (b *footerBuilder) begin(segment, seq uint64) {
	*b = footerBuilder{segment: segment, first: seq, rows: b.rows[:0]}
}

// add merges a row of batch seq, which lies in segment.
func (b *footerBuilder) add(g *group, segment, seq uint64, r row) {
	if b.segment != segment {
		b.begin(segment, seq)
	}
	if g.footerSegment != segment || r.flags&(rowReset|rowRemove) != 0 {
		b.push(g, seq, r)
		return
	}
	last := &b.rows[g.footerAt]
	switch {
	case r.count == 0:
	case last.count == 0 && r.flags == 0:
		last.first, last.term, last.count, last.fold = r.first, r.term, r.count, r.fold
	case r.first == last.first+last.count && r.term == last.term:
		last.fold = last.fold*foldPower(r.count) + r.fold
		last.count += r.count
	default:
		r.prev = last.seq
		b.push(g, seq, r)
		return
	}
	last.seq, last.hard, last.start = seq, r.hard, r.start
}

func (b *footerBuilder) push(g *group, seq uint64, r row) {
	g.footerSegment, g.footerAt = b.segment, len(b.rows)
	b.rows = append(b.rows, footerRow{r, seq})
}

// foldPower is what FoldHash multiplies a fold with when n more hashes follow.
func foldPower(n uint64) uint64 {
	power, base := uint64(1), uint64(foldPrime)
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			power *= base
		}
		base *= base
	}
	return power
}

// sectorsMax bounds the size of the footer with more rows to come.
func (b *footerBuilder) sectorsMax(segment uint64, more int) int {
	n := more
	if b.segment == segment {
		n += len(b.rows)
	}
	return sectorsFor(headerSize + n*footerRowMax + trailerSize)
}

// encode makes the footer's sectors, not stamped yet, for a segment whose last batch is seq.
func (b *footerBuilder) encode(seq, chain uint64) []byte {
	var body []byte
	for i := range b.rows {
		r := &b.rows[i]
		body = binary.AppendUvarint(body, seq-r.seq)
		body = r.append(body, r.seq)
	}
	h := batchHeader{magic: footerMagic, rowBytes: uint32(len(body)), seq: seq, segmentSeq: b.first, previousChain: chain}
	prefix := append(h.append(nil), body...)
	var w sectorWriter
	w.write(prefix)
	w.write(appendTrailer(nil, seq, chainHash(prefix)))
	return w.buf
}

func decodeFooter(b []byte, seq uint64) (*footer, error) {
	f := &footer{}
	for d := (decoder{fields.Reader{B: b}}); len(d.B) > 0; {
		r := footerRow{seq: seq - d.Uvarint()}
		r.row = d.row(r.seq)
		if d.Bad {
			return nil, errMalformed
		}
		f.rows = append(f.rows, r)
	}
	return f, nil
}

// indexStamper stamps the index file of a segment.
func indexStamper(server, segment uint64) stamper { return newStamper(server, segment|1<<63) }

// writeIndex writes NNN.idx.
func (l *Log) writeIndex(segment uint64, sectors []byte) (err error) {
	indexStamper(l.o.ServerID, segment).seal(sectors, 0, true)
	name := l.path(indexName(segment))
	f, err := l.o.FS.Create(name+temporarySuffix, writeCategory)
	if err != nil {
		return err
	}
	_, err = f.Write(sectors)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = l.o.FS.Rename(name+temporarySuffix, name)
	}
	if err == nil {
		err = l.syncDir()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// readIndex reads NNN.idx. The item is nil if it is not there or not right.
func readIndex(fs vfs.FS, name string, server, segment uint64) (it *item, exists bool) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, !isNotExist(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil || len(b) == 0 || len(b)%sectorSize != 0 {
		return nil, true
	}
	end := uint32(len(b) / sectorSize)
	s := &scanner{f: f, stamp: indexStamper(server, segment), seg: segment, end: end}
	it, err = s.next(0)
	if err != nil || it.kind != itemFooter || it.footer == nil || it.sectors != end {
		return nil, true
	}
	return it, true
}
