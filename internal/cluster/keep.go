package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// keepMagic begins a file that Keep wrote. After it come the CRC-32C of the content, and the content.
const keepMagic = "cleatkeep1\n"

var keepTable = crc32.MakeTable(crc32.Castagnoli)

// Keep writes something to a file of the data directory that is good to have after a restart, and that
// can be done without. It is not synced: a power cut may take it, or leave what was kept before.
func (c *Cluster) Keep(name string, content []byte) error {
	fsys, path := c.opts.FS, filepath.Join(c.opts.Dir, name)
	f, err := fsys.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	b := binary.LittleEndian.AppendUint32([]byte(keepMagic), crc32.Checksum(content, keepTable))
	_, err = f.Write(append(b, content...))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsys.Rename(path+".new", path)
}

// Kept returns what was kept, nil if there is nothing. What is damaged was not synced, and counts as
// nothing.
func (c *Cluster) Kept(name string) ([]byte, error) {
	b, err := readFile(c.opts.FS, filepath.Join(c.opts.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(b, []byte(keepMagic))
	if !ok || len(rest) < 4 || binary.LittleEndian.Uint32(rest) != crc32.Checksum(rest[4:], keepTable) {
		return nil, nil
	}
	return rest[4:], nil
}
