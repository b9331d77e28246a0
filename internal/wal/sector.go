package wal

import (
	"encoding/binary"
	"hash/crc32"
)

// A sector is 508 bytes of data and a 4-byte stamp:
//
//	stamp = CRC32C(data), the CRC started from
//	        CRC32C(server id ‖ segment number) ^ sector number ^ (1<<31 if a batch starts here)
//
// and 1 instead of 0. So a stamp is right only for these bytes at this place of this file of this
// server: a flipped bit, a misdirected write, a file of another server all show. A sector of zeros
// was never written, since no stamp is zero. And where a batch starts is part of the proof: no
// payload can imitate a batch header.
const (
	sectorSize = 512
	sectorData = sectorSize - 4
)

// sectorState is what a look at one sector tells.
type sectorState uint8

const (
	sectorZero  sectorState = iota // never written, or lost
	sectorBad                      // neither zero nor right, or not readable
	sectorBody                     // right
	sectorStart                    // right, and a batch or a footer starts here
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// startFlip is what the start bit in the initial value makes of the stamp. CRCs are
	// linear, so it is the same for all data of this length.
	startFlip = crc32.Update(1<<31, castagnoli, zeroSector[:sectorData]) ^
		crc32.Update(0, castagnoli, zeroSector[:sectorData])

	zeroSector [sectorSize]byte
)

// stamper makes and checks the stamps of one segment.
type stamper struct {
	seed uint32
}

func newStamper(server, segment uint64) stamper {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[0:], server)
	binary.LittleEndian.PutUint64(id[8:], segment)
	return stamper{crc32.Checksum(id[:], castagnoli)}
}

func (s stamper) sum(data []byte, sector uint32) uint32 {
	return crc32.Update(s.seed^sector, castagnoli, data)
}

// seal stamps the sectors of buf, which lie at sector number first and behind. The first one
// starts a batch if start is set.
func (s stamper) seal(buf []byte, first uint32, start bool) {
	for i := 0; i < len(buf); i += sectorSize {
		sum := s.sum(buf[i:i+sectorData], first)
		if start && i == 0 {
			sum ^= startFlip
		}
		binary.LittleEndian.PutUint32(buf[i+sectorData:], nonZero(sum))
		first++
	}
}

// check looks at one sector.
func (s stamper) check(sector []byte, number uint32) sectorState {
	stamp := binary.LittleEndian.Uint32(sector[sectorData:])
	if stamp == 0 {
		if isZero(sector) {
			return sectorZero
		}
		return sectorBad
	}
	switch sum := s.sum(sector[:sectorData], number); stamp {
	case nonZero(sum):
		return sectorBody
	case nonZero(sum ^ startFlip):
		return sectorStart
	}
	return sectorBad
}

func nonZero(sum uint32) uint32 {
	if sum == 0 {
		return 1
	}
	return sum
}

// isZero tells whether b, of a length that is a multiple of 8, is all zeros.
func isZero(b []byte) bool {
	var or uint64
	for ; len(b) >= 8; b = b[8:] {
		or |= binary.LittleEndian.Uint64(b)
	}
	return or == 0
}

// sectorsFor is how many sectors hold n bytes of data.
func sectorsFor(n int) int {
	return (n + sectorData - 1) / sectorData
}

// sectorWriter spreads a run of bytes over the data parts of sectors.
type sectorWriter struct {
	buf []byte // whole sectors, the last one partly filled
	at  int    // bytes of data written
}

func (w *sectorWriter) write(p []byte) {
	for len(p) > 0 {
		in := w.at % sectorData
		if in == 0 {
			w.buf = append(w.buf, zeroSector[:]...)
		}
		base := len(w.buf) - sectorSize
		n := copy(w.buf[base+in:base+sectorData], p)
		p = p[n:]
		w.at += n
	}
}

// gather appends the bytes [lo, hi) of data of sectors to dst.
func gather(dst, sectors []byte, lo, hi int) []byte {
	for lo < hi {
		base := lo / sectorData * sectorSize
		in := lo % sectorData
		n := min(sectorData-in, hi-lo)
		dst = append(dst, sectors[base+in:base+in+n]...)
		lo += n
	}
	return dst
}
