package fields

import (
	"encoding/binary"
	"testing"
)

// A Reader gives what was written, and from the first field that is cut off on nothing but Bad: every prefix of
// some fields is read, and none may be taken for the whole.
func TestReaderStopsAtWhatIsCut(t *testing.T) {
	b := binary.AppendUvarint(nil, 300)
	b = binary.AppendVarint(b, -5)
	b = append(b, 7)
	b = binary.LittleEndian.AppendUint64(b, 1<<40)
	b = append(binary.AppendUvarint(b, 3), "abc"...)
	b = append(b, "xy"...)
	for n := range len(b) + 1 {
		r := Reader{B: b[:n]}
		whole := r.Uvarint() == 300
		whole = r.Varint() == -5 && whole
		whole = r.Byte() == 7 && whole
		whole = r.Uint64() == 1<<40 && whole
		whole = string(r.Bytes()) == "abc" && whole
		whole = string(r.Take(2)) == "xy" && whole
		if want := n == len(b); whole != want || r.Bad == want {
			t.Errorf("%d of %d bytes: whole %v, bad %v", n, len(b), whole, r.Bad)
		}
	}
}

// A length that is larger than what is left, up to the largest there is, takes no memory and does not panic.
func TestReaderRefusesLengths(t *testing.T) {
	for _, n := range []uint64{3, 1 << 31, 1<<63 - 1, 1<<64 - 1} {
		r := Reader{B: append(binary.AppendUvarint(nil, n), 1, 2)}
		if got := r.Bytes(); got != nil || !r.Bad {
			t.Errorf("%d bytes of 2: %v, bad %v", n, got, r.Bad)
		}
	}
}
