package compat

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// What an account holds is kept within its limits, wherever its buckets are and whoever writes; what is purged can be
// written again. Another account is not concerned.
func TestClusterAccountQuota(t *testing.T) {
	servers := process.NewCluster(t, 4, `accounts {
  A { users: [{user: a, password: a}], jetstream { max_file: 1MB } }
  B { users: [{user: b, password: b}], jetstream: enabled }
}
no_auth_user: b`)
	ctx := testContext(t)
	open := func(s *process.Server, user string) jetstream.JetStream {
		js, err := jetstream.New(s.Connect(t, nats.UserInfo(user, user), nats.IgnoreDiscoveredServers()))
		must(t, err)
		return js
	}
	var as []jetstream.JetStream
	var buckets []jetstream.KeyValue
	for _, s := range servers {
		as = append(as, open(s, "a"))
	}
	for i, replicas := range []int{1, 3} {
		kv, err := as[i].CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: fmt.Sprint("q", i), Replicas: replicas})
		must(t, err)
		buckets = append(buckets, kv)
	}
	value := []byte(strings.Repeat("v", 20_000))
	full := func(err error) bool {
		var refused *jetstream.APIError
		return errors.As(err, &refused) && refused.ErrorCode == 10002
	}
	fill := func() (stored int) {
		for i := 0; ; i++ {
			kv, err := as[i%len(as)].KeyValue(ctx, fmt.Sprint("q", i%len(buckets)))
			must(t, err)
			if _, err := kv.Put(ctx, fmt.Sprint("k", i), value); full(err) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if stored += len(value); stored > 4<<20 { // Each server may let through what the last count has left.
				t.Fatalf("%d bytes are stored in an account that may hold %d", stored, 1<<20)
			}
		}
		if stored < 1<<19 {
			t.Errorf("full with %d bytes", stored)
		}
		return stored
	}
	fill()
	eventually(t, "every server refuses", func() bool {
		for i := range as {
			kv, err := as[i].KeyValue(ctx, "q0")
			must(t, err)
			if _, err := kv.Put(ctx, "k", value); !full(err) {
				return false
			}
		}
		return true
	})
	must(t, buckets[0].Delete(ctx, "k0"))
	other, err := open(servers[0], "b").CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "q"})
	must(t, err)
	_, err = other.Put(ctx, "k", value)
	must(t, err)

	for i := range buckets {
		st, err := as[0].Stream(ctx, fmt.Sprint("KV_q", i))
		must(t, err)
		must(t, st.Purge(ctx))
	}
	eventually(t, "room again", func() bool {
		for i := range as {
			kv, err := as[i].KeyValue(ctx, "q1")
			must(t, err)
			if _, err := kv.Put(ctx, "k", value); err != nil {
				return false
			}
		}
		return true
	})
}
