package compat

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// receive returns the next message's data, or fails.
func receive(t *testing.T, sub *nats.Subscription) string {
	t.Helper()
	msg, err := sub.NextMsg(wait)
	must(t, err)
	return string(msg.Data)
}

func TestCoreSubjects(t *testing.T) {
	t.Parallel()
	nc := shared().Connect(t)
	subs := map[string]*nats.Subscription{}
	for _, pattern := range []string{"a.b", "a.*", "a.>", "*.b", ">"} {
		sub, err := nc.SubscribeSync(name(t) + "." + pattern)
		must(t, err)
		subs[pattern] = sub
	}
	for _, subject := range []string{"a.b", "a.c", "a.b.c", "x.b", "end"} {
		must(t, nc.Publish(name(t)+"."+subject, []byte(subject)))
	}
	must(t, nc.Flush())
	for pattern, want := range map[string]string{
		"a.b": "a.b", "a.*": "a.b a.c", "a.>": "a.b a.c a.b.c", "*.b": "a.b x.b", ">": "a.b a.c a.b.c x.b end",
	} {
		var got []string
		for range strings.Fields(want) {
			got = append(got, receive(t, subs[pattern]))
		}
		equal(t, pattern, strings.Join(got, " "), want)
		if pending, _, _ := subs[pattern].Pending(); pending != 0 {
			t.Errorf("%s: %d messages too many", pattern, pending)
		}
	}
}

func TestCoreQueueGroups(t *testing.T) {
	t.Parallel()
	var group, plain atomic.Int64
	var known [3]atomic.Bool
	for i := range known {
		nc := shared().Connect(t)
		_, err := nc.QueueSubscribe(name(t), "workers", func(*nats.Msg) { group.Add(1) })
		must(t, err)
		_, err = nc.Subscribe(name(t), func(*nats.Msg) { plain.Add(1) })
		must(t, err)
		_, err = nc.Subscribe(name(t)+".probe", func(*nats.Msg) { known[i].Store(true) })
		must(t, err)
		must(t, nc.Flush())
	}
	nc := shared().Connect(t)
	eventually(t, "every server knows the subscriptions", func() bool {
		must(t, nc.Publish(name(t)+".probe", nil))
		return known[0].Load() && known[1].Load() && known[2].Load()
	})
	const n = 300
	for range n {
		must(t, nc.Publish(name(t), nil))
	}
	eventually(t, "each plain subscription has them all", func() bool { return plain.Load() == 3*n })
	eventually(t, "the group has each once", func() bool { return group.Load() == n })
}

func TestCoreRequest(t *testing.T) {
	t.Parallel()
	service, nc := shared().Connect(t), shared().Connect(t)
	_, err := service.Subscribe(name(t), func(msg *nats.Msg) {
		reply := nats.NewMsg(msg.Reply)
		reply.Data = []byte(strings.ToUpper(string(msg.Data)))
		reply.Header.Add("Color", "blue")
		reply.Header.Add("Color", "green")
		_ = service.PublishMsg(reply)
	})
	must(t, err)
	must(t, service.Flush())
	eventually(t, "every server knows the service", func() bool { _, err := nc.Request(name(t), nil, wait); return err == nil })
	for n := range 100 {
		msg, err := nc.Request(name(t), []byte(fmt.Sprintf("request %d", n)), wait)
		must(t, err)
		equal(t, "reply", string(msg.Data), fmt.Sprintf("REQUEST %d", n))
		equal(t, "headers", strings.Join(msg.Header.Values("Color"), " "), "blue green")
	}
	_, err = nc.Request(name(t)+".nobody", nil, wait)
	wantErr(t, err, nats.ErrNoResponders)
}

func TestCoreAutoUnsubscribe(t *testing.T) {
	t.Parallel()
	nc := shared().Connect(t)
	sub, err := nc.SubscribeSync(name(t))
	must(t, err)
	must(t, sub.AutoUnsubscribe(3))
	for n := range 10 {
		must(t, nc.Publish(name(t), []byte(fmt.Sprint(n))))
	}
	must(t, nc.Flush())
	for n := range 3 {
		equal(t, "data", receive(t, sub), fmt.Sprint(n))
	}
	if _, err = sub.NextMsg(100 * time.Millisecond); err == nil {
		t.Fatal("a fourth message came")
	}
}

func TestCoreNoEcho(t *testing.T) {
	t.Parallel()
	deaf, nc := shared().Connect(t, nats.NoEcho()), shared().Connect(t)
	sub, err := deaf.SubscribeSync(name(t))
	must(t, err)
	must(t, deaf.Publish(name(t), []byte("own")))
	must(t, deaf.Flush())
	var got *nats.Msg
	eventually(t, "every server knows the subscription", func() bool {
		must(t, nc.Publish(name(t), []byte("other")))
		got, err = sub.NextMsg(20 * time.Millisecond)
		return err == nil
	})
	equal(t, "data", string(got.Data), "other")
}

func TestCoreMaxPayload(t *testing.T) {
	t.Parallel()
	nc := shared().Connect(t)
	equal(t, "max payload", nc.MaxPayload(), 1<<20)
	sub, err := nc.SubscribeSync(name(t))
	must(t, err)
	must(t, nc.Publish(name(t), make([]byte, 1<<20)))
	equal(t, "bytes", len(receive(t, sub)), 1<<20)
	if err = nc.Publish(name(t), make([]byte, 1<<20+1)); !errors.Is(err, nats.ErrMaxPayload) {
		t.Fatalf("error %v, want %v", err, nats.ErrMaxPayload)
	}
}
