package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The first and the last sector of a segment hold its header:
//
//	 0 magic 8       "CLEATWAL"
//	 8 version 4     1
//	12 sector size 4 512
//	16 cluster id 8
//	24 server id 8
//	32 segment 8     the number that is also in the file's name
//	40 size 8        of the file in bytes
//	48 crc32c 4      of the bytes before
//
// It is written, with zeros for all the rest, and synced under a temporary name before the file
// appears as NNN.wal: a segment without a header is damaged, never young.
const (
	segmentMagic     = "CLEATWAL"
	segmentVersion   = 1
	segmentHeaderLen = 52

	segmentBytesMin   = 8 << 10
	segmentBytesLeast = 1 << 20 // however small the disk is
	segmentShare      = 32      // of the disk: no segment takes more than one of so many parts
	segmentBytesFirst = 4 << 20 // the first segment of a new log; then they double up to the option
	zeroChunk         = 1 << 20
	fillChunk         = 4 << 10

	segmentSuffix   = ".wal"
	indexSuffix     = ".idx"
	temporarySuffix = ".new"

	writeCategory = vfs.DiskWriteCategory("wal")
)

type segmentHeader struct {
	cluster, server uint64
	number          uint64
	size            int64
}

func (h *segmentHeader) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, sectorSize)
	b = append(b, segmentMagic...)
	b = le.AppendUint32(b, segmentVersion)
	b = le.AppendUint32(b, sectorSize)
	b = le.AppendUint64(b, h.cluster)
	b = le.AppendUint64(b, h.server)
	b = le.AppendUint64(b, h.number)
	b = le.AppendUint64(b, uint64(h.size))
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return b[:sectorSize]
}

// decodeSegmentHeader reads a header sector without looking at its stamp, which depends on what
// the header says.
func decodeSegmentHeader(b []byte) (h segmentHeader, version uint32, ok bool) {
	le := binary.LittleEndian
	if string(b[:8]) != segmentMagic || le.Uint32(b[48:]) != crc32.Checksum(b[:48], castagnoli) {
		return h, 0, false
	}
	h = segmentHeader{le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:]), int64(le.Uint64(b[40:]))}
	return h, le.Uint32(b[8:]), true
}

func segmentName(number uint64) string { return fmt.Sprintf("%012d%s", number, segmentSuffix) }

func indexName(number uint64) string { return fmt.Sprintf("%012d%s", number, indexSuffix) }

// parseName returns the number in the name of a segment or an index file.
func parseName(name, suffix string) (number uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) < 12 || len(digits) > 19 {
		return 0, false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		number = number*10 + uint64(c-'0')
	}
	return number, number > 0
}

// segment is a segment file that is open for reading and, at the head of the log, for writing.
type segment struct {
	number uint64
	size   int64
	f      vfs.File
	stamp  stamper

	// segmentFiles guards these: who reads the file right now, and whether the last one shall close
	// it; whether the footer is on disk.
	readers  int
	released bool
	sealed   bool
}

// end is the sector behind the last one that batches may use.
func (s *segment) end() uint32 { return uint32(s.size/sectorSize) - 1 }

// segmentFiles is the directory: which segments are there and which one comes next.
type segmentFiles struct {
	sync.Mutex
	open   map[uint64]*segment
	synced place // the end of what is on disk

	spare  *segment // zeroed and durable, ready to be written
	making bool     // the keeper is at it
	made   sync.Cond

	full     bool   // there was no room to make one:
	missing  uint64 // its number
	previous int64  // the size of the one before it
}

// acquire returns a segment for reading; nil if it is not there. The caller gives it back.
func (f *segmentFiles) acquire(number uint64) *segment {
	f.Lock()
	defer f.Unlock()
	s := f.open[number]
	if s != nil {
		s.readers++
	}
	return s
}

func (f *segmentFiles) giveBack(s *segment) {
	f.Lock()
	defer f.Unlock()
	if s.readers--; s.readers == 0 && s.released {
		_ = s.f.Close()
	}
}

// takeBelow removes the segments below first from the table and closes them, at once or when their
// last reader is done.
func (f *segmentFiles) takeBelow(first uint64) (old []uint64) {
	f.Lock()
	defer f.Unlock()
	for n, s := range f.open { // order: sorted below
		if n >= first {
			continue
		}
		old = append(old, n)
		delete(f.open, n)
		if s.released = true; s.readers == 0 {
			_ = s.f.Close()
		}
	}
	slices.Sort(old)
	return old
}

func (l *Log) path(name string) string { return l.o.FS.PathJoin(l.o.Dir, name) }

// createSegment makes a segment file that is all there: zeros, headers and name are on disk when
// it returns.
func (l *Log) createSegment(number uint64, size int64) (_ *segment, err error) {
	fs, final := l.o.FS, l.path(segmentName(number))
	temporary := final + temporarySuffix
	// A file left by a crash may hold anything.
	if err := fs.Remove(temporary); err != nil && !isNotExist(err) {
		return nil, err
	}
	f, err := fs.OpenReadWrite(temporary, writeCategory)
	if err != nil {
		return nil, err
	}
	s := &segment{number: number, size: size, f: f, stamp: newStamper(l.o.ServerID, number)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("wal: create segment %s: %w", final, err)
			_ = f.Close()
			_ = fs.Remove(temporary)
		}
	}()
	if err := s.fill(l.o.ClusterID, l.o.ServerID); err != nil {
		return nil, err
	}
	if err := fs.Rename(temporary, final); err != nil {
		return nil, err
	}
	return s, l.syncDir()
}

// fill writes headers and zeros. Real zeros rather than fallocate: an extent that was only
// reserved has to be converted when it is first written, which makes every sync of a batch commit
// the file system's journal too.
//
// The zeros are written a page at a time: the kernel caches what one call writes as one piece, and
// accounts for all of a piece when a byte of it is written later. With calls of 1 MiB each sync of a
// 512-byte batch counted as 1 MiB written by this process, although the disk got a page.
//
// They are synced in pieces of 1 MiB, so that a batch that is being synced meanwhile waits behind one
// of them at most.
func (s *segment) fill(cluster, server uint64) error {
	h := segmentHeader{cluster: cluster, server: server, number: s.number, size: s.size}
	head := h.encode()
	chunk := make([]byte, min(fillChunk, s.size))
	for at := int64(0); at < s.size; at += int64(len(chunk)) {
		b := chunk[:min(int64(len(chunk)), s.size-at)]
		if at == 0 {
			copy(b, head)
			s.stamp.seal(b[:sectorSize], 0, false)
		}
		if at+int64(len(b)) == s.size {
			last := b[len(b)-sectorSize:]
			copy(last, head)
			s.stamp.seal(last, uint32(s.size/sectorSize)-1, false)
		}
		if _, err := s.f.WriteAt(b, at); err != nil {
			return err
		}
		clear(b[:sectorSize])
		if done := at + int64(len(b)); done%zeroChunk == 0 && done < s.size {
			if err := s.f.SyncData(); err != nil {
				return err
			}
		}
	}
	return s.f.Sync()
}

// syncDir makes the names in the directory durable.
func (l *Log) syncDir() error { return syncDir(l.o.FS, l.o.Dir) }

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return err
	}
	return d.Close()
}

// makeDir creates a directory with all parents, their names durable.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	} else if !isNotExist(err) {
		return err
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDir(fs, parent)
}
