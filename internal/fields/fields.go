// Package fields reads the fields of binary encodings: of the log, of engines and snapshots, and of what
// servers send each other. How they are put together is the business of whoever encodes them.
package fields

import (
	"encoding/binary"
	"math"
)

// Reader takes fields off the front of B. Bad is set by the first that does not fit, and those after it are
// zero. What it returns aliases B.
type Reader struct {
	B   []byte
	Bad bool
}

// Uvarint takes a number of variable length.
func (d *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(d.B)
	if n <= 0 {
		d.Bad, d.B = true, nil
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Varint takes a signed number of variable length.
func (d *Reader) Varint() int64 {
	v, n := binary.Varint(d.B)
	if n <= 0 {
		d.Bad, d.B = true, nil
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Byte takes one byte.
func (d *Reader) Byte() byte {
	if len(d.B) == 0 {
		d.Bad = true
		return 0
	}
	v := d.B[0]
	d.B = d.B[1:]
	return v
}

// Uint64 takes eight bytes, the lowest first.
func (d *Reader) Uint64() uint64 {
	if b := d.Take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Bytes takes bytes behind their number.
func (d *Reader) Bytes() []byte { return d.Take(d.Uvarint()) }

// Take takes n bytes.
func (d *Reader) Take(n uint64) []byte {
	if n > math.MaxInt32 || n > uint64(len(d.B)) {
		d.Bad, d.B = true, nil
		return nil
	}
	v := d.B[:n:n]
	d.B = d.B[n:]
	return v
}
