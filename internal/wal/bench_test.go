package wal

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// cpu is the processor time that this process used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func diskLog(b *testing.B, dir string) *Log {
	b.Helper()
	l, err := Open(Options{FS: vfs.Default, Dir: dir, ServerID: 1, ClusterID: 1})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkWALGroupCommit appends entries of 200 bytes, each group one after the other and all groups at
// once.
func BenchmarkWALGroupCommit(b *testing.B) {
	for _, groups := range []int{1, 10, 1000, 10000} {
		b.Run(fmt.Sprintf("%dgroups", groups), func(b *testing.B) {
			l := diskLog(b, b.TempDir())
			data := make([]byte, 200)
			var wg sync.WaitGroup
			next := make([]func(error), groups)
			turns := make([]int, groups)
			for i := range b.N {
				turns[i%groups]++
			}
			for g := range groups {
				index, left := uint64(0), turns[g]
				next[g] = func(err error) {
					if err != nil {
						b.Error(err)
					}
					if left == 0 {
						wg.Done()
						return
					}
					left--
					index++
					l.Submit([]Update{{
						Group:   GroupID(g + 1),
						Entries: []Entry{{Index: index, Term: 1, Data: data}},
						Hard:    &HardState{Term: 1, Vote: 1, Commit: index - 1},
						Compact: Position{Index: index &^ 1023, Term: 1},
					}}, next[g])
				}
			}
			b.ReportAllocs()
			before := cpu(b)
			b.ResetTimer()
			wg.Add(groups)
			for g := range groups {
				next[g](nil)
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(l.w.seq)/float64(b.N), "syncs/op")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkWALOpen opens a log of this size, written in batches of 64 KiB.
func BenchmarkWALOpen(b *testing.B) {
	for name, bytes := range map[string]int{"64MiB": 64 << 20, "1GiB": 1 << 30} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			l := diskLog(b, dir)
			var wg sync.WaitGroup
			data := make([]byte, 1024)
			for i := range data {
				data[i] = byte(i)
			}
			const each = 64
			for i := range bytes / (each * len(data)) {
				var es []Entry
				for n := range each {
					es = append(es, Entry{Index: uint64(i/16*each + n + 1), Term: 1, Data: data})
				}
				wg.Add(1)
				l.Submit([]Update{{Group: GroupID(i%16 + 1), Entries: es}}, func(err error) {
					if err != nil {
						b.Error(err)
					}
					wg.Done()
				})
				if i%256 == 0 {
					wg.Wait()
				}
			}
			wg.Wait()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(bytes))
			b.ReportAllocs()
			for b.Loop() {
				if err := diskLog(b, dir).Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFloor is what the disk takes for one sector: a write and a sync, nothing else.
func BenchmarkFloor(b *testing.B) {
	f, err := vfs.Default.OpenReadWrite(b.TempDir()+"/x", "test")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 16<<20), 0); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, sectorSize)
	before := cpu(b)
	b.ResetTimer()
	for i := range b.N {
		if _, err := f.WriteAt(data, int64(i)%32768*sectorSize); err != nil {
			b.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkStamp is the cost of the sector stamps.
func BenchmarkStamp(b *testing.B) {
	buf := make([]byte, 1<<20)
	s := newStamper(1, 2)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		s.seal(buf, 7, true)
	}
}
