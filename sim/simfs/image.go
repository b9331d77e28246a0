package simfs

const (
	// SectorSize is what a disk writes at once.
	SectorSize = 512

	pageSize = 4096
)

// image is the content of a file, in pages. Missing pages are holes and read as zeros. Clones share
// pages; whoever writes to a page that is not its own copies it first.
type image struct {
	pages []*page
	owner *owner
}

type page struct {
	owner *owner
	data  [pageSize]byte
}

// owner tells whose a page is. It is not empty, so that each one has its own address.
type owner struct{ _ byte }

// zeroPage is an allocated page without content.
var zeroPage = &page{owner: &owner{}}

func newImage() image { return image{owner: &owner{}} }

// clone returns an image with the same content.
func (m *image) clone() image {
	// From now on the pages belong to neither.
	m.owner = &owner{}
	return image{pages: append([]*page(nil), m.pages...), owner: &owner{}}
}

// read fills b with what lies at offset at.
func (m *image) read(b []byte, at int64) {
	for len(b) > 0 {
		in := int(at % pageSize)
		n := min(len(b), pageSize-in)
		if i := int(at / pageSize); i < len(m.pages) && m.pages[i] != nil {
			copy(b[:n], m.pages[i].data[in:])
		} else {
			clear(b[:n])
		}
		b, at = b[n:], at+int64(n)
	}
}

// write puts b at offset at and returns how many holes it filled.
func (m *image) write(b []byte, at int64) (filled int) {
	for len(b) > 0 {
		in := int(at % pageSize)
		n := min(len(b), pageSize-in)
		p, hole := m.page(int(at/pageSize), allZero(b[:n]))
		if p != nil {
			copy(p.data[in:], b[:n])
		}
		if hole {
			filled++
		}
		b, at = b[n:], at+int64(n)
	}
	return filled
}

// page returns page i for writing, or nil if zeros are to be written and the page has nothing else.
func (m *image) page(i int, zeros bool) (p *page, hole bool) {
	for i >= len(m.pages) {
		m.pages = append(m.pages, make([]*page, max(i+1-len(m.pages), 1))...)
	}
	p = m.pages[i]
	hole = p == nil
	if zeros && (hole || p == zeroPage) {
		m.pages[i] = zeroPage
		return nil, hole
	}
	if hole || p.owner != m.owner {
		mine := &page{owner: m.owner}
		if !hole {
			mine.data = p.data
		}
		m.pages[i] = mine
		p = mine
	}
	return p, hole
}

// allocated is how many pages are not holes.
func (m *image) allocated() (n int) {
	for _, p := range m.pages {
		if p != nil {
			n++
		}
	}
	return n
}

// truncate drops everything from size on.
func (m *image) truncate(size int64) {
	keep := int((size + pageSize - 1) / pageSize)
	if keep < len(m.pages) {
		clear(m.pages[keep:])
		m.pages = m.pages[:keep]
	}
	if in := int(size % pageSize); in > 0 && keep <= len(m.pages) && m.pages[keep-1] != nil {
		m.write(make([]byte, pageSize-in), size)
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
