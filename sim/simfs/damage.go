package simfs

import (
	"io/fs"
)

// The methods here change what is on the disk behind the back of whoever uses it. They work on files
// without pending writes, typically after a crash or a close, and return an error if there is no such
// file or sector.

// KeepHistory makes the disk remember the last content of each sector before it was overwritten, for
// StaleSector. It is for small files.
func (f *FS) KeepHistory() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.history = map[*node]map[int64][SectorSize]byte{}
}

// remember notes what the pending writes of n are about to replace.
func (f *FS) remember(n *node) {
	if f.mu.history == nil {
		return
	}
	old := f.mu.history[n]
	if old == nil {
		old = map[int64][SectorSize]byte{}
		f.mu.history[n] = old
	}
	for i := range n.pending {
		w := &n.pending[i]
		for s, end := w.sectors(); s < end; s++ {
			var b [SectorSize]byte
			n.disk.read(b[:], s*SectorSize)
			old[s] = b
		}
	}
}

// spoil changes a file's durable content.
func (f *FS) spoil(name string, change func(n *node) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.lookup(name)
	if err == nil && n.dir {
		err = fs.ErrInvalid
	}
	if err == nil {
		err = change(n)
	}
	if err != nil {
		return fail("spoil", name, err)
	}
	return nil
}

// overwrite replaces bytes in both images.
func (n *node) overwrite(b []byte, at int64) error {
	if at < 0 || at+int64(len(b)) > n.diskSize {
		return fs.ErrInvalid
	}
	n.disk.write(b, at)
	n.now.write(b, at)
	return nil
}

// FlipBit flips one bit of the byte at offset at.
func (f *FS) FlipBit(name string, at int64, bit uint) error {
	return f.spoil(name, func(n *node) error {
		var b [1]byte
		n.disk.read(b[:], at)
		b[0] ^= 1 << (bit % 8)
		return n.overwrite(b[:], at)
	})
}

// ZeroSector makes a sector read as zeros.
func (f *FS) ZeroSector(name string, sector int64) error {
	return f.spoil(name, func(n *node) error {
		var b [SectorSize]byte
		return n.overwrite(b[:], sector*SectorSize)
	})
}

// StaleSector gives a sector the content it had before it was last written: a lost write. See
// KeepHistory.
func (f *FS) StaleSector(name string, sector int64) error {
	return f.spoil(name, func(n *node) error {
		b, ok := f.mu.history[n][sector]
		if !ok {
			return fs.ErrInvalid
		}
		return n.overwrite(b[:], sector*SectorSize)
	})
}

// MisdirectSector puts the content of sector from where sector to should be.
func (f *FS) MisdirectSector(name string, from, to int64) error {
	return f.spoil(name, func(n *node) error {
		var b [SectorSize]byte
		n.disk.read(b[:], from*SectorSize)
		return n.overwrite(b[:], to*SectorSize)
	})
}

// BreakSector makes reads of a sector fail until it is written anew.
func (f *FS) BreakSector(name string, sector int64) error {
	return f.spoil(name, func(n *node) error {
		if sector*SectorSize >= n.diskSize {
			return fs.ErrInvalid
		}
		if n.unreadable == nil {
			n.unreadable = map[int64]bool{}
		}
		n.unreadable[sector] = true
		return nil
	})
}

// TruncateFile cuts a file.
func (f *FS) TruncateFile(name string, size int64) error {
	return f.spoil(name, func(n *node) error {
		if size > n.diskSize {
			return fs.ErrInvalid
		}
		f.mu.used -= int64(n.now.allocated())
		n.disk.truncate(size)
		n.now.truncate(size)
		n.diskSize, n.nowSize = size, size
		f.mu.used += int64(n.now.allocated())
		return nil
	})
}

// LoseFile removes a file's name, durably.
func (f *FS) LoseFile(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err == nil && dir.names[base] == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return fail("lose", name, err)
	}
	n := dir.names[base]
	delete(dir.names, base)
	delete(dir.diskNames, base)
	f.unref(n)
	return nil
}
