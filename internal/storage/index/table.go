package index

import "encoding/binary"

// table is a list of rows of up to tableColumns numbers, packed. Each column has a base, the least
// value in it or less, and a width in bytes just large enough for what its values are above it; a
// column whose values are all the same takes no room in the rows:
//
//	row: | column 0: value-base, width 0 to 8 | column 1 ... |
//
// A value that does not fit makes the whole table be packed anew; tables are small.
type table struct {
	base [tableColumns]uint64
	off  [tableColumns + 1]uint8 // where each column begins in a row; the last one is the row's length
	n    uint16
	rows []byte // and tablePad bytes behind them, so that eight bytes can always be loaded
}

const (
	tableColumns = 7
	tablePad     = 8
)

// tableRow is the values of a row.
type tableRow [tableColumns]uint64

var widthMask = [9]uint64{0, 1<<8 - 1, 1<<16 - 1, 1<<24 - 1, 1<<32 - 1, 1<<40 - 1, 1<<48 - 1, 1<<56 - 1, 1<<64 - 1}

func widthOf(v uint64) uint8 {
	w := uint8(0)
	for v > widthMask[w] {
		w++
	}
	return w
}

func (t *table) len() int          { return int(t.n) }
func (t *table) rowBytes() int     { return int(t.off[tableColumns]) }
func (t *table) width(c int) uint8 { return t.off[c+1] - t.off[c] }

// get returns the value of column c in row i.
func (t *table) get(i, c int) uint64 {
	w := t.width(c)
	if w == 0 {
		return t.base[c]
	}
	at := i*t.rowBytes() + int(t.off[c])
	return t.base[c] + binary.LittleEndian.Uint64(t.rows[at:])&widthMask[w]
}

// row returns all values of row i.
func (t *table) row(i int) (r tableRow) {
	for c := range r {
		r[c] = t.get(i, c)
	}
	return r
}

// put stores a value that fits.
func (t *table) put(i, c int, v uint64) {
	w := t.width(c)
	if w == 0 {
		return
	}
	at := i*t.rowBytes() + int(t.off[c])
	old := binary.LittleEndian.Uint64(t.rows[at:])
	binary.LittleEndian.PutUint64(t.rows[at:], old&^widthMask[w]|(v-t.base[c]))
}

func (t *table) fits(c int, v uint64) bool {
	return v >= t.base[c] && v-t.base[c] <= widthMask[t.width(c)]
}

// set changes the value of column c in row i.
func (t *table) set(i, c int, v uint64) {
	if !t.fits(c, v) {
		r := t.row(i)
		r[c] = v
		t.repack(&r)
	}
	t.put(i, c, v)
}

// insert makes r row i. What was there moves up.
func (t *table) insert(i int, r *tableRow) {
	for c, v := range r {
		if !t.fits(c, v) {
			t.repack(r)
			break
		}
	}
	size := t.rowBytes()
	if len(t.rows) == 0 {
		t.rows = append(t.rows, make([]byte, tablePad)...)
	}
	t.rows = append(t.rows, make([]byte, size)...)
	copy(t.rows[(i+1)*size:], t.rows[i*size:len(t.rows)-size])
	t.n++
	for c, v := range r {
		t.put(i, c, v)
	}
}

// remove takes row i out.
func (t *table) remove(i int) {
	size := t.rowBytes()
	t.rows = append(t.rows[:i*size], t.rows[(i+1)*size:]...)
	t.n--
}

// truncate leaves the first n rows.
func (t *table) truncate(n int) {
	t.n = uint16(n)
	t.rows = append(t.rows[:n*t.rowBytes()], make([]byte, tablePad)...)
}

// skip leaves out the first n rows.
func (t *table) skip(n int) {
	t.n -= uint16(n)
	t.rows = append(t.rows[:0], t.rows[n*t.rowBytes():]...)
}

// repack chooses bases and widths for the rows and one more to come, nil if none is.
func (t *table) repack(more *tableRow) {
	least, most := t.bounds(more)
	var next table
	next.base = least
	for c := range least {
		next.off[c+1] = next.off[c] + widthOf(most[c]-least[c])
	}
	size := next.rowBytes()
	next.n = t.n
	next.rows = make([]byte, t.len()*size+tablePad, (t.len()+1)*size+tablePad)
	for i := range t.len() {
		for c := range least {
			next.put(i, c, t.get(i, c))
		}
	}
	*t = next
}

func (t *table) bounds(more *tableRow) (least, most tableRow) {
	if more != nil {
		least, most = *more, *more
	} else if t.n > 0 {
		least = t.row(0)
		most = least
	}
	for i := range t.len() {
		for c := range least {
			v := t.get(i, c)
			least[c] = min(least[c], v)
			most[c] = max(most[c], v)
		}
	}
	return least, most
}

// clone returns a copy with room for more rows.
func (t *table) clone(more int) table {
	c := *t
	c.rows = append(make([]byte, 0, len(t.rows)+more*t.rowBytes()), t.rows...)
	return c
}

// search returns the first row whose column c is at least v; the column must ascend.
func (t *table) search(c int, v uint64) int { return t.searchIn(c, v, 0, t.len()) }

// searchSeq does the same for colSeq, which ascends by at least one from row to row, and often by just
// one.
func (t *table) searchSeq(v uint64) int {
	const c = colSeq
	if v <= t.base[c] {
		return 0
	}
	hi := t.len()
	if d := v - t.base[c]; d < uint64(hi) {
		if hi = int(d); t.get(hi, c) == v { // No row above this one can have it.
			return hi
		}
	}
	return t.searchIn(c, v, 0, hi)
}

func (t *table) searchIn(c int, v uint64, lo, hi int) int {
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.get(mid, c) < v {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
