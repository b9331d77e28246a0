//go:build linux && faults

package chaos

import (
	"context"
	"flag"
	"math/rand"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cleatkv/cleat/test/process"
)

var cuts = flag.Int("cuts", 20, "how often the power is cut")

const (
	// Between a server being checked and its next power cut.
	cutAfterMin = 50 * time.Millisecond
	cutAfterMax = 600 * time.Millisecond
)

// lyingSyncs runs a server whose syncs succeed and do nothing.
var lyingSyncs = []string{"-e", "trace=fsync,fdatasync,sync_file_range,msync", "-e", "inject=fsync,fdatasync,sync_file_range,msync:retval=0"}

// TestPowerCut cuts the power under load again and again: everything acknowledged has to be there, in
// buckets of both engines on disk, and so have buckets that were created meanwhile.
func TestPowerCut(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("replay the cuts with: go test -tags faults ./test/chaos -run 'TestPowerCut$' -v -cuts %d -clients %d -seed %d", *cuts, *clients, *seed)
	random := rand.New(rand.NewSource(*seed))
	dir := t.TempDir()
	disk := newVolume(t, filepath.Join(dir, "data"))
	server := openServer(t, dir, nil)
	books := []*ledger{newLedger("file"), newLedger("rocksdb")}
	stop := startLoad(t, server, books)
	made := newFounder(t, server)
	stopFounder := made.start()

	began := time.Now()
	var slowest time.Duration
	for cycle := range *cuts {
		time.Sleep(cutAfterMin + time.Duration(random.Int63n(int64(cutAfterMax-cutAfterMin))))
		journal := journalLost
		if random.Intn(4) == 0 {
			journal = journalFlushed
		}
		disk.cutPower(t, server, journal)
		up := time.Now()
		if err := server.Start(); err != nil {
			t.Fatalf("cut %d: %v\n%s", cycle+1, err, server.LogTail(40))
		}
		slowest = max(slowest, time.Since(up))
		acked := 0
		for _, book := range books {
			n, lost := verifyBook(t, server, book)
			acked += n
			for _, line := range lost {
				t.Errorf("cut %d: %s", cycle+1, line)
			}
		}
		for _, problem := range made.verify() {
			t.Errorf("cut %d: %s", cycle+1, problem)
		}
		if t.Failed() {
			break
		}
		if (cycle+1)%10 == 0 {
			t.Logf("cut %d: %d writes acknowledged so far, 0 lost; %s", cycle+1, acked, made)
		}
	}
	stop()
	stopFounder()

	total := map[outcome]int{}
	for _, book := range books {
		stored, err := readStored(t, server, book.bucket, 1)
		if err != nil {
			t.Fatal(err)
		}
		book.verifyAll(t, stored)
		verifyGets(t, server, book.bucket, stored)
		for o, n := range book.count() {
			total[o] += n
		}
	}
	t.Logf("%d power cuts in %s, %d clients, seed %d: %d writes acknowledged, %d refused, %d of unknown outcome; %s; slowest start %s",
		*cuts, time.Since(began).Round(time.Second), *clients, *seed, total[acknowledged], total[refused], total[unknown], made, slowest.Round(time.Millisecond))
	if total[acknowledged] < *cuts**clients {
		t.Errorf("only %d writes were acknowledged: there was no load", total[acknowledged])
	}
}

// TestPowerCutLosesWithoutSync shows that TestPowerCut can fail: a server whose syncs do nothing
// loses what it acknowledged.
func TestPowerCutLosesWithoutSync(t *testing.T) {
	var acked, lost int
	for range 3 {
		dir := t.TempDir()
		disk := newVolume(t, filepath.Join(dir, "data"))
		server := openServer(t, dir, nil)
		books := []*ledger{newLedger("file"), newLedger("rocksdb")}
		createBucket(t, server, "file", "file", 1)
		createBucket(t, server, "rocksdb", "rocksdb", 1)
		server.Kill()

		server.Command = traced(t, lyingSyncs...)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		stop := writeTo(t, server, books)
		time.Sleep(time.Second)
		disk.cutPower(t, server, journalLost)
		stop()

		server.Command = nil
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		for _, book := range books {
			n, missing := verifyBook(t, server, book)
			acked += n
			lost += len(missing)
		}
	}
	t.Logf("without syncs: %d writes acknowledged, %d lost", acked, lost)
	if lost == 0 {
		t.Error("nothing is lost without syncs: the test cuts no power")
	}
}

// openServer starts a server on dir until the test ends; see process.OpenCommand.
func openServer(t *testing.T, dir string, command []string) *process.Server {
	t.Helper()
	server, err := process.OpenCommand(dir, "", command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("server log, last lines:\n%s", server.LogTail(40))
		}
		server.Close()
	})
	return server
}

// startLoad creates a bucket for each ledger, on the engine of that name, and writes to it.
func startLoad(t *testing.T, server *process.Server, books []*ledger) (stop func()) {
	t.Helper()
	for _, book := range books {
		createBucket(t, server, book.bucket, book.bucket, 1)
	}
	return writeTo(t, server, books)
}

// writeTo divides the clients among the ledgers and lets them write until stop is called.
func writeTo(t *testing.T, server *process.Server, books []*ledger) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	for n := range *clients {
		w := newWriter(t, server, books[n%len(books)], n)
		load.Go(func() { w.run(ctx) })
	}
	stop = func() { cancel(); load.Wait() }
	t.Cleanup(stop)
	return stop
}

// verifyBook looks for what was acknowledged since the last time. A bucket that cannot be read has
// lost everything.
func verifyBook(t *testing.T, server *process.Server, book *ledger) (acked int, lost []string) {
	t.Helper()
	known := book.snapshot()
	stored, err := readStored(t, server, book.bucket, book.verified+1)
	if err != nil {
		return book.count()[acknowledged], []string{err.Error()}
	}
	return book.verifyAcked(known, stored)
}
