package replica

import (
	"encoding/binary"
	"errors"
)

// A log entry of our own carries a pack: one or more commands of many clients, proposed together.
//
//	| version 1 | stamp 8 | incarnation 8 | counter 8 | (length uvarint | command)... |
//
// stamp is the leader's clock when it proposed the pack, in Unix nanoseconds. incarnation and
// counter name the pack: incarnation is drawn at random each time a replica opens, so that a pack
// is never taken for one of an earlier life or of another server.
const (
	packVersion  = 1
	packOverhead = 1 + 8 + 8 + 8

	packCommandsMax = 256
	packBytesMax    = 64 << 10
)

var errPack = errors.New("replica: malformed log entry")

// pack is a set of commands on their way into one log entry, with those who wait for results.
type pack struct {
	data    []byte
	waiters []Waiter

	// Set when the pack is proposed and when its entry is first seen in the log.
	counter     uint64
	bornTick    uint64
	index, term uint64
}

func newPack() *pack { return &pack{data: make([]byte, packOverhead, 512)} }

func (p *pack) full(next int) bool {
	return len(p.waiters) >= packCommandsMax || len(p.waiters) > 0 && len(p.data)+next > packBytesMax
}

func (p *pack) add(command []byte, w Waiter) {
	p.data = binary.AppendUvarint(p.data, uint64(len(command)))
	p.data = append(p.data, command...)
	p.waiters = append(p.waiters, w)
}

func (p *pack) seal(stamp int64, incarnation, counter uint64) {
	p.counter = counter
	p.data[0] = packVersion
	binary.LittleEndian.PutUint64(p.data[1:], uint64(stamp))
	binary.LittleEndian.PutUint64(p.data[9:], incarnation)
	binary.LittleEndian.PutUint64(p.data[17:], counter)
}

// refuse ends the pack without results.
func (p *pack) refuse(err error) {
	for _, w := range p.waiters {
		w.Done(nil, err)
	}
	p.waiters = nil
}

// packHeader is the fixed part of an encoded pack.
type packHeader struct {
	stamp                int64
	incarnation, counter uint64
}

// openPack decodes data; commands alias it and are appended to dst.
func openPack(dst [][]byte, data []byte) (h packHeader, commands [][]byte, err error) {
	h, ok := peekPack(data)
	if !ok {
		return h, nil, errPack
	}
	for rest := data[packOverhead:]; len(rest) > 0; {
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > uint64(len(rest)-k) {
			return h, nil, errPack
		}
		dst = append(dst, rest[k:k+int(n):k+int(n)])
		rest = rest[k+int(n):]
	}
	return h, dst, nil
}

// peekPack decodes the fixed part only.
func peekPack(data []byte) (h packHeader, ok bool) {
	if len(data) < packOverhead || data[0] != packVersion {
		return h, false
	}
	h.stamp = int64(binary.LittleEndian.Uint64(data[1:]))
	h.incarnation = binary.LittleEndian.Uint64(data[9:])
	h.counter = binary.LittleEndian.Uint64(data[17:])
	return h, true
}
