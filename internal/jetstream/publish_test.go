package jetstream

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/broker"
)

// create makes a stream and fails the test if it is refused.
func (s *server) create(config string) {
	s.t.Helper()
	var c struct{ Name string }
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		s.t.Fatal(err)
	}
	m := s.request("$JS.API.STREAM.CREATE."+c.Name, "", config)
	var r api.Header // A source of the stream may have an error of its own.
	if err := json.Unmarshal([]byte(m.data), &r); err != nil || r.Error != nil {
		s.t.Fatal(m)
	}
}

// TestPublishConcurrently stores messages of many publishers: every acknowledgement names another
// sequence, and all messages are there after a restart.
func TestPublishConcurrently(t *testing.T) {
	s := startServer(t, nil)
	s.create(`{"name":"S","subjects":["s.>"]}`)
	const publishers, each = 8, 200
	var group sync.WaitGroup
	for p := range publishers {
		group.Go(func() {
			var out broker.Batch
			for i := range each {
				s.account.Publish(&out, fmt.Sprintf("s.%d.%d", p, i), "_INBOX.ack", nil, []byte("x"))
			}
			out.Flush()
		})
	}
	seen := make(map[uint64]bool)
	for range publishers * each {
		select {
		case m := <-s.inbox:
			var ack struct {
				Seq   uint64
				Error *api.Error
			}
			if err := json.Unmarshal([]byte(m.data), &ack); err != nil || ack.Error != nil || seen[ack.Seq] {
				t.Fatalf("acknowledgement %s: %v", m.data, err)
			}
			seen[ack.Seq] = true
		case <-time.After(10 * time.Second):
			t.Fatalf("only %d acknowledgements came", len(seen))
		}
	}
	group.Wait()
	s.restart()
	if m := s.request("$JS.API.STREAM.INFO.S", "", ""); !strings.Contains(m.data, fmt.Sprintf(`"messages":%d,`, publishers*each)) {
		t.Error(m)
	}
}

// TestCreateConcurrently makes one stream from many clients at once: all succeed, and publishing
// right after an answer finds the stream.
func TestCreateConcurrently(t *testing.T) {
	s := startServer(t, nil)
	const clients = 10
	for range clients {
		s.account.Publish(nil, "$JS.API.STREAM.CREATE.S", "_INBOX.create", nil, []byte(`{"name":"S","subjects":["s.>"]}`))
	}
	for range clients {
		m := <-s.inbox
		if strings.Contains(m.data, `"error"`) {
			t.Fatal(m)
		}
	}
	if m := s.request("s.x", "", "x"); m.data != `{"stream":"S","seq":1}` {
		t.Error(m)
	}
}

func TestRepublish(t *testing.T) {
	s := startServer(t, nil)
	copies := make(chan message, 10)
	s.account.Subscribe("copy.>", "", func(m *broker.Msg) {
		copies <- message{m.Subject, m.Reply, string(m.Header), string(m.Data)}
	})
	s.create(`{"name":"S","subjects":["s.>"],"republish":{"src":"s.>","dest":"copy.>"}}`)
	s.request("s.a", "A: b", "x")
	select {
	case m := <-copies:
		want := "NATS/1.0 | A: b | Nats-Stream: S | Nats-Subject: s.a | Nats-Sequence: 1 | Nats-Time-Stamp: TIME | Nats-Last-Sequence: 0\nx\n"
		if m.subject != "copy.a" || m.reply != "" || m.String() != want {
			t.Errorf("%s %q: %s", m.subject, m.reply, m)
		}
	case <-time.After(10 * time.Second):
		t.Error("no copy came")
	}
}

// TestExpiry waits for a message to expire: it is gone about a second later, and a marker is in its
// place.
func TestExpiry(t *testing.T) {
	s := startServer(t, nil)
	s.create(`{"name":"KV_t","subjects":["$KV.t.>"],"max_msgs_per_subject":1,"allow_direct":true,"allow_msg_ttl":true,"subject_delete_marker_ttl":60000000000}`)
	s.create(`{"name":"KV_u","subjects":["$KV.u.>"],"max_msgs_per_subject":1,"allow_direct":true,"max_age":1000000000,"storage":"memory"}`)
	s.request("$KV.t.k", "Nats-TTL: 1s", "x")
	s.request("$KV.u.k", "", "x")
	begin := time.Now()
	gone := func(name string) string {
		for {
			m := s.request("$JS.API.DIRECT.GET.KV_"+name+".$KV."+name+".k", "", "")
			if m.data != "x" {
				return m.header
			}
			if time.Since(begin) > 5*time.Second {
				t.Fatalf("%s: the message does not expire", name)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if h := gone("t"); !strings.HasPrefix(h, "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1m0s\r\nNats-Rollup: sub\r\n") {
		t.Errorf("in place of the message there is %q", h)
	}
	if h := gone("u"); !strings.HasPrefix(h, "NATS/1.0 404 ") {
		t.Errorf("in place of the message there is %q", h)
	}
	if early := time.Since(begin); early < 900*time.Millisecond {
		t.Errorf("expired after %v", early)
	}
}

func TestNoAcknowledgement(t *testing.T) {
	s := startServer(t, nil)
	s.create(`{"name":"S","subjects":["s"],"no_ack":true}`)
	s.create(`{"name":"T","subjects":["t"]}`)
	s.publish("s", "", "x")
	s.account.Publish(nil, "t", "", nil, []byte("x"))
	// What was published before is applied before: the next answer is the first one.
	if m := s.request("t", "", "x"); m.data != `{"stream":"T","seq":2}` {
		t.Error(m)
	}
	if m := s.request("$JS.API.STREAM.INFO.S", "", ""); !strings.Contains(m.data, `"messages":1,`) {
		t.Error(m)
	}
	select {
	case m := <-s.inbox:
		t.Errorf("an answer that nobody wants: %s", m)
	default:
	}
}

func TestDomain(t *testing.T) {
	s := startServer(t, func(o *Options) { o.Domain = "hub" })
	for _, c := range []struct{ subject, body, want string }{
		{"$JS.hub.API.STREAM.CREATE.KV_b", `{"name":"KV_b","subjects":["$KV.b.>"],"allow_direct":true}`, `"domain":"hub"`},
		{"$JS.hub.API.$KV.b.k", "x", `{"stream":"KV_b","domain":"hub","seq":1}`},
		{"$JS.hub.API.DIRECT.GET.KV_b.$KV.b.k", "", "Nats-Sequence: 1"},
		{"$JS.hub.API.DIRECT.GET.KV_none.k", "", "NATS/1.0 503"},
		{"$JS.API.INFO", "", `"domain":"hub"`},
		{"$JS.other.API.INFO", "", "no responders"},
	} {
		if m := s.request(c.subject, "", c.body); !strings.Contains(m.String(), c.want) {
			t.Errorf("%s: %s", c.subject, m)
		}
	}
}

func TestAccountLimits(t *testing.T) {
	limits := api.Unlimited
	limits.MaxStreams, limits.MaxStorage, limits.StoreMaxStreamBytes, limits.MaxBytesRequired = 1, 1000, 500, true
	s := startServer(t, func(o *Options) {
		o.Account = func(name string) (api.AccountLimits, bool) { return limits, name != "OFF" }
	})
	for _, c := range []struct{ config, want string }{
		{`{"name":"A"}`, `"err_code":10113`},
		{`{"name":"A","max_bytes":501}`, `"err_code":10122`},
		{`{"name":"A","max_bytes":500}`, `"did_create":true`},
		{`{"name":"B","max_bytes":100}`, `"err_code":10027`},
	} {
		var name struct{ Name string }
		if err := json.Unmarshal([]byte(c.config), &name); err != nil {
			t.Fatal(err)
		}
		if m := s.request("$JS.API.STREAM.CREATE."+name.Name, "", c.config); !strings.Contains(m.data, c.want) {
			t.Errorf("%s: %s", c.config, m)
		}
	}
	if m := s.request("$JS.API.INFO", "", ""); !strings.Contains(m.data, `"reserved_storage":500,"streams":1`) {
		t.Error(m)
	}
	// The same in an account without JetStream.
	off := s.opts.Broker.Account("OFF")
	got := make(chan string, 1)
	off.Subscribe("_INBOX.>", "", func(m *broker.Msg) { got <- string(m.Data) })
	off.Publish(nil, "$JS.API.STREAM.NAMES", "_INBOX.1", nil, nil)
	if m := <-got; !strings.Contains(m, `"err_code":10039`) {
		t.Error(m)
	}
}

// TestPages lists more streams than fit on one page.
func TestPages(t *testing.T) {
	s := startServer(t, nil)
	const streams = api.ListPage + 3
	for i := range streams {
		s.publish("$JS.API.STREAM.CREATE."+fmt.Sprintf("S%03d", i), "", fmt.Sprintf(`{"name":"S%03d","storage":"memory"}`, i))
	}
	for range streams {
		if m := <-s.inbox; strings.Contains(m.data, `"error"`) {
			t.Fatal(m)
		}
	}
	for _, c := range []struct{ offset, want int }{{0, api.ListPage}, {api.ListPage, 3}, {1000, 0}} {
		var list api.StreamListResponse
		m := s.request("$JS.API.STREAM.LIST", "", fmt.Sprintf(`{"offset":%d}`, c.offset))
		if err := json.Unmarshal([]byte(m.data), &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Streams) != c.want || list.Total != streams || list.Limit != api.ListPage {
			t.Errorf("offset %d: %d streams, %+v", c.offset, len(list.Streams), list.Page)
		}
		if len(list.Streams) > 0 && list.Streams[0].Config.Name != fmt.Sprintf("S%03d", c.offset) {
			t.Errorf("offset %d begins with %s", c.offset, list.Streams[0].Config.Name)
		}
	}
}
