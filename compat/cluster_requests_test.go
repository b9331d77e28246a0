package compat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Every kind of request about a stream and its consumers is answered by every server, wherever the
// replicas are and whichever server the request before it went to.
func TestPromiseClusterRequestsOfEveryKind(t *testing.T) {
	p := newPinned(t, 3)
	ctx := testContext(t)
	for _, cfg := range []jetstream.StreamConfig{
		{Name: "R3", Subjects: []string{"R3.>"}, Replicas: 3},
		on(1, jetstream.StreamConfig{Name: "R1", Subjects: []string{"R1.>"}}),
	} {
		cfg.AllowDirect = true
		t.Run(cfg.Name, func(t *testing.T) {
			_, err := p.js[0].CreateStream(ctx, cfg)
			must(t, err)
			p.leader(t, p.js[2], cfg.Name, "", cfg.Replicas, true)
			for server := range p.js {
				r := requests{t: t, p: p, stream: cfg.Name, server: server}
				r.messages()
				r.consumers()
				r.purge()
			}
			for server, js := range p.js {
				r := requests{t: t, p: p, stream: cfg.Name, server: server}
				r.ask("STREAM.LEADER.STEPDOWN."+cfg.Name, "", `"success":true`)
				_, err := js.UpdateStream(ctx, cfg)
				must(t, err)
			}
			r := requests{t: t, p: p, stream: cfg.Name, server: 2}
			r.ask("STREAM.DELETE."+cfg.Name, "", `"success":true`)
			for range p.js {
				r.ask("STREAM.INFO."+cfg.Name, "", `"err_code":10059`)
			}
		})
	}
}

// requests sends one after another to the servers in turn.
type requests struct {
	t      *testing.T
	p      *pinned
	stream string
	server int // the next
	last   uint64
}

func (r *requests) conn() *nats.Conn {
	r.server++
	return r.p.from(r.server).Conn()
}

// send makes a request and returns the reply as it would be printed, headers first.
func (r *requests) send(subject, body string) string {
	r.t.Helper()
	m, err := r.conn().Request(subject, []byte(body), wait)
	if err != nil {
		r.t.Fatalf("%s of server %d: %v", subject, r.server%3, err)
	}
	return fmt.Sprint(m.Header, " ", string(m.Data))
}

// ask makes an API request whose reply must have that in it.
func (r *requests) ask(subject, body, want string) string {
	r.t.Helper()
	got := r.send("$JS.API."+subject, body)
	if !strings.Contains(got, want) {
		r.t.Fatalf("%s %s of server %d: %s, want %s", subject, body, r.server%3, got, want)
	}
	return got
}

func (r *requests) publish(subject string) {
	r.t.Helper()
	var ack struct{ Seq uint64 }
	got := r.send(r.stream+"."+subject, "value of "+subject)
	if err := json.Unmarshal([]byte(got[strings.Index(got, "{"):]), &ack); err != nil || ack.Seq == 0 {
		r.t.Fatalf("publish: %s", got)
	}
	r.last = ack.Seq
}

// messages has them stored, found in every way, and one of them deleted.
func (r *requests) messages() {
	for range 3 {
		r.publish("a")
		value := `"data":"dmFsdWUgb2YgYQ=="`
		seq, subject := fmt.Sprint(r.last), r.stream+".a"
		r.ask("STREAM.MSG.GET."+r.stream, `{"seq":`+seq+`}`, value)
		r.ask("STREAM.MSG.GET."+r.stream, `{"last_by_subj":"`+subject+`"}`, value)
		r.ask("DIRECT.GET."+r.stream+"."+subject, "", "value of a")
		r.ask("DIRECT.GET."+r.stream, `{"seq":`+seq+`}`, "value of a")
		r.ask("DIRECT.GET."+r.stream, `{"multi_last":["`+subject+`"]}`, "value of a")
		r.ask("DIRECT.GET."+r.stream, `{"batch":1,"seq":`+seq+`}`, "value of a")
		r.ask("STREAM.INFO."+r.stream, "", `"last_seq":`+seq)
		r.ask("STREAM.INFO."+r.stream, `{"subjects_filter":">"}`, `"`+subject+`":`)
		r.ask("STREAM.NAMES", "", `"`+r.stream+`"`)
		r.ask("STREAM.LIST", "", `"name":"`+r.stream+`"`)
		r.ask("STREAM.MSG.DELETE."+r.stream, `{"seq":`+seq+`}`, `"success":true`)
		r.ask("STREAM.MSG.GET."+r.stream, `{"seq":`+seq+`}`, `"err_code":10037`)
		r.ask("DIRECT.GET."+r.stream, `{"seq":`+seq+`}`, "map[Description:[Message Not Found] Status:[404]]")
	}
}

// consumers are made and used: a durable one, one that lives in memory, and a watcher's.
func (r *requests) consumers() {
	for i, cfg := range []string{
		`"durable_name":"%s","ack_policy":"explicit"`,
		`"name":"%s","ack_policy":"explicit","mem_storage":true,"num_replicas":1,"inactive_threshold":60000000000`,
	} {
		name := fmt.Sprint("c", i)
		of := r.stream + "." + name
		create := fmt.Sprintf(`{"stream_name":"`+r.stream+`","config":{`+cfg+`,"deliver_policy":"new"}}`, name)
		r.ask("CONSUMER.CREATE."+of, create, `"name":"`+name+`"`)
		r.ask("CONSUMER.CREATE."+of, create, `"name":"`+name+`"`)
		for range 3 {
			r.ask("CONSUMER.NAMES."+r.stream, "", `"`+name+`"`)
			r.ask("CONSUMER.LIST."+r.stream, "", `"name":"`+name+`"`)
			r.publish("b")
			r.ask("CONSUMER.INFO."+of, "", `"num_pending":1,`)
			r.next(of)
			r.ask("CONSUMER.INFO."+of, "", `"num_ack_pending":0,`)
		}
		r.ask("STREAM.INFO."+r.stream, "", `"consumer_count":1`)
		r.ask("CONSUMER.PAUSE."+of, `{"pause_until":"2100-01-01T00:00:00Z"}`, `"paused":true`)
		r.ask("CONSUMER.INFO."+of, "", `"paused":true`)
		r.ask("CONSUMER.PAUSE."+of, ``, `"paused":false`)
		r.ask("CONSUMER.DELETE."+of, "", `"success":true`)
		for range 3 {
			r.ask("CONSUMER.INFO."+of, "", `"err_code":10014`)
		}
	}
	r.watcher()
}

// next takes a message from the consumer and acknowledges it, each through another server.
func (r *requests) next(of string) {
	r.t.Helper()
	m, err := r.conn().Request("$JS.API.CONSUMER.MSG.NEXT."+of, []byte(`{"batch":1,"expires":5000000000}`), wait)
	must(r.t, err)
	if string(m.Data) != "value of b" || m.Reply == "" {
		r.t.Fatalf("next of %s through server %d: %v %q", of, r.server%3, m.Header, m.Data)
	}
	if _, err := r.conn().Request(m.Reply, []byte("+ACK"), wait); err != nil {
		r.t.Fatalf("ack of %s through server %d: %v", of, r.server%3, err)
	}
}

func (r *requests) watcher() {
	nc := r.conn()
	sub, err := nc.SubscribeSync(nats.NewInbox())
	must(r.t, err)
	must(r.t, nc.Flush())
	of := r.stream + ".w"
	body := fmt.Sprintf(`{"stream_name":%q,"config":{"name":"w","ack_policy":"none","mem_storage":true,"num_replicas":1,"max_deliver":1,`+
		`"deliver_subject":%q,"filter_subject":"%s.*","deliver_policy":"last_per_subject","flow_control":true,"idle_heartbeat":1000000000}}`,
		r.stream, sub.Subject, r.stream)
	for range 3 {
		r.publish("b")
		r.ask("CONSUMER.CREATE."+of, body, `"name":"w"`)
		m, err := sub.NextMsg(wait)
		must(r.t, err)
		if string(m.Data) != "value of b" {
			r.t.Fatalf("watched %v %q", m.Header, m.Data)
		}
		r.ask("CONSUMER.DELETE."+of, "", `"success":true`)
		for { // Heartbeats may be under way.
			if _, err := sub.NextMsg(50 * time.Millisecond); err != nil {
				break
			}
		}
	}
	must(r.t, sub.Unsubscribe())
}

func (r *requests) purge() {
	r.t.Helper()
	r.publish("c")
	r.publish("c")
	r.ask("STREAM.PURGE."+r.stream, `{"filter":"`+r.stream+`.c","keep":1}`, `"purged":1`)
	r.ask("STREAM.PURGE."+r.stream, ``, `"success":true`)
	r.ask("STREAM.INFO."+r.stream, "", `"messages":0`)
}

// What an account uses is told alike by every server, also by one that has no replica of anything.
func TestPromiseClusterAccountInfoOfEveryServer(t *testing.T) {
	p := newPinned(t, 4)
	ctx := testContext(t)
	var bytes uint64
	for _, cfg := range []jetstream.StreamConfig{
		{Name: "R3", Subjects: []string{"R3"}, Replicas: 3},
		on(1, jetstream.StreamConfig{Name: "R1", Subjects: []string{"R1"}}),
		on(2, jetstream.StreamConfig{Name: "M1", Subjects: []string{"M1"}, Storage: jetstream.MemoryStorage}),
	} {
		s, err := p.js[0].CreateStream(ctx, cfg)
		must(t, err)
		_, err = p.js[3].Publish(ctx, cfg.Name, make([]byte, 1000))
		must(t, err)
		_, err = s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "d"})
		must(t, err)
		_, err = p.js[2].CreateConsumer(ctx, cfg.Name, jetstream.ConsumerConfig{InactiveThreshold: time.Minute, MemoryStorage: true, Replicas: 1})
		must(t, err)
		info, err := s.Info(ctx)
		must(t, err)
		bytes += info.State.Bytes
	}
	for i, js := range p.js {
		var info *jetstream.AccountInfo
		eventually(t, fmt.Sprint("all consumers are delivered for, as told by server ", i), func() bool {
			var err error
			info, err = js.AccountInfo(ctx)
			must(t, err)
			return info.Consumers == 6
		})
		equal(t, "streams", info.Streams, 3)
		equal(t, "bytes", info.Memory+info.Store, bytes)
		if info.Memory == 0 || info.Store == 0 {
			t.Errorf("server %d: %d bytes in memory, %d on disk", i, info.Memory, info.Store)
		}
	}
}
