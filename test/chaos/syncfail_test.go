//go:build linux && faults

package chaos

import (
	"flag"
	"fmt"
	"math/rand"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

var syncFailures = flag.Int("syncfailures", 5, "how many servers meet a sync that fails")

// syncFailed is what the server has to say of it: what failed, on which file and disk, and what to do.
var syncFailed = regexp.MustCompile(`\[FTL\].*sync \S+: input/output error: the disk of \S+ .*check the disk`)

// TestSyncFailure lets a sync fail under load. The server has to stop and to say why; what it had not
// synced by then is taken from it by a power cut, and nothing acknowledged may have been in that.
func TestSyncFailure(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("replay with: go test -tags faults ./test/chaos -run TestSyncFailure -v -syncfailures %d -clients %d -seed %d", *syncFailures, *clients, *seed)
	random := rand.New(rand.NewSource(*seed))
	total := map[outcome]int{}
	for range *syncFailures {
		dir := t.TempDir()
		disk := newVolume(t, filepath.Join(dir, "data"))
		server := openServer(t, dir, nil)
		books := []*ledger{newLedger("file"), newLedger("rocksdb")}
		for _, book := range books {
			createBucket(t, server, book.bucket, book.bucket, 1)
		}
		server.Kill()

		// strace counts the calls of each thread alone; the first that comes so far fails.
		inject := fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d", 20+random.Intn(200))
		server.Command = traced(t, "-e", "trace=fsync,fdatasync", "-e", inject)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		stop := writeTo(t, server, books)
		status, err := server.Wait(time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", inject, err)
		}
		if status.ExitCode() <= 0 {
			t.Errorf("%s: the server ended with %s, want an exit code other than 0", inject, status)
		}
		if said := syncFailed.FindString(server.LogTail(40)); said != "" {
			t.Logf("%s: %s: %s", inject, status, said)
		} else {
			t.Errorf("%s: the server does not say what failed", inject)
		}
		stop()

		disk.shutdown(t, journalLost)
		disk.unmount(t)
		disk.mount(t)
		server.Command = nil
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		for _, book := range books {
			stored, err := readStored(t, server, book.bucket, 1)
			if err != nil {
				t.Fatal(err)
			}
			book.verifyAll(t, stored)
			for o, n := range book.count() {
				total[o] += n
			}
		}
		server.Kill()
		if t.Failed() {
			break
		}
	}
	t.Logf("%d servers met a failing sync: %d writes acknowledged, %d refused, %d of unknown outcome",
		*syncFailures, total[acknowledged], total[refused], total[unknown])
}
