package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// TestChaosRebirth deletes a bucket and creates one of the same name, again and again, while servers are killed,
// and some are away meanwhile. From the moment on at which a bucket was created nobody may see
// a value, a revision or a watcher's message of the one before.
func TestChaosRebirth(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("faults are drawn from -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	servers := process.NewCluster(t, 4, "") // Three of which a bucket can be created on while one is away.
	var sessions []*session
	for _, s := range servers {
		sessions = append(sessions, newSession(t, s))
	}
	for life := range *kills {
		config := jetstream.KeyValueConfig{Bucket: bucket, Replicas: 3, Metadata: map[string]string{"cleat.storage": []string{"file", "rocksdb"}[life%2]}}
		away := random.Intn(len(servers))
		up := (away + 1 + random.Intn(len(servers)-1)) % len(servers)
		untilDone(t, "create", func(ctx context.Context) error {
			_, err := sessions[up].js.CreateKeyValue(ctx, config)
			return err
		})
		began := time.Now()
		for n := range 30 {
			untilDone(t, "put", func(ctx context.Context) error {
				kv, err := sessions[up].js.KeyValue(ctx, bucket)
				if err != nil {
					return err
				}
				_, err = kv.Put(ctx, fmt.Sprint("k", n), fmt.Append(nil, life, "-", n))
				return err
			})
			if n == 10 {
				servers[away].Kill()
			}
		}
		if random.Intn(2) == 0 { // It comes back to the same bucket, and dies again.
			if err := servers[away].Start(); err != nil {
				t.Fatal(err)
			}
			servers[away].Kill()
		}
		untilDone(t, "delete", func(ctx context.Context) error {
			err := sessions[up].js.DeleteKeyValue(ctx, bucket)
			if errors.Is(err, jetstream.ErrBucketNotFound) {
				return nil // By an attempt whose answer was lost.
			}
			return err
		})
		config.History = 2 // Not the same, so that it is not taken for what was there.
		untilDone(t, "create again", func(ctx context.Context) error {
			_, err := sessions[up].js.CreateKeyValue(ctx, config)
			return err
		})
		untilDone(t, "put again", func(ctx context.Context) error {
			kv, err := sessions[up].js.KeyValue(ctx, bucket)
			if err != nil {
				return err
			}
			_, err = kv.Put(ctx, "k0", fmt.Append(nil, life, "-again"))
			return err
		})
		if err := servers[away].Start(); err != nil {
			t.Fatal(err)
		}
		for i, s := range sessions {
			newborn(t, i, s, fmt.Sprint(life, "-again"))
		}
		untilDone(t, "delete again", func(ctx context.Context) error {
			err := sessions[away].js.DeleteKeyValue(ctx, bucket)
			if errors.Is(err, jetstream.ErrBucketNotFound) {
				return nil
			}
			return err
		})
		t.Logf("life %d, n%d away: %s", life+1, away, time.Since(began).Round(time.Millisecond))
		if t.Failed() {
			return
		}
	}
}

// newborn demands of a server that it shows the new bucket, with one value, and nothing of the old one.
func newborn(t *testing.T, server int, s *session, want string) {
	t.Helper()
	untilDone(t, "read", func(ctx context.Context) error {
		kv, err := s.js.KeyValue(ctx, bucket)
		if err != nil {
			return err
		}
		w, err := kv.WatchAll(ctx, jetstream.IncludeHistory())
		if err != nil {
			return err
		}
		defer w.Stop()
		for n := 0; ; n++ {
			select {
			case e := <-w.Updates():
				switch {
				case e == nil && n == 1:
				case e == nil:
					t.Errorf("n%d: %d values are watched", server, n)
				case string(e.Value()) != want:
					t.Errorf("n%d: a watcher sees %s=%s@%d", server, e.Key(), e.Value(), e.Revision())
				default:
					continue
				}
			case <-ctx.Done():
				return ctx.Err()
			}
			break
		}
		e, err := kv.Get(ctx, "k0")
		if err != nil {
			return err
		}
		if string(e.Value()) != want {
			t.Errorf("n%d: k0 is %s", server, e.Value())
		}
		for n := 1; n < 30; n++ {
			if e, err := kv.Get(ctx, fmt.Sprint("k", n)); err == nil {
				t.Errorf("n%d: %s=%s of the bucket before", server, e.Key(), e.Value())
			} else if !errors.Is(err, jetstream.ErrKeyNotFound) {
				return err
			}
		}
		return nil
	})
}

// untilDone repeats what is refused, or has no answer, because servers are killed.
func untilDone(t *testing.T, what string, do func(ctx context.Context) error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		err = do(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
