package compat

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// follower notes the revisions that one client was told, in the order in which it was.
type follower struct {
	what string
	mu   sync.Mutex
	seen []uint64
}

func (f *follower) note(revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, revision)
}

func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

// check finds what was left out, repeated or out of order, of the revisions from 1 on.
func (f *follower) check(t *testing.T, last uint64) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, revision := range f.seen {
		if revision != uint64(i+1) {
			t.Errorf("%s: revision %d came as number %d", f.what, revision, i+1)
			return
		}
	}
	if len(f.seen) != int(last) {
		t.Errorf("%s: %d of %d revisions", f.what, len(f.seen), last)
	}
}

// roaming connects to one server of a cluster and goes on to the others when that is lost.
func roaming(t *testing.T, servers []*process.Server, first int) *nats.Conn {
	t.Helper()
	var urls []string
	for i := range servers {
		urls = append(urls, servers[(first+i)%len(servers)].URL())
	}
	nc, err := nats.Connect(strings.Join(urls, ","), nats.DontRandomize(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// follow watches the bucket in all ways there are in Go, through clients of that server at first.
func follow(t *testing.T, servers []*process.Server, first int, bucket string) []*follower {
	t.Helper()
	ctx := testContext(t)
	named := func(what string) *follower { return &follower{what: fmt.Sprintf("%s at n%d", what, first)} }

	watcher, nc := named("watcher"), roaming(t, servers, first)
	js, err := jetstream.New(nc)
	must(t, err)
	kv, err := js.KeyValue(ctx, bucket)
	must(t, err)
	w, err := kv.WatchAll(ctx, jetstream.IncludeHistory())
	must(t, err)
	go func() { // Ends with the watcher.
		for e := range w.Updates() {
			if e != nil {
				watcher.note(e.Revision())
			}
		}
	}()
	t.Cleanup(func() { _ = w.Stop() })

	ordered := named("ordered consumer")
	js, err = jetstream.New(roaming(t, servers, first))
	must(t, err)
	c, err := js.OrderedConsumer(ctx, "KV_"+bucket, jetstream.OrderedConsumerConfig{})
	must(t, err)
	consume, err := c.Consume(func(m jetstream.Msg) {
		if meta, err := m.Metadata(); err == nil {
			ordered.note(meta.Sequence.Stream)
		}
	}, jetstream.PullHeartbeat(time.Second), jetstream.PullExpiry(5*time.Second))
	must(t, err)
	t.Cleanup(consume.Stop)

	push := named("ordered push subscription")
	legacy, err := roaming(t, servers, first).JetStream()
	must(t, err)
	sub, err := legacy.Subscribe("$KV."+bucket+".>", func(m *nats.Msg) {
		if meta, err := m.Metadata(); err == nil {
			push.note(meta.Sequence.Stream)
		}
	}, nats.OrderedConsumer(), nats.IdleHeartbeat(time.Second))
	must(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return []*follower{watcher, ordered, push}
}

// followJS watches the bucket with both JavaScript packages, in processes that end with the test.
// Where there is no JavaScript, TestJS says so.
func followJS(t *testing.T, servers []*process.Server, first int, bucket string, include ...string) []*follower {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		return nil
	}
	if _, err := os.Stat("js/node_modules"); err != nil {
		return nil
	}
	var urls []string
	for i := range servers {
		urls = append(urls, servers[(first+i)%len(servers)].Addr)
	}
	var all []*follower
	for _, pkg := range []string{"nats", "@nats-io/kv"} {
		cmd := exec.Command(node, append([]string{"watch.js", bucket, pkg}, include...)...)
		cmd.Env = append(os.Environ(), "CLEAT_COMPAT_URLS="+strings.Join(urls, ","))
		all = append(all, followProcess(t, cmd, fmt.Sprintf("watcher of %s at n%d", pkg, first)))
	}
	return all
}

// followProcess notes what a program prints.
func followProcess(t *testing.T, cmd *exec.Cmd, what string) *follower {
	t.Helper()
	cmd.Dir, cmd.Stderr = "js", os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	f := &follower{what: what}
	ready := make(chan struct{})
	var read sync.WaitGroup
	read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			revision, err := strconv.ParseUint(lines.Text(), 10, 64)
			switch {
			case err != nil:
				return // What comes is no revision: there will be too few.
			case revision == 0:
				close(ready)
			default:
				f.note(revision)
			}
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		read.Wait()
		_ = cmd.Wait()
	})
	select {
	case <-ready:
	case <-time.After(2 * wait):
		t.Fatalf("the %s does not begin", what)
	}
	return f
}

// Watchers and ordered consumers are told every revision once and in order, whether the server dies
// that they are connected to, or the one that leads the bucket, or the lead goes to another.
func TestClusterWatchersSurviveServers(t *testing.T) {
	servers := process.NewCluster(t, 3, "")
	ctx := testContext(t)
	writer, err := jetstream.New(roaming(t, servers, 0))
	must(t, err)
	kv, err := writer.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", Replicas: 3, History: 64})
	must(t, err)
	last, n := uint64(0), 0
	write := func(count int) {
		t.Helper()
		for range count {
			untilDone(t, func() error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				revision, err := kv.Put(ctx, fmt.Sprint("k", n%32), fmt.Append(nil, n))
				last = max(last, revision)
				return err
			})
			n++
		}
	}
	leader := func() int {
		t.Helper()
		var lead int
		untilDone(t, func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			s, err := writer.Stream(ctx, "KV_b")
			if err != nil {
				return err
			}
			c := s.CachedInfo().Cluster
			for _, r := range c.Replicas {
				if !r.Current {
					return fmt.Errorf("%s lags", r.Name)
				}
			}
			_, err = fmt.Sscanf(c.Leader, "n%d", &lead)
			return err
		})
		return lead
	}
	write(50)
	var all []*follower
	for i := range servers {
		all = append(all, follow(t, servers, i, "b")...)
		all = append(all, followJS(t, servers, i, "b")...)
	}
	write(50)
	for _, plus := range []int{0, 1, 2, 0} { // The leader, others, and the leader again.
		victim := (leader() + plus) % 3
		servers[victim].Kill()
		write(100)
		must(t, servers[victim].Start())
		write(20)
	}
	lead := leader()
	_, err = writer.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN.KV_b", nil, wait)
	must(t, err)
	write(100)
	s, err := writer.Stream(ctx, "KV_b")
	must(t, err)
	last = s.CachedInfo().State.LastSeq
	if now := s.CachedInfo().Cluster.Leader; now == fmt.Sprint("n", lead) {
		t.Fatalf("%s leads still", now)
	}
	// A consumer that was made in the last moment of its server is unknown to others: then it is the client that
	// finds out, in JavaScript after 57 s.
	for end := time.Now().Add(12 * wait); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		late := 0
		for _, f := range all {
			if f.count() < int(last) {
				late++
			}
		}
		if late == 0 {
			break
		}
	}
	for _, f := range all {
		f.check(t, last)
	}
}

// A watcher goes on within seconds when the server that delivered to it dies, also one whose client
// looks for its consumer once a minute only, and though nothing was written meanwhile.
func TestPromiseWatchersGoOnSoon(t *testing.T) {
	servers := process.NewCluster(t, 3, "")
	ctx := testContext(t)
	writer, err := jetstream.New(roaming(t, servers, 2))
	must(t, err)
	kv, err := writer.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", Replicas: 3, History: 64})
	must(t, err)
	put := func() (last uint64) {
		t.Helper()
		untilDone(t, func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			last, err = kv.Put(ctx, "k", nil)
			return err
		})
		return last
	}
	arrives := func(f *follower, last uint64) {
		t.Helper()
		untilDone(t, func() error {
			if n := f.count(); n < int(last) {
				return fmt.Errorf("%s: %d of %d revisions", f.what, n, last)
			}
			return nil
		})
	}
	put()
	all := append(followJS(t, servers, 0, "b"), follow(t, servers, 0, "b")...)
	for _, f := range all {
		arrives(f, 1)
	}
	time.Sleep(2 * time.Second) // Only what lasts is known to other servers.
	servers[0].Kill()
	time.Sleep(2 * time.Second) // The clients are connected elsewhere by now.
	last := put()
	for _, f := range all {
		arrives(f, last)
	}
	for _, f := range all {
		f.check(t, last)
	}
}

// So it does when the leader knows nothing of it: it was away while the watcher was made, and has not met its server since.
func TestPromiseClusterWatchersGoOnWithoutWitness(t *testing.T) {
	servers, network := process.NewNetworkedCluster(t, 3, operators)
	ctx := testContext(t)
	writer, err := jetstream.New(roaming(t, servers, 1))
	must(t, err)
	kv, err := writer.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", Replicas: 3})
	must(t, err)
	sys, err := nats.Connect(servers[1].URL(), nats.UserInfo("sys", "sys"))
	must(t, err)
	t.Cleanup(sys.Close)
	lead := func(nc *nats.Conn, group, server string) {
		t.Helper()
		untilDone(t, func() error {
			m, err := nc.Request("$JS.API."+group, fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, server), time.Second)
			if err == nil && !strings.Contains(string(m.Data), "is already leader") {
				err = fmt.Errorf("%s to %s: %s", group, server, m.Data)
			}
			return err
		})
	}
	lead(sys, "META.LEADER.STEPDOWN", "n1") // From whom n2 can hear of the bucket, when it does not see n0.
	lead(writer.Conn(), "STREAM.LEADER.STEPDOWN.KV_b", "n1")
	servers[2].Kill()
	js, err := roaming(t, servers, 0).JetStream()
	must(t, err)
	came := make(chan struct{}, 1)
	_, err = js.Subscribe("$KV.b.>", func(*nats.Msg) { came <- struct{}{} }, nats.OrderedConsumer(), nats.IdleHeartbeat(2*time.Minute))
	must(t, err)
	time.Sleep(2 * time.Second) // Only what lasts is known to other servers.
	network.Part(0, 2)
	must(t, servers[2].Start())
	lead(writer.Conn(), "STREAM.LEADER.STEPDOWN.KV_b", "n2")
	servers[0].Kill()
	untilDone(t, func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := kv.Put(ctx, "k", nil)
		return err
	})
	select {
	case <-came:
	case <-time.After(3 * wait): // A tenth of it would do on a machine that is not busy; the client looks after minutes.
		t.Error("the watcher gets no message")
	}
}

// bucketAlone is a bucket on the only server there is.
func bucketAlone(t *testing.T) ([]*process.Server, jetstream.KeyValue) {
	t.Helper()
	servers := []*process.Server{process.New(t, "")}
	js, err := jetstream.New(roaming(t, servers, 0))
	must(t, err)
	kv, err := js.CreateKeyValue(testContext(t), jetstream.KeyValueConfig{Bucket: "b", History: 64})
	must(t, err)
	return servers, kv
}

// putAfterRestart kills the server, starts it, and returns the revision of a put to k then.
func putAfterRestart(t *testing.T, s *process.Server, kv jetstream.KeyValue) (revision uint64) {
	t.Helper()
	s.Kill()
	must(t, s.Start())
	untilDone(t, func() (err error) {
		ctx, cancel := context.WithTimeout(testContext(t), time.Second)
		defer cancel()
		revision, err = kv.Put(ctx, "k", nil)
		return err
	})
	return revision
}

// Watchers go on when the only server there is was killed and started again.
func TestWatchersGoOnAfterRestart(t *testing.T) {
	servers, kv := bucketAlone(t)
	ctx := testContext(t)
	last, err := kv.Put(ctx, "k", nil)
	must(t, err)
	all := append(followJS(t, servers, 0, "b"), follow(t, servers, 0, "b")...)
	arrive := func() {
		t.Helper()
		untilDone(t, func() error {
			for _, f := range all {
				if n := f.count(); n < int(last) {
					return fmt.Errorf("%s: %d of %d revisions", f.what, n, last)
				}
			}
			return nil
		})
	}
	arrive()
	time.Sleep(3 * time.Second) // They have lasted long enough to be noted.
	last = putAfterRestart(t, servers[0], kv)
	arrive()
	for _, f := range all {
		f.check(t, last)
	}
}

// Who asked for updates only and got none gets none of before, either, when the server was started again.
func TestPromiseUpdatesOnlyAfterRestart(t *testing.T) {
	servers, kv := bucketAlone(t)
	ctx := testContext(t)
	for range 3 {
		_, err := kv.Put(ctx, "k", nil)
		must(t, err)
	}
	all := followJS(t, servers, 0, "b", "updates")
	js, err := jetstream.New(roaming(t, servers, 0))
	must(t, err)
	watched, err := js.KeyValue(ctx, "b")
	must(t, err)
	w, err := watched.WatchAll(ctx, jetstream.UpdatesOnly())
	must(t, err)
	t.Cleanup(func() { _ = w.Stop() })
	updates := &follower{what: "watcher"}
	go func() { // Ends with the watcher.
		for e := range w.Updates() {
			updates.note(e.Revision())
		}
	}()
	all = append(all, updates)
	time.Sleep(3 * time.Second) // They have lasted long enough to be noted.
	last := putAfterRestart(t, servers[0], kv)
	for _, f := range all {
		untilDone(t, func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.seen) == 0 || f.seen[len(f.seen)-1] < last {
				return fmt.Errorf("%s: no update yet", f.what)
			}
			return nil
		})
		f.mu.Lock()
		if f.seen[0] <= 3 {
			t.Errorf("%s: revision %d is none of the updates", f.what, f.seen[0])
		}
		f.mu.Unlock()
	}
}
