package jetstream

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
)

const testBucket = `{"name":"KV_b","subjects":["$KV.b.>"],"storage":"memory","num_replicas":1,"max_msgs_per_subject":1,` +
	`"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_msg_size":-1,"max_age":0,"discard":"new","allow_rollup_hdrs":true,"deny_delete":true,"allow_direct":true}`

// ok sends a request and fails the test if it is refused.
func (s *server) ok(subj, data string) message {
	s.t.Helper()
	m := s.request(subj, "", data)
	if strings.Contains(m.data, `"error"`) || m.header != "" {
		s.t.Fatalf("%s: %v", subj, m)
	}
	return m
}

func (s *server) bucket() { s.ok("$JS.API.STREAM.CREATE.KV_b", testBucket) }

// consumer creates one of the bucket and returns what the answer says of it.
func (s *server) consumer(name, config string) (i api.ConsumerInfo) {
	s.t.Helper()
	m := s.ok("$JS.API.CONSUMER.CREATE.KV_b."+name, `{"stream_name":"KV_b","config":`+config+`}`)
	if err := json.Unmarshal([]byte(m.data), &i); err != nil {
		s.t.Fatal(err)
	}
	return i
}

// listen subscribes and gathers what comes.
func (s *server) listen(subj string) (<-chan message, *broker.Sub) {
	ch := make(chan message, 1<<16)
	sub := s.account.Subscribe(subj, "", func(m *broker.Msg) {
		ch <- message{m.Subject, m.Reply, string(m.Header), string(m.Data)}
	})
	return ch, sub
}

func next(t testing.TB, ch <-chan message) message {
	t.Helper()
	select {
	case m := <-ch:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// quiet makes sure that nothing comes for a while.
func quiet(t testing.TB, ch <-chan message, d time.Duration) {
	t.Helper()
	select {
	case m := <-ch:
		t.Fatalf("unexpected message: %+v", m)
	case <-time.After(d):
	}
}

// metadata returns delivered count, stream sequence, consumer sequence and pending of a message.
func metadata(t testing.TB, m message) (count, seq, consumerSeq, pending int) {
	t.Helper()
	var stamp int64
	tokens := strings.ReplaceAll(m.reply, ".", " ")
	var stream, name string
	if n, err := fmt.Sscanf(tokens, "$JS ACK %s %s %d %d %d %d %d", &stream, &name, &count, &seq, &consumerSeq, &stamp, &pending); n != 7 {
		t.Fatalf("reply %q: %v", m.reply, err)
	}
	return count, seq, consumerSeq, pending
}

// TestWatch goes through the life of a watcher as the Go client makes it.
func TestWatch(t *testing.T) {
	s := startServer(t, nil)
	s.bucket()
	for _, key := range []string{"a", "b", "c", "a"} {
		s.ok("$KV.b."+key, "value of "+key)
	}
	info := s.consumer("w.$KV.b.>", `{"name":"w","deliver_policy":"last_per_subject","filter_subject":"$KV.b.>","deliver_subject":"D.w",`+
		`"flow_control":true,"idle_heartbeat":200000000,"mem_storage":true,"num_replicas":1,"max_deliver":1}`)
	if info.NumPending != 3 || info.Delivered.Consumer != 0 || info.PushBound {
		t.Fatalf("info of a new watcher: %+v", info)
	}
	ch, sub := s.listen("D.w")
	for i, want := range []string{"$KV.b.b", "$KV.b.c", "$KV.b.a"} {
		m := next(t, ch)
		_, _, seq, pending := metadata(t, m)
		if m.subject != want || seq != i+1 || pending != 2-i {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	s.ok("$KV.b.c", "new")
	m := next(t, ch)
	if _, _, seq, pending := metadata(t, m); m.subject != "$KV.b.c" || m.data != "new" || seq != 4 || pending != 0 {
		t.Fatalf("update: %+v", m)
	}
	m = next(t, ch)
	if want := "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 4\r\nNats-Last-Stream: 5\r\n\r\n"; m.header != want || m.subject != "D.w" || m.data != "" {
		t.Fatalf("heartbeat: %+v", m)
	}
	sub.Close()
	s.ok("$KV.b.d", "unseen")
	for len(ch) > 0 {
		<-ch
	}
	quiet(t, ch, 300*time.Millisecond)
	ch, _ = s.listen("D.w")
	if _, seq, consumerSeq, _ := metadata(t, next(t, ch)); seq != 6 || consumerSeq != 5 {
		t.Fatalf("after another subscription came %d as %d", seq, consumerSeq)
	}
	s.ok("$JS.API.CONSUMER.DELETE.KV_b.w", "")
	if m := s.request("$JS.API.CONSUMER.INFO.KV_b.w", "", ""); !strings.Contains(m.data, "consumer not found") {
		t.Fatalf("deleted consumer: %v", m)
	}
}

// TestWatchExpires makes sure that a watcher whose client has gone does not stay.
func TestWatchExpires(t *testing.T) {
	s := startServer(t, nil)
	s.bucket()
	s.consumer("w", `{"deliver_subject":"D.w","inactive_threshold":150000000}`)
	_, sub := s.listen("D.w")
	time.Sleep(300 * time.Millisecond)
	s.ok("$JS.API.CONSUMER.INFO.KV_b.w", "")
	sub.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if m := s.request("$JS.API.CONSUMER.INFO.KV_b.w", "", ""); strings.Contains(m.data, "consumer not found") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the watcher is still there")
		}
	}
}

// TestWatchFlowControl delivers far more than the window to a client that answers, and stops for
// one that does not.
func TestWatchFlowControl(t *testing.T) {
	s := startServer(t, nil)
	s.bucket()
	value := strings.Repeat("x", 64<<10)
	const n = 100
	for i := range n {
		s.ok(fmt.Sprintf("$KV.b.%d", i), value)
	}
	for _, answers := range []bool{true, false} {
		var got atomic.Int64
		var stalled atomic.Bool
		subject := fmt.Sprintf("D.%v", answers)
		s.account.Subscribe(subject, "", func(m *broker.Msg) {
			switch {
			case len(m.Data) > 0:
				got.Add(1)
			case strings.Contains(string(m.Header), "Nats-Consumer-Stalled: $JS.FC.KV_b.w"):
				stalled.Store(true)
			case strings.HasPrefix(m.Reply, "$JS.FC.") && answers:
				s.account.Publish(m.Out, m.Reply, "", nil, nil)
			}
		})
		s.consumer(fmt.Sprintf("w%v", answers), `{"deliver_policy":"all","deliver_subject":"`+subject+`","flow_control":true,"idle_heartbeat":100000000}`)
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && got.Load() < n && !stalled.Load(); {
			time.Sleep(5 * time.Millisecond)
		}
		if got := got.Load(); answers != (got == n) || answers == stalled.Load() {
			t.Fatalf("answers %v: %d of %d messages, stalled %v", answers, got, n, stalled.Load())
		}
	}
}

// TestWatchersAreComplete has watchers come and go while a bucket is written, and holds what each
// of them saw against the bucket.
func TestWatchersAreComplete(t *testing.T) {
	s := startServer(t, nil)
	s.bucket()
	const keys, writes, watchers = 50, 2000, 20
	var done atomic.Bool
	go func() {
		defer done.Store(true)
		for i := range writes {
			s.account.Publish(nil, fmt.Sprintf("$KV.b.%d", i*7%keys), "", nil, fmt.Append(nil, i))
		}
	}()
	type view struct {
		ch   <-chan message
		info api.ConsumerInfo
	}
	var views []view
	for i := range watchers {
		name := fmt.Sprintf("w%d", i)
		ch, _ := s.listen("D." + name)
		views = append(views, view{ch, s.consumer(name, `{"deliver_policy":"last_per_subject","filter_subject":"$KV.b.>","deliver_subject":"D.`+name+`"}`)})
		time.Sleep(2 * time.Millisecond)
	}
	for !done.Load() {
		time.Sleep(time.Millisecond)
	}
	for i, v := range views {
		last := map[string]string{}
		for seq, pending := 1, -1; pending != 0 || len(last) < keys || last[fmt.Sprintf("$KV.b.%d", (writes-1)*7%keys)] != fmt.Sprint(writes-1); seq++ {
			m := next(t, v.ch)
			_, _, consumerSeq, left := metadata(t, m)
			if consumerSeq != seq {
				t.Fatalf("watcher %d: message %d has consumer sequence %d", i, seq, consumerSeq)
			}
			pending = left
			last[m.subject] = m.data
		}
		for k := range keys {
			m := s.request(fmt.Sprintf("$JS.API.DIRECT.GET.KV_b.$KV.b.%d", k), "", "")
			if got := last[fmt.Sprintf("$KV.b.%d", k)]; got != m.data {
				t.Fatalf("watcher %d has %q for key %d, the bucket has %q", i, got, k, m.data)
			}
		}
	}
}

// TestPull asks for messages, acknowledges some, and finds the rest again after a restart.
func TestPull(t *testing.T) {
	s := startServer(t, nil)
	s.ok("$JS.API.STREAM.CREATE.KV_b", strings.Replace(testBucket, `"memory"`, `"file"`, 1))
	for i := range 5 {
		s.ok(fmt.Sprintf("$KV.b.%d", i), "v")
	}
	s.consumer("d", `{"durable_name":"d","ack_policy":"explicit","ack_wait":1000000000}`)
	ch, _ := s.listen("P.>")
	ask := func(inbox, body string) {
		if s.account.Publish(nil, "$JS.API.CONSUMER.MSG.NEXT.KV_b.d", inbox, nil, []byte(body)) == 0 {
			t.Fatal("nobody takes pull requests")
		}
	}
	ask("P.1", `{"batch":3,"expires":5000000000}`)
	for i := range 3 {
		m := next(t, ch)
		if count, seq, _, pending := metadata(t, m); count != 1 || seq != i+1 || pending != 4-i {
			t.Fatalf("message %d is %+v", i, m)
		}
		if i == 1 {
			if ack := s.request(m.reply, "", "+ACK"); ack.data != "" || ack.header != "" {
				t.Fatalf("answer to a double ack: %+v", ack)
			}
		}
	}
	ask("P.2", `{"batch":1,"no_wait":true}`)
	next(t, ch)
	ask("P.3", `{"batch":1,"no_wait":true}`)
	next(t, ch)
	ask("P.4", `{"batch":1,"no_wait":true}`)
	if m := next(t, ch); !strings.HasPrefix(m.header, "NATS/1.0 404 No Messages") {
		t.Fatalf("nothing left, but %+v", m)
	}
	// What was not acknowledged comes again, across a restart, and what was does not.
	waitReplicated(t, s, "d")
	s.restart()
	ch, _ = s.listen("P.>")
	for s.account.Publish(nil, "$JS.API.CONSUMER.MSG.NEXT.KV_b.d", "P.5", nil, []byte(`{"batch":4,"expires":5000000000}`)) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	for _, want := range []int{1, 3, 4, 5} {
		m := next(t, ch)
		if count, seq, _, _ := metadata(t, m); seq != want || count != 2 {
			t.Fatalf("want %d again, got %+v", want, m)
		}
		s.account.Publish(nil, m.reply, "", nil, nil)
	}
	var i api.ConsumerInfo
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := json.Unmarshal([]byte(s.ok("$JS.API.CONSUMER.INFO.KV_b.d", "").data), &i); err != nil {
			t.Fatal(err)
		}
		if i.NumAckPending == 0 && i.AckFloor.Stream == 5 && i.Delivered.Consumer == 9 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("info in the end: %+v", i)
		}
	}
}

// waitReplicated waits until the log has everything that a consumer did.
func waitReplicated(t *testing.T, s *server, name string) {
	t.Helper()
	set := s.service.setOf(s.cluster.Stream("$G", "KV_b"))
	f := set.get(name)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		clean := !f.journal.underway && len(f.journal.next) == 0
		f.mu.Unlock()
		if clean {
			return
		}
	}
	t.Fatal("the journal does not get empty")
}

// TestWorkQueue makes sure that what is acknowledged leaves a work queue, and nothing else does.
func TestWorkQueue(t *testing.T) {
	s := startServer(t, nil)
	s.ok("$JS.API.STREAM.CREATE.Q", `{"name":"Q","subjects":["q.>"],"retention":"workqueue","storage":"memory","num_replicas":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1}`)
	s.ok("q.1", "a")
	s.ok("q.2", "b")
	s.ok("$JS.API.CONSUMER.CREATE.Q.c", `{"stream_name":"Q","config":{"ack_policy":"explicit"}}`)
	if m := s.request("$JS.API.CONSUMER.CREATE.Q.c2", "", `{"stream_name":"Q","config":{"ack_policy":"explicit"}}`); !strings.Contains(m.data, "10099") {
		t.Fatalf("second consumer of a work queue: %v", m)
	}
	ch, _ := s.listen("P.>")
	s.account.Publish(nil, "$JS.API.CONSUMER.MSG.NEXT.Q.c", "P.1", nil, []byte("2"))
	m := next(t, ch)
	next(t, ch)
	s.request(m.reply, "", "+ACK")
	info := s.ok("$JS.API.STREAM.INFO.Q", "")
	if !strings.Contains(info.data, `"messages":1,`) || !strings.Contains(info.data, `"first_seq":2,`) {
		t.Fatalf("stream after one acknowledgement: %v", info)
	}
}

// TestIdleWatchersAreCheap makes ten thousand watchers that nothing happens to.
func TestIdleWatchersAreCheap(t *testing.T) {
	s := startServer(t, nil)
	s.bucket()
	for i := range 100 {
		s.ok(fmt.Sprintf("$KV.b.%d", i), "v")
	}
	const n = 10_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	begun := time.Now()
	var got atomic.Int64
	s.account.Subscribe("D.*", "", func(*broker.Msg) { got.Add(1) })
	for i := range n {
		s.consumer(fmt.Sprintf("w%d", i), fmt.Sprintf(`{"deliver_policy":"last_per_subject","filter_subject":"$KV.b.%d","deliver_subject":"D.%d","flow_control":true,"idle_heartbeat":30000000000}`, i%100, i))
	}
	took := time.Since(begun)
	for deadline := time.Now().Add(10 * time.Second); got.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d watchers got their value", got.Load(), n)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("%d watchers in %v, %d bytes each, %d goroutines more", n, took, each, runtime.NumGoroutine()-goroutines)
	if each > 6<<10 {
		t.Errorf("a watcher costs %d bytes", each)
	}
	if more := runtime.NumGoroutine() - goroutines; more > 10 {
		t.Errorf("%d goroutines for idle watchers", more)
	}
}

// BenchmarkWatchInitial delivers the first values of a watch, in keys.
func BenchmarkWatchInitial(b *testing.B) {
	for _, config := range []string{"", `,"headers_only":true`} {
		b.Run("headersonly="+fmt.Sprint(config != ""), func(b *testing.B) { benchmarkInitial(b, config) })
	}
}

func benchmarkInitial(b *testing.B, config string) {
	s := startServer(b, nil)
	s.bucket()
	const keys = 100_000
	value := make([]byte, 128)
	for i := range keys {
		s.account.Publish(nil, fmt.Sprintf("$KV.b.key-%d", i), "", nil, value)
	}
	s.ok("$KV.b.last", "")
	done := make(chan struct{}, 1)
	var got atomic.Int64
	s.account.Subscribe("D", "", func(m *broker.Msg) {
		switch {
		case strings.HasPrefix(m.Reply, "$JS.FC"):
			s.account.Publish(m.Out, m.Reply, "", nil, nil)
		case strings.HasSuffix(m.Reply, ".0") && got.Add(1) > keys:
			done <- struct{}{}
		default:
			got.Add(1)
		}
	})
	b.ResetTimer()
	for n := 0; n < b.N; n += keys {
		got.Store(0)
		s.consumer("w", `{"deliver_policy":"last_per_subject","filter_subject":"$KV.b.>","deliver_subject":"D","flow_control":true,"idle_heartbeat":5000000000`+config+`}`)
		<-done
		s.ok("$JS.API.CONSUMER.DELETE.KV_b.w", "")
	}
}

// BenchmarkFanOut has a hundred watchers hear of each put.
func BenchmarkFanOut(b *testing.B) {
	s := startServer(b, nil)
	s.bucket()
	const watchers = 100
	got := make(chan struct{}, watchers)
	for i := range watchers {
		s.account.Subscribe(fmt.Sprintf("D.%d", i), "", func(*broker.Msg) { got <- struct{}{} })
		s.consumer(fmt.Sprintf("w%d", i), fmt.Sprintf(`{"deliver_policy":"new","deliver_subject":"D.%d"}`, i))
	}
	b.ResetTimer()
	for range b.N {
		s.account.Publish(nil, "$KV.b.key", "", nil, []byte("value"))
		for range watchers {
			<-got
		}
	}
}
