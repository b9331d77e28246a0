package storagetest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/storage"
)

// Benchmark measures an engine on the real file system: what one operation costs with many keys
// there, and what they cost in memory.
func Benchmark(b *testing.B, k Kind) {
	for _, keys := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			s := &site{t: b, kind: k, fs: vfs.Default}
			var err error
			if s.store, err = k.Open(vfs.Default, b.TempDir()); err != nil {
				b.Fatal(err)
			}
			e := s.open("e")
			l := loader{b: b, e: e}
			l.load(keys)
			for _, c := range []struct {
				name string
				run  func(*testing.B, *loader)
			}{
				{"Overwrite/batch=1", func(b *testing.B, l *loader) { benchOverwrite(b, l, 1) }},
				{"Overwrite/batch=64", func(b *testing.B, l *loader) { benchOverwrite(b, l, 64) }},
				{"OverwriteHot/batch=64", benchOverwriteHot},
				{"Insert/batch=64", benchInsert},
				{"LoadHot", benchLoadHot},
				{"LoadCold", benchLoadCold},
				{"Subject", benchSubject},
				{"NextSeq", benchNextSeq},
				{"NextSeqWildcard", benchNextSeqWildcard},
				{"Subjects1Percent", benchSubjects},
				{"Count", benchCount},
			} {
				b.Run(c.name, func(b *testing.B) {
					b.ReportAllocs()
					start := cpuTime()
					c.run(b, &l)
					b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
				})
			}
			if err := errors.Join(e.Close(), s.store.Close()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// loader writes keys of 30 bytes with values of 128 bytes, in an order that is not theirs. The
// second token takes 100 values.
type loader struct {
	b     testing.TB
	e     storage.Engine
	keys  int
	value [128]byte
}

func benchKey(i, keys int) string {
	// 7919 is prime to every number of keys that is used here.
	n := i * 7919 % keys
	return fmt.Sprintf("$KV.bucket.%02d.user-%020d", n%100, n)
}

func (l *loader) load(keys int) {
	l.keys = keys
	for at := 0; at < keys; {
		tx := begin(l.e)
		for end := min(at+100, keys); at < end; at++ {
			l.append(tx, benchKey(at, keys))
		}
		l.commit(tx)
	}
	if err := l.e.Checkpoint(); err != nil {
		l.b.Fatal(err)
	}
}

func (l *loader) append(tx storage.Tx, key string) {
	seq := tx.State().LastSeq + 1
	m := storage.Message{Seq: seq, Time: 1_700_000_000_000_000_000 + int64(seq)*20_000, Subject: key, Data: l.value[:]}
	if err := tx.Append(m); err != nil {
		l.b.Fatal(err)
	}
}

// put replaces the message of a key, as a bucket with a history of one does.
func (l *loader) put(tx storage.Tx, key string) {
	if st, ok := tx.Subject(key); ok {
		if _, err := tx.Remove(st.Last); err != nil {
			l.b.Fatal(err)
		}
	}
	l.append(tx, key)
}

func (l *loader) commit(tx storage.Tx) {
	if err := tx.Commit(storage.Applied{Index: tx.Applied().Index + 1, Term: 1}); err != nil {
		l.b.Fatal(err)
	}
}

func benchOverwrite(b *testing.B, l *loader, batch int) {
	for i := 0; i < b.N; {
		tx := begin(l.e)
		for range batch {
			l.put(tx, benchKey(i*31, l.keys))
			i++
		}
		l.commit(tx)
	}
}

// benchOverwriteHot overwrites few keys in turn, so that the oldest message is replaced each time.
func benchOverwriteHot(b *testing.B, l *loader) {
	for i := 0; i < b.N; {
		tx := begin(l.e)
		for range 64 {
			l.put(tx, fmt.Sprintf("$KV.hot.%d", i%1000))
			i++
		}
		l.commit(tx)
	}
}

func benchInsert(b *testing.B, l *loader) {
	prefix := fmt.Sprintf("$KV.other.%d.", b.N)
	for i := 0; i < b.N; {
		tx := begin(l.e)
		for range 64 {
			l.append(tx, prefix+strconv.Itoa(i*7919%1_000_003)+"-"+strconv.Itoa(i))
			i++
		}
		l.commit(tx)
	}
}

func benchLoadHot(b *testing.B, l *loader) {
	last := l.e.State().LastSeq
	for i := range b.N {
		if _, err := l.e.Load(last - uint64(i%100)); err != nil {
			b.Fatal(err)
		}
	}
}

func benchLoadCold(b *testing.B, l *loader) {
	for i := range b.N {
		st, _ := l.e.Subject(benchKey(i, l.keys))
		if _, err := l.e.Load(st.Last); err != nil {
			b.Fatal(err)
		}
	}
}

func benchSubject(b *testing.B, l *loader) {
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = benchKey(i*97, l.keys)
	}
	b.ResetTimer()
	for i := range b.N {
		if _, ok := l.e.Subject(keys[i%len(keys)]); !ok {
			b.Fatal("not there")
		}
	}
}

func benchNextSeq(b *testing.B, l *loader) {
	st := l.e.State()
	filters := []string{"$KV.bucket.>"}
	from := st.FirstSeq
	for range b.N {
		seq, _, ok := l.e.NextSeq(filters, from)
		if from = seq + 1; !ok {
			from = st.FirstSeq
		}
	}
}

func benchNextSeqWildcard(b *testing.B, l *loader) {
	st := l.e.State()
	filters := []string{"$KV.bucket.17.>"}
	from := st.FirstSeq
	for range b.N {
		seq, _, ok := l.e.NextSeq(filters, from)
		if from = seq + 1; !ok {
			from = st.FirstSeq
		}
	}
}

func benchSubjects(b *testing.B, l *loader) {
	keys := 0
	for range b.N {
		l.e.Subjects([]string{"$KV.*.17.>"}, "", func(string, storage.SubjectState) bool {
			keys++
			return true
		})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(max(1, keys)), "ns/key")
}

func benchCount(b *testing.B, l *loader) {
	for range b.N {
		if l.e.Count([]string{"$KV.bucket.17.>"}, 0, false) == 0 {
			b.Fatal("nothing there")
		}
	}
}

// Footprint loads a number of keys and reports what they take of memory, and how long it takes to
// open the engine again.
func Footprint(b *testing.B, k Kind, keys int) {
	root := b.TempDir()
	for range b.N {
		footprint(b, k, keys, root)
	}
}

func footprint(b *testing.B, k Kind, keys int, root string) {
	before := heap()
	store, err := k.Open(vfs.Default, root)
	if err != nil {
		b.Fatal(err)
	}
	s := &site{t: b, kind: k, fs: vfs.Default, store: store}
	l := loader{b: b, e: s.open("e")}
	start, cpu := time.Now(), cpuTime()
	l.load(keys)
	b.ReportMetric(float64(time.Since(start).Nanoseconds())/float64(keys), "load-ns/key")
	b.ReportMetric(float64(cpuTime()-cpu)/float64(keys), "load-cpu-ns/key")
	b.ReportMetric(float64(heap()-before)/float64(keys), "heap-B/key")
	b.ReportMetric(float64(residentBytes())/1e6, "peak-RSS-MB")
	if !k.Volatile {
		if err := l.e.Close(); err != nil {
			b.Fatal(err)
		}
		start, cpu = time.Now(), cpuTime()
		l.e = s.open("e")
		b.ReportMetric(time.Since(start).Seconds(), "open-s")
		b.ReportMetric((cpuTime() - cpu).Seconds(), "open-cpu-s")
	}
	start = time.Now()
	runtime.GC()
	b.ReportMetric(float64(time.Since(start).Milliseconds()), "gc-ms")
	if err := errors.Join(l.e.Close(), store.Close()); err != nil {
		b.Fatal(err)
	}
}

// Digest makes the digest of a million messages, all at once and at the pace at which a server does, and in
// both cases has one put after another committed meanwhile: that is what would be held up.
func Digest(b *testing.B, k Kind) {
	const keys = 1_000_000
	store, err := k.Open(vfs.Default, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s := &site{t: b, kind: k, fs: vfs.Default, store: store}
	e := s.open("e")
	l := &loader{b: b, e: e}
	l.load(keys)
	for _, c := range []struct {
		name string
		rest time.Duration // times what was worked
	}{{"alone", -1}, {"pace=all", 0}, {"pace=quarter", 3}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				var stop atomic.Bool
				var puts []time.Duration
				var wg sync.WaitGroup
				if c.rest >= 0 {
					wg.Go(func() {
						for i := 0; !stop.Load(); i++ {
							began := time.Now()
							tx := e.Begin()
							l.put(tx, benchKey(i%keys, keys))
							l.commit(tx)
							puts = append(puts, time.Since(began))
							time.Sleep(time.Millisecond)
						}
					})
				}
				f := e.Freeze()
				began, cpu := time.Now(), cpuTime()
				last := began
				_, err := storage.DigestOf(f, func() error {
					time.Sleep(max(0, c.rest) * time.Since(last))
					last = time.Now()
					return nil
				})
				took := time.Since(began)
				stop.Store(true)
				wg.Wait()
				f.Release()
				if err != nil {
					b.Fatal(err)
				}
				slices.Sort(puts)
				if n := len(puts); n > 0 {
					b.ReportMetric(float64(puts[n/2].Microseconds()), "put-p50-us")
					b.ReportMetric(float64(puts[n*99/100].Microseconds()), "put-p99-us")
				}
				b.ReportMetric(took.Seconds(), "s")
				b.ReportMetric((cpuTime() - cpu).Seconds(), "cpu-s")
			}
		})
	}
	if err := errors.Join(e.Close(), s.store.Close()); err != nil {
		b.Fatal(err)
	}
}

// cpuTime is what the process has used of the processors: on a machine that others use too, a
// steadier figure than the time that passed.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// residentBytes is the largest resident size the process has had; 0 if that is not known.
func residentBytes() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kb << 10
		}
	}
	return 0
}
