package wal

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/cleatkv/cleat/internal/fields"
	"github.com/cleatkv/cleat/sim/simfs"
)

// FuzzWALOpen spoils a log as the input says and opens it. Whatever is on the disk, Open does not panic;
// and as long as nobody forges stamps, what it says is right.
//
// The input is a list of changes: sector 1, kind 1, argument 2. See fuzzChange.
func FuzzWALOpen(f *testing.F) {
	f.Add([]byte{1, 0, 5, 1})
	f.Add([]byte{1, 1, 0, 0, 2, 1, 0, 0})
	f.Add([]byte{3, 2, 9, 0})
	f.Add([]byte{1, 3, 4, 255, 1, 3, 28, 1})
	f.Add([]byte{33, 4, 36, 9, 40, 3, 0, 0})
	f.Add([]byte{1, 5, 4, 0})
	f.Add([]byte("0700A700")) // Both segments lost; an index file is left.
	w := writeLog(f, mixedUpdates()[:18]...)
	f.Fuzz(func(t *testing.T, in []byte) {
		fs := w.fs.CrashClone(simfs.Everything, 1)
		forged := false
		for ; len(in) >= 4; in = in[4:] {
			forged = fuzzChange(t, fs, in) || forged
		}
		l, err := Open(damageOptions(fs))
		if err != nil {
			if !errors.Is(err, ErrInconsistent) || !forged {
				t.Fatal(err)
			}
			return
		}
		if !forged && !w.looksTorn(fs) {
			w.verify(t, l)
		}
		for _, g := range l.Groups() {
			if s, _ := l.State(g); s.First <= s.Last && s.Damage == nil {
				_, err := l.Entries(nil, g, s.First, s.Last+1, 1<<20)
				if err != nil && !forged {
					t.Fatal(err)
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(l.o); err == nil {
			l.closeFiles()
		} else if !forged {
			t.Fatalf("opened once, then: %v", err)
		}
	})
}

// looksTorn tells whether a sector of the last batch is zeros: nothing can tell a drive that dropped an
// acknowledged write at the very end from a power cut before the acknowledgement.
func (w *written) looksTorn(fs *simfs.FS) bool {
	last := w.batches[len(w.batches)-1]
	f, err := fs.Open(path(last.segment))
	if err != nil {
		return false
	}
	b := make([]byte, int(last.sectors)*sectorSize)
	if _, err := f.ReadAt(b, last.offset()); err != nil {
		return false
	}
	for ; len(b) > 0; b = b[sectorSize:] {
		if isZero(b[:sectorSize]) {
			return true
		}
	}
	return false
}

// fuzzChange does one change. Kinds 3 to 5 stamp the sector again, as no disk does.
func fuzzChange(t *testing.T, fs *simfs.FS, in []byte) (forged bool) {
	segment, sector := uint64(in[0]/32)%2+1, int64(in[0]%32)
	name, at := path(segment), sector*sectorSize
	if _, err := fs.Stat(name); err != nil {
		return false // Removed by an earlier change.
	}
	var err error
	switch in[1] % 8 {
	case 0, 3, 4, 5:
		off := int64(in[2])*2 + int64(in[3]&1)
		for bit := range uint(8) {
			if in[3]>>bit&1 != 0 {
				err = errors.Join(err, fs.FlipBit(name, at+off, bit))
			}
		}
		if in[1]%8 > 0 {
			restamp(t, fs, segment, sector, in[1]%8 != 4)
			forged = true
		}
	case 1:
		err = fs.ZeroSector(name, sector)
	case 2:
		err = fs.MisdirectSector(name, int64(in[2]%32), sector)
	case 6:
		err = fs.TruncateFile(name, at+int64(in[2]))
	case 7:
		if in[2]%4 == 0 {
			err = fs.LoseFile(name)
		} else {
			err = fs.BreakSector(name, sector)
		}
	}
	if err != nil {
		t.Skip(err) // Beyond the end of a truncated file.
	}
	return forged
}

func restamp(t *testing.T, fs *simfs.FS, segment uint64, sector int64, start bool) {
	h, err := fs.OpenReadWrite(path(segment), "test")
	if err != nil {
		t.Fatal(err)
	}
	var b [sectorSize]byte
	if _, err := h.ReadAt(b[:], sector*sectorSize); err != nil {
		t.Skip(err)
	}
	newStamper(7, segment).seal(b[:], uint32(sector), start)
	if _, err := h.WriteAt(b[:], sector*sectorSize); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Sync(), h.Close()); err != nil {
		t.Fatal(err)
	}
}

// FuzzWALRecord decodes any bytes as rows and as heads, without a panic, and gets back what it
// encodes.
func FuzzWALRecord(f *testing.F) {
	r := row{flags: rowReset, group: 3, prev: 9, hard: HardState{1, 2, 3}, start: Position{4, 5}, first: 5, count: 2, term: 6, fold: 7}
	f.Add(r.append(nil, 10), uint64(10))
	f.Add(head{typ: 1, len: 300, hash: 9}.append(nil), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seq uint64) {
		if rows, err := decodeRows(b, seq); err == nil {
			var again []byte
			for i := range rows {
				again = rows[i].append(again, seq)
			}
			same, err := decodeRows(again, seq)
			if err != nil || !reflect.DeepEqual(same, rows) {
				t.Fatalf("%+v becomes %+v, %v", rows, same, err)
			}
		}
		if ft, err := decodeFooter(b, seq); err == nil {
			for _, r := range ft.rows {
				if r.first > 1<<62 || r.count > 1<<62 {
					t.Fatalf("%+v", r)
				}
			}
		}
		d := decoder{fields.Reader{B: b}}
		if h := d.head(); !d.Bad {
			again := decoder{fields.Reader{B: h.append(nil)}}
			if h2 := again.head(); again.Bad || h2 != h || len(again.B) > 0 {
				t.Fatalf("%+v becomes %+v", h, h2)
			}
		}
		var sectors sectorWriter
		sectors.write(b)
		if got := gather(nil, sectors.buf, 0, len(b)); !bytes.Equal(got, b) {
			t.Fatal("bytes change on their way through sectors")
		}
		s := newStamper(seq, 3)
		s.seal(sectors.buf, 5, true)
		for i := 0; i < len(sectors.buf); i += sectorSize {
			want := sectorBody
			if i == 0 {
				want = sectorStart
			}
			number := uint32(5 + i/sectorSize)
			sector := sectors.buf[i:][:sectorSize]
			if st := s.check(sector, number); st != want {
				t.Fatalf("sector %d: state %d, want %d", i, st, want)
			}
			if st := s.check(sector, number+1); st != sectorBad {
				t.Fatalf("sector in the wrong place: state %d", st)
			}
		}
	})
}
