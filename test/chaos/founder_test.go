//go:build linux && faults

package chaos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// keptBuckets is how many of its buckets a founder leaves alone before it deletes the oldest.
const keptBuckets = 8

// founder is a client that creates buckets of both engines, puts a few values into each and deletes
// them again, and knows what it was told of that.
type founder struct {
	*session
	mu   sync.Mutex // held over one operation, and over a verification
	made []*madeBucket

	created, deleted int // acknowledged
}

// madeBucket is a bucket as its founder knows it.
type madeBucket struct {
	name             string
	created, deleted outcome
	values           map[string]string // acknowledged, by key
}

func newFounder(t *testing.T, server *process.Server) *founder {
	return &founder{session: newSession(t, server)}
}

func (f *founder) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("%d buckets created, %d deleted", f.created, f.deleted)
}

// start works until stop is called.
func (f *founder) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			f.round(n)
			time.Sleep(20 * time.Millisecond) // The load is the business of the writers.
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (f *founder) round(n int) {
	b := &madeBucket{name: "made-" + strconv.Itoa(n), values: map[string]string{}}
	cfg := jetstream.KeyValueConfig{Bucket: b.name, Metadata: map[string]string{"cleat.storage": []string{"file", "rocksdb"}[n%2]}}
	var kv jetstream.KeyValue
	f.do(func(ctx context.Context) (err error) {
		f.made = append(f.made, b)
		kv, err = f.js.CreateKeyValue(ctx, cfg)
		b.created = judgeError(err)
		return err
	})
	for i := 0; i < 3 && b.created == acknowledged; i++ {
		key, value := strconv.Itoa(i), fmt.Sprint(n, "-", i)
		f.do(func(ctx context.Context) error {
			_, err := kv.Put(ctx, key, []byte(value))
			if err == nil {
				b.values[key] = value
			}
			return err
		})
	}
	if b.created == acknowledged {
		f.created++
	}
	if n < keptBuckets {
		return
	}
	old := f.made[n-keptBuckets]
	f.do(func(ctx context.Context) error {
		err := f.js.DeleteKeyValue(ctx, old.name)
		if old.deleted = judgeError(err); errors.Is(err, jetstream.ErrBucketNotFound) {
			old.deleted = refused // Its creation did not happen.
		}
		if err == nil {
			f.deleted++
		}
		return err
	})
}

func (f *founder) do(operation func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, cancel := f.operation()
	defer cancel()
	_ = operation(ctx) // Whoever asks notes what became of it.
}

// verify returns what the server has forgotten or brought back.
func (f *founder) verify() (problems []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.made {
		if problem := f.check(b); problem != "" {
			problems = append(problems, problem)
		}
	}
	return problems
}

func (f *founder) check(b *madeBucket) string {
	if b.created != acknowledged || b.deleted == unknown {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	kv, err := f.js.KeyValue(ctx, b.name)
	if b.deleted == acknowledged {
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			return fmt.Sprintf("BACK: bucket %s was deleted, looking it up gives: %v", b.name, err)
		}
		return ""
	}
	if err != nil {
		return fmt.Sprintf("LOST: bucket %s was created, looking it up gives: %v", b.name, err)
	}
	for key, value := range b.values {
		entry, err := kv.Get(ctx, key)
		if err != nil || string(entry.Value()) != value {
			return fmt.Sprintf("LOST: %s=%s of bucket %s was acknowledged; a get gives: %v", key, value, b.name, err)
		}
	}
	return ""
}
