package storage

import (
	"encoding/binary"
	"math"
)

// Fields takes fields off the front of B: what engines and snapshots read of their own encodings. Bad is
// set by the first that does not fit, and those after it are zero. What it returns aliases B.
type Fields struct {
	B   []byte
	Bad bool
}

// Uvarint takes a number of variable length.
func (d *Fields) Uvarint() uint64 {
	v, n := binary.Uvarint(d.B)
	if n <= 0 {
		d.Bad, d.B = true, nil
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Uint64 takes eight bytes, the lowest first.
func (d *Fields) Uint64() uint64 {
	if b := d.Take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Bytes takes bytes behind their number.
func (d *Fields) Bytes() []byte { return d.Take(d.Uvarint()) }

// Take takes n bytes.
func (d *Fields) Take(n uint64) []byte {
	if n > math.MaxInt32 || n > uint64(len(d.B)) {
		d.Bad, d.B = true, nil
		return nil
	}
	v := d.B[:n:n]
	d.B = d.B[n:]
	return v
}
