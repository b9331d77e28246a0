package filelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The manifest names the files that make up the state of the last checkpoint, and how much of
// each. It is replaced as a whole: a new one is written beside it, synced, and renamed over it.
//
//	| magic "CLEATMAN" 8 | version 4 | length 4 | payload ... | crc32c 4 |
//
//	payload: engine 4 | dropped 1 | next file number uv | applied index uv | term uv | conf uv ... |
//	         last seq uv | last time 8 | msgs uv | bytes uv |
//	         index file uv (0: none) | index length uv | base length uv |
//	         blocks uv: repeated number uv | length uv | live uv |
//	         erasures uv: repeated block uv | offset uv | length uv
//
// The checksum covers all before it. An engine that was dropped says so here until its files are
// gone. Erasures are records to be overwritten, which a crash may have prevented.
type manifest struct {
	dropped  bool
	next     uint32
	applied  storage.Applied
	lastSeq  uint64
	lastTime int64
	msgs     uint64
	bytes    uint64

	index    uint32
	indexLen int64
	baseLen  int64 // of the part of the index file that is not deltas

	blocks   []manifestBlock
	erasures []place
}

type manifestBlock struct {
	number uint32
	size   int64
	live   int64
}

// place is a record's place on disk.
type place struct {
	block, offset, length uint32
}

const (
	manifestName    = "MANIFEST"
	manifestMagic   = "CLEATMAN"
	manifestVersion = 1
)

func (m *manifest) encode(engine uint32) []byte {
	b := make([]byte, 16, 256)
	copy(b, manifestMagic)
	binary.LittleEndian.PutUint32(b[8:], manifestVersion)
	b = binary.LittleEndian.AppendUint32(b, engine)
	dropped := byte(0)
	if m.dropped {
		dropped = 1
	}
	b = append(b, dropped)
	b = binary.AppendUvarint(b, uint64(m.next))
	b = binary.AppendUvarint(b, m.applied.Index)
	b = binary.AppendUvarint(b, m.applied.Term)
	b = binary.AppendUvarint(b, uint64(len(m.applied.Conf)))
	b = append(b, m.applied.Conf...)
	b = binary.AppendUvarint(b, m.lastSeq)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.lastTime))
	b = binary.AppendUvarint(b, m.msgs)
	b = binary.AppendUvarint(b, m.bytes)
	b = binary.AppendUvarint(b, uint64(m.index))
	b = binary.AppendUvarint(b, uint64(m.indexLen))
	b = binary.AppendUvarint(b, uint64(m.baseLen))
	b = binary.AppendUvarint(b, uint64(len(m.blocks)))
	for _, bl := range m.blocks {
		b = binary.AppendUvarint(b, uint64(bl.number))
		b = binary.AppendUvarint(b, uint64(bl.size))
		b = binary.AppendUvarint(b, uint64(bl.live))
	}
	b = binary.AppendUvarint(b, uint64(len(m.erasures)))
	for _, p := range m.erasures {
		b = binary.AppendUvarint(b, uint64(p.block))
		b = binary.AppendUvarint(b, uint64(p.offset))
		b = binary.AppendUvarint(b, uint64(p.length))
	}
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-16))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeManifest returns what is wrong with b, or "".
func decodeManifest(b []byte, engine uint32) (m *manifest, wrong string) {
	if len(b) < 20 || string(b[:8]) != manifestMagic {
		return nil, "not a manifest"
	}
	n := len(b) - 4
	switch {
	case int(binary.LittleEndian.Uint32(b[12:])) != n-16:
		return nil, "the length is wrong"
	case crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]):
		return nil, "checksum mismatch"
	case binary.LittleEndian.Uint32(b[8:]) != manifestVersion:
		return nil, fmt.Sprintf("unknown version %d", binary.LittleEndian.Uint32(b[8:]))
	}
	d := fields.Reader{B: b[16:n]}
	if e := d.Take(4); e == nil || binary.LittleEndian.Uint32(e) != engine {
		return nil, "the manifest is another engine's"
	}
	m = &manifest{}
	if f := d.Take(1); f != nil {
		m.dropped = f[0] != 0
	}
	m.next = uint32(d.Uvarint())
	m.applied.Index = d.Uvarint()
	m.applied.Term = d.Uvarint()
	if n := d.Uvarint(); n > 0 {
		m.applied.Conf = d.Take(n)
	}
	m.lastSeq = d.Uvarint()
	m.lastTime = int64(d.Uint64())
	m.msgs = d.Uvarint()
	m.bytes = d.Uvarint()
	m.index = uint32(d.Uvarint())
	m.indexLen = int64(d.Uvarint())
	m.baseLen = int64(d.Uvarint())
	for n := d.Uvarint(); n > 0 && !d.Bad; n-- {
		m.blocks = append(m.blocks, manifestBlock{uint32(d.Uvarint()), int64(d.Uvarint()), int64(d.Uvarint())})
	}
	for n := d.Uvarint(); n > 0 && !d.Bad; n-- {
		m.erasures = append(m.erasures, place{uint32(d.Uvarint()), uint32(d.Uvarint()), uint32(d.Uvarint())})
	}
	if d.Bad || len(d.B) != 0 {
		return nil, "the payload does not decode"
	}
	return m, ""
}

// prepareManifest writes m beside the manifest of the directory, durably.
func (d *dir) prepareManifest(m *manifest) error {
	tmp := d.path(manifestName + ".tmp")
	f, err := d.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("storage: create %s: %w", tmp, err)
	}
	if _, err = f.Write(m.encode(d.id)); err == nil {
		err = d.synced(f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("storage: write %s: %w", tmp, err)
	}
	return nil
}

// switchManifest makes what was prepared the manifest of the directory, durably. After an error
// either may be.
func (d *dir) switchManifest() error {
	tmp := d.path(manifestName + ".tmp")
	if err := d.fs.Rename(tmp, d.path(manifestName)); err != nil {
		return fmt.Errorf("storage: rename %s: %w", tmp, err)
	}
	return d.sync()
}

// writeManifest does both. All that m names is durable before, files and names.
func (d *dir) writeManifest(m *manifest) error {
	if err := d.prepareManifest(m); err != nil {
		return err
	}
	return d.switchManifest()
}

// readManifest returns nil if there is none.
func (d *dir) readManifest() (*manifest, error) {
	name := d.path(manifestName)
	b, err := d.readFile(manifestName)
	if err != nil || b == nil {
		return nil, err
	}
	m, wrong := decodeManifest(b, d.id)
	if wrong != "" {
		return nil, &storage.CorruptError{Path: name, Detail: wrong}
	}
	return m, nil
}

// readFile reads a small file whole; nil if there is none.
func (d *dir) readFile(name string) ([]byte, error) {
	f, err := d.fs.Open(d.path(name))
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", d.path(name), err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("storage: read %s: %w", d.path(name), err)
	}
	return b, nil
}
