package chaos

import (
	"context"
	"errors"
	"math/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// TestChaosScale changes how many replicas a bucket has, and lets servers go and come, under load, and kills
// a server on the way each time. Nothing acknowledged may be lost, whoever holds it in the end.
func TestChaosScale(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("faults are drawn from -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	f := field{}
	f.servers, f.network = process.NewNetworkedCluster(t, 5, "")
	book := newLedger(bucket)
	createBucket(t, f.servers[0], bucket, []string{"file", "rocksdb"}[random.Intn(2)], 1)
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	for i, s := range f.servers {
		w := newWriter(t, s, book, i)
		load.Go(func() { w.run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		load.Wait()
	})
	for step, replicas := range steps(*kills) {
		victim := random.Intn(len(f.servers))
		var change sync.WaitGroup
		began := time.Now()
		change.Go(func() { f.scale(t, replicas) })
		time.Sleep(time.Duration(random.Int63n(int64(400 * time.Millisecond))))
		f.servers[victim].Kill()
		time.Sleep(time.Duration(random.Int63n(int64(2 * time.Second))))
		if err := f.servers[victim].Start(); err != nil {
			t.Fatalf("n%d: %v\n%s", victim, err, f.servers[victim].LogTail(30))
		}
		change.Wait()
		t.Logf("step %d: %d replicas with n%d killed on the way, after %s", step+1, replicas, victim, time.Since(began).Round(time.Millisecond))
		if t.Failed() {
			return
		}
		time.Sleep(time.Duration(random.Int63n(int64(time.Second))))
	}
	cancel()
	load.Wait()
	stored, err := readStored(t, f.servers[0], bucket, 1)
	if err != nil {
		t.Fatal(err)
	}
	problems := book.verifyAll(t, stored)
	for _, s := range f.servers {
		verifyGets(t, s, bucket, stored)
	}
	total := book.count()
	t.Logf("%d writes acknowledged, %d lost or wrong; %d refused, %d of unknown outcome", total[acknowledged], problems, total[refused], total[unknown])
}

// steps are numbers of replicas to change to, each from the one before.
func steps(n int) []int {
	return slices.Repeat([]int{3, 5, 3, 1}, n/4+1)[:max(n, 1)]
}

// scale asks until the bucket has so many replicas, and waits until all of them have what there is.
func (f *field) scale(t *testing.T, replicas int) {
	t.Helper()
	var last error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, s := range f.servers {
			if last = scaled(s, replicas); last == nil {
				return
			}
		}
	}
	t.Errorf("%d replicas: %v", replicas, last)
}

var errLags = errors.New("a replica lags")

func scaled(s *process.Server, replicas int) error {
	nc, err := nats.Connect(s.URL(), nats.Timeout(300*time.Millisecond), nats.MaxReconnects(0))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	if info.Config.Replicas != replicas {
		info.Config.Replicas = replicas
		if _, err := js.UpdateStream(ctx, info.Config); err != nil {
			return err
		}
	}
	if info, err = stream.Info(ctx); err != nil {
		return err
	}
	if info.Cluster == nil || len(info.Cluster.Replicas) != replicas-1 {
		return errLags
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current {
			return errLags
		}
	}
	return nil
}
