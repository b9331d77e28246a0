package broker

import (
	"fmt"
	"testing"
)

// link joins two brokers as two servers of a cluster would be, without a network.
type link struct {
	far    *Broker
	copies int
	subs   map[string]*Sub // At this end, for interest at the far one.
}

func (l *link) Forward(a *Account, to string, m *Msg, plain bool, queues []string) {
	l.copies++
	var out Batch
	l.far.Account(a.Name()).DeliverLocal(&out, to, m.Subject, m.Reply, m.Header, m.Data, plain, queues)
	out.Flush()
}

// joinTo makes the interest of far known to near.
func joinTo(near, far *Broker) *link {
	l := &link{far: far, subs: map[string]*Sub{}}
	far.WatchAccounts(func(a *Account) {
		a.WatchLocal(func(subj, queue string, on bool) {
			key := a.Name() + " " + subj + " " + queue
			if on {
				l.subs[key] = near.Account(a.Name()).SubscribeRemote(subj, queue, l)
			} else {
				l.subs[key].Close()
				delete(l.subs, key)
			}
		})
	})
	return l
}

func TestMessagesCrossServersOnce(t *testing.T) {
	b1, b2 := New(), New()
	to2, to1 := joinTo(b1, b2), joinTo(b2, b1)
	c, f := connect(t, b2.Account("$G"), 1, nil)
	subscribe(t, c, "a.*", "", "1")
	subscribe(t, c, "a.>", "", "2")
	subscribe(t, c, "a.b", "q", "3")
	b2.Account("$G").Subscribe("a.b", "", func(*Msg) { t.Error("an internal subscription got a message of another server") })
	pub, pf := connect(t, b1.Account("$G"), 2, nil)
	subscribe(t, pub, "inbox.>", "", "9")
	publish(pub, "a.b", "inbox.1", "x")
	got := f.take()
	if want := len("MSG a.b 1 inbox.1 1|x|") * 3; len(got) != want || to2.copies != 1 {
		t.Errorf("got %q in %d copies", got, to2.copies)
	}
	publish(c, "inbox.1", "", "answer")
	expect(t, pf, "MSG inbox.1 9 6|answer|")
	if to1.copies != 1 {
		t.Errorf("%d copies went back", to1.copies)
	}
	if n := len(to2.subs); n != 3 {
		t.Errorf("%d subscriptions are known", n)
	}
	c.Close()
	if n := len(to2.subs); n != 0 {
		t.Errorf("%d subscriptions are still known", n)
	}
	publish(pub, "a.b", "inbox.1", "x")
	expect(t, pf, "HMSG inbox.1 9 35 35|NATS/1.0 503|Nats-Subject: a.b|||")
}

func TestQueueGroupsPreferThisServer(t *testing.T) {
	b1, b2 := New(), New()
	joinTo(b1, b2)
	var here, there int
	local := b1.Account("$G").Subscribe("w", "q", func(*Msg) { here++ })
	b2.Account("$G").SubscribeWide("w", "q", func(*Msg) { there++ })
	for range 10 {
		if n := b1.Account("$G").Publish(nil, "w", "", nil, nil); n != 1 {
			t.Fatalf("%d copies", n)
		}
	}
	local.Close()
	b1.Account("$G").Publish(nil, "w", "", nil, nil)
	if here != 10 || there != 1 {
		t.Errorf("%d here, %d there", here, there)
	}
}

func TestImportsReachAcrossServers(t *testing.T) {
	b1, b2 := New(), New()
	joinTo(b1, b2)
	joinTo(b2, b1)
	all := map[string]Sharing{
		"SRC": {Exports: []Export{{Subject: "ev.>"}, {Service: true, Subject: "svc"}}},
		"APP": {Imports: []Import{{Account: "SRC", Subject: "ev.>", To: "in.>"}, {Service: true, Account: "SRC", Subject: "svc"}}},
	}
	share(t, b1, all)
	share(t, b2, all)
	c, f := connect(t, b2.Account("APP"), 1, nil)
	subscribe(t, c, "in.x", "", "1")
	b1.Account("SRC").Publish(nil, "ev.x", "", nil, []byte("v"))
	expect(t, f, "MSG in.x 1 1|v|")

	svc, sf := connect(t, b1.Account("SRC"), 2, nil)
	subscribe(t, svc, "svc", "", "5")
	subscribe(t, c, "inbox.*", "", "2")
	publish(c, "svc", "inbox.1", "?")
	var subj, sid, reply string
	var size int
	if n, err := fmt.Sscanf(sf.take(), "MSG %s %s %s %d|?|", &subj, &sid, &reply, &size); n != 4 {
		t.Fatal(err)
	}
	publish(svc, reply, "", "!")
	expect(t, f, "MSG inbox.1 2 1|!|")
}

func TestWatchLocalBeginsWithWhatIs(t *testing.T) {
	a := New().Account("$G")
	c, _ := connect(t, a, 1, nil)
	subscribe(t, c, "x", "", "1")
	subscribe(t, c, "x", "", "2")
	a.Subscribe("own", "", func(*Msg) {})
	var seen []string
	cancel := a.WatchLocal(func(subj, queue string, on bool) { seen = append(seen, fmt.Sprint(subj, queue, on)) })
	subscribe(t, c, "y", "q", "3")
	c.Unsubscribe("1", 0)
	c.Unsubscribe("2", 0)
	cancel()
	c.Close()
	if got := fmt.Sprint(seen); got != "[xtrue yqtrue xfalse]" {
		t.Error(got)
	}
}
