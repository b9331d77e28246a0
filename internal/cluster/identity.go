package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// identity says which server of which cluster the data directory belongs to. The server id is drawn
// once, when the directory is empty, and never changes: a server with an empty directory is a new
// one. Cluster and member are zero until the server has founded a cluster or joined one.
type identity struct {
	server  uint64
	cluster uint64
	member  uint64 // raft id in the meta group
	founder bool   // of the meta group's first members
}

func (id identity) blank() bool { return id.cluster == 0 }

const (
	identityFile   = "server.id"
	identityFormat = "cleat 1\nserver %016x\ncluster %016x\nmember %d\nfounder %t\n"
)

// loadIdentity reads the identity, or draws a blank one if the directory holds nothing yet.
func loadIdentity(fsys vfs.FS, dir string) (id identity, err error) {
	path := filepath.Join(dir, identityFile)
	text, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return newIdentity(fsys, dir)
	}
	if err != nil {
		return id, fmt.Errorf("read the server's identity: %w", err)
	}
	text, err = unseal(text)
	if err == nil {
		_, err = fmt.Sscanf(string(text), identityFormat, &id.server, &id.cluster, &id.member, &id.founder)
	}
	if err != nil {
		return id, fmt.Errorf("%s is damaged: %w; %s", path, err, adviceStartAnew)
	}
	return id, nil
}

// adviceStartAnew is for whoever finds that a server does not know any more who it is.
const adviceStartAnew = "restore it from a backup, or move the data directory away and start again: a server of a cluster then joins as a new one and gets its data from the others"

func newIdentity(fsys vfs.FS, dir string) (identity, error) {
	for _, sub := range []string{walDir, metaDir, streamsDir} {
		names, err := fsys.List(filepath.Join(dir, sub))
		if err == nil && len(names) > 0 {
			return identity{}, fmt.Errorf("%s has data but there is no %s, and it is not safe to guess whose they are: %s", filepath.Join(dir, sub), identityFile, adviceStartAnew)
		}
	}
	id := identity{server: randomID()}
	return id, id.save(fsys, dir)
}

func (id identity) save(fsys vfs.FS, dir string) error {
	text := fmt.Sprintf(identityFormat, id.server, id.cluster, id.member, id.founder)
	if err := writeFileAtomically(fsys, dir, identityFile, seal([]byte(text))); err != nil {
		return fmt.Errorf("write the server's identity: %w", err)
	}
	return nil
}

// sealFormat ends a small file of text: a checksum over all that is above it.
const sealFormat = "crc32c %08x\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(text []byte) []byte {
	return fmt.Appendf(text, sealFormat, crc32.Checksum(text, castagnoli))
}

// unseal returns the text above the checksum.
func unseal(sealed []byte) ([]byte, error) {
	at := len(sealed) - len(fmt.Sprintf(sealFormat, 0))
	if at < 0 {
		return nil, fmt.Errorf("%d bytes are too few", len(sealed))
	}
	if text := sealed[:at:at]; bytes.Equal(seal(text), sealed) {
		return text, nil
	}
	return nil, errors.New("its checksum is wrong")
}

// randomID draws an id that is not zero.
func randomID() uint64 {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			panic(err) // Never returned by crypto/rand.
		}
		if v := binary.LittleEndian.Uint64(b[:]); v != 0 {
			return v
		}
	}
}

func readFile(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// writeFileAtomically makes the file have the content, durably, or leaves things as they were.
func writeFileAtomically(fsys vfs.FS, dir, name string, content []byte) error {
	tmp := filepath.Join(dir, name+".new")
	f, err := fsys.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

// makeDir makes a directory that is still there after a power cut: an entry is durable only when
// the directory that it stands in was synced.
func makeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return syncDir(fsys, parent)
}

// lockDir makes the data directory and keeps other processes out of it.
func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	const choose = "choose another directory with --store_dir"
	if err := makeDir(fsys, dir); err != nil {
		return nil, fmt.Errorf("the data directory %s cannot be created (%w): make it for this user, or "+choose, dir, err)
	}
	if i, err := fsys.Stat(dir); err == nil && !i.IsDir() {
		return nil, fmt.Errorf("the data directory %s is a file: "+choose, dir)
	}
	lock, err := fsys.Lock(filepath.Join(dir, "lock"))
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		return nil, fmt.Errorf("the data directory %s cannot be written (%w): give it to this user, or "+choose, dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the data directory %s cannot be locked, most likely since another server uses it (%w): stop that one, or "+choose, dir, err)
	}
	return lock, nil
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
