package chaos

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/cleatkv/cleat/test/process"
)

// A server without a replica has reads answered by one that has one. If that is cut off from the others it asks the
// next one, and its clients notice nothing.
func TestReadsGoToAnotherReplica(t *testing.T) {
	o := &outsiders{t: t, down: make(map[int]bool)}
	o.servers, o.network = process.NewNetworkedCluster(t, 4, "")
	createBucket(t, o.servers[0], bucket, "file", 3)
	o.buckets = []outsiderBucket{{name: bucket, replicas: 3}}
	o.survey()
	members := o.buckets[0].members
	out := slices.IndexFunc([]int{0, 1, 2, 3}, func(i int) bool { return !slices.Contains(members, i) })
	kv, err := newSession(t, o.servers[out]).js.KeyValue(context.Background(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	untilDone(t, "put", func(ctx context.Context) error {
		_, err := kv.Put(ctx, "k", []byte("v"))
		return err
	})
	for _, cut := range members[:2] { // The leader, and a follower of whoever leads then or the same one again.
		for _, m := range members {
			if m != cut {
				o.network.Part(cut, m)
			}
		}
		f := &fleet{t: t, servers: o.servers}
		f.untilHealth(cut, false, 10*time.Second)
		for n := range 12 {
			ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
			_, err := kv.Get(ctx, "k")
			cancel()
			if err != nil {
				t.Errorf("read %d at n%d, with n%d of %v cut off: %v", n, out, cut, members, err)
			}
		}
		o.network.Heal()
		f.untilHealth(cut, true, 20*time.Second)
	}
}
