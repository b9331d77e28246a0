package simfs

// change is one change of names. It is durable as a whole or not at all.
type change struct {
	seq  int // of the operation
	kind changeKind
	dir  *node
	name string
	node *node

	// Of a rename.
	from     *node
	oldName  string
	replaced *node
}

type changeKind uint8

const (
	link changeKind = iota
	unlink
	rename
)

// change makes a change that lookups see at once.
func (f *FS) change(c change) {
	switch c.kind {
	case link:
		c.dir.names[c.name] = c.node
		c.node.refs++
	case unlink:
		delete(c.dir.names, c.name)
		f.unref(c.node)
	case rename:
		delete(c.from.names, c.oldName)
		c.dir.names[c.name] = c.node
		if c.replaced != nil {
			f.unref(c.replaced)
		}
	}
	c.seq = f.mu.ops
	f.mu.journal = append(f.mu.journal, c)
}

// unref drops one name or handle.
func (f *FS) unref(n *node) {
	n.refs--
	if n.refs == 0 && !n.dir {
		f.mu.used -= int64(n.now.allocated())
	}
}

// commit makes a change durable.
func (c *change) commit() {
	switch c.kind {
	case link:
		c.dir.diskNames[c.name] = c.node
	case unlink:
		delete(c.dir.diskNames, c.name)
	case rename:
		if c.from.diskNames[c.oldName] == c.node {
			delete(c.from.diskNames, c.oldName)
		}
		c.dir.diskNames[c.name] = c.node
	}
}

func (c *change) touches(dir *node) bool { return c.dir == dir || c.from == dir }

// syncNames makes the changes of dir durable, or all of them in journal mode.
func (f *FS) syncNames(dir *node) {
	rest := f.mu.journal[:0]
	for _, c := range f.mu.journal {
		if f.mu.names == Journal || c.touches(dir) {
			c.commit()
		} else {
			rest = append(rest, c)
		}
	}
	clear(f.mu.journal[len(rest):])
	f.mu.journal = rest
}
