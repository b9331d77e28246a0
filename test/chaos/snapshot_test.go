package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

var stateMiB = flag.Int("mib", 20, "size of the state that a server is sent which was away for long")

// What a break of the connection may cost: what was on its way.
const lostAtOnce = 4 << 20

var sentState = regexp.MustCompile(`sent the state of stream \S+ > KV_\S+ to server "n2": (\d+) bytes in (\S+), (\d+) bytes of them again since the connection was lost (\d+) times`)

// TestChaosSnapshotResume lets a server be away until the logs of the others do not reach back to it. It
// is sent the whole state then, and the connections break on the way, twice, while clients write: what
// had arrived is not sent again, and one state is enough.
func TestChaosSnapshotResume(t *testing.T) {
	f := newFleet(t, true)
	f.servers[2].Kill()
	for i := range 1500 { // More log entries than stay for those who are a little late.
		if _, err := f.kvs[0].Put(context.Background(), fmt.Sprintf("small.%d", i%10), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	last := f.fill(*stateMiB << 20)
	time.Sleep(2 * time.Second) // The engines' checkpoints, and then the logs are cut.

	f.network.Slow(max(8, *stateMiB/8) << 20)
	if err := f.servers[2].Launch(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	third := int64(*stateMiB) << 20 / 3
	f.untilArrived(third)
	f.breakFrom(2)
	f.writers()
	f.untilArrived(2 * third)
	f.breakFrom(2)
	f.untilHealth(2, true, 2*time.Minute)
	f.network.Slow(0)
	t.Logf("healthy after %s", time.Since(began).Round(time.Millisecond))
	f.judgeFrom(last + 1)
	f.sentOnce()
}

// breakFrom resets all connections of a server.
func (f *fleet) breakFrom(server int) {
	for _, other := range f.others(server) {
		f.network.Reset(server, other)
	}
}

// fill puts so many bytes, in values that can not be compressed, and returns the last revision.
func (f *fleet) fill(bytes int) uint64 {
	f.t.Helper()
	nc := f.servers[0].Connect(f.t)
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		f.t.Fatal(err)
	}
	value := make([]byte, 16<<10)
	rng := rand.NewChaCha8([32]byte{})
	var last jetstream.PubAckFuture
	for n := 0; n < bytes; n += len(value) {
		_, _ = rng.Read(value)
		if last, err = js.PublishAsync(fmt.Sprintf("$KV.%s.large.%d", bucket, n), value, jetstream.WithStallWait(time.Minute)); err != nil {
			f.t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(2 * time.Minute):
		f.t.Fatal("not all was acknowledged")
	}
	select {
	case err := <-last.Err():
		f.t.Fatal(err)
	case ack := <-last.Ok():
		return ack.Sequence
	}
	return 0
}

// untilArrived waits until so much of a state has come to n2.
func (f *fleet) untilArrived(bytes int64) {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(f.servers[2].Dir, "data", "incoming", "*.in"))
		if err != nil {
			f.t.Fatal(err)
		}
		for _, file := range files {
			if st, err := os.Stat(file); err == nil && st.Size() >= bytes {
				return
			}
		}
	}
	f.t.Fatalf("no state of %d bytes comes to n2", bytes)
}

// sentOnce reads from the logs what was sent.
func (f *fleet) sentOnce() {
	f.t.Helper()
	var all [][]string
	for _, s := range f.servers {
		all = append(all, sentState.FindAllStringSubmatch(s.LogTail(1<<20), -1)...)
	}
	if len(all) != 1 {
		f.t.Fatalf("%d states were sent, want one: %q", len(all), all)
	}
	f.t.Log(all[0][0])
	size, _ := strconv.Atoi(all[0][1])
	again, _ := strconv.Atoi(all[0][3])
	broken, _ := strconv.Atoi(all[0][4])
	if size < *stateMiB<<20 || broken < 1 || again > broken*lostAtOnce {
		f.t.Errorf("%d bytes, %d of them again after %d breaks", size, again, broken)
	}
}
