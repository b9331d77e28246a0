package broker

import (
	"fmt"
	"testing"
)

func share(t *testing.T, b *Broker, all map[string]Sharing) {
	t.Helper()
	if err := b.Share(all); err != nil {
		t.Fatal(err)
	}
}

func TestServiceImport(t *testing.T) {
	b := New()
	js, app := b.Account("JS"), b.Account("APP")
	share(t, b, map[string]Sharing{
		"JS": {Exports: []Export{{Service: true, Subject: "$JS.API.>"}, {Service: true, Subject: "pull", Many: true}}},
		"APP": {Imports: []Import{
			{Service: true, Account: "JS", Subject: "$JS.API.>", To: "from.js.>"},
			{Service: true, Account: "JS", Subject: "pull"}}},
	})
	var seen []string
	js.Subscribe("$JS.API.INFO", "", func(m *Msg) {
		seen = append(seen, fmt.Sprint(m.Account.Name(), " ", m.Subject, " ", m.Client.ID()))
		m.Respond([]byte("NATS/1.0\r\n\r\n"), []byte("one"))
		m.Respond(nil, []byte("two"))
	})
	js.Subscribe("pull", "", func(m *Msg) {
		m.Account.Deliver(m.Out, m.Reply, "", "ORDERS", "ack.1", nil, []byte("x"))
		m.Account.Deliver(m.Out, m.Reply, "", "ORDERS", "ack.2", nil, []byte("y"))
	})
	c, f := connect(t, app, 5, nil)
	subscribe(t, c, "inbox.*", "", "1")
	publish(c, "from.js.INFO", "inbox.a", "")
	expect(t, f, "HMSG inbox.a 1 12 15|NATS/1.0||one|") // And nothing of the second answer.
	if fmt.Sprint(seen) != "[JS $JS.API.INFO 5]" {
		t.Errorf("the service saw %v", seen)
	}
	publish(c, "pull", "inbox.b", "")
	expect(t, f, "MSG ORDERS 1 ack.1 1|x|MSG ORDERS 1 ack.2 1|y|")
	publish(c, "from.js.NOTHING", "inbox.c", "")
	expect(t, f, "HMSG inbox.c 1 47 47|NATS/1.0 503|Nats-Subject: from.js.NOTHING|||")
	if n := len(js.answers.waiting); n != 1 { // That of "pull", which may have more answers.
		t.Errorf("%d answers are waited for", n)
	}
	share(t, b, nil)
	publish(c, "from.js.INFO", "inbox.a", "")
	expect(t, f, "HMSG inbox.a 1 44 44|NATS/1.0 503|Nats-Subject: from.js.INFO|||")
}

func TestStreamImport(t *testing.T) {
	b := New()
	src, app := b.Account("SRC"), b.Account("APP")
	c, f := connect(t, app, 1, nil)
	subscribe(t, c, "in.>", "", "1") // Before the import: it is picked up.
	share(t, b, map[string]Sharing{
		"SRC": {Exports: []Export{{Subject: "ev.*.*"}, {Subject: "p.>", Accounts: []string{"APP"}}}},
		"APP": {Imports: []Import{{Account: "SRC", Subject: "ev.*.*", To: "in.$2.$1"}, {Account: "SRC", Subject: "p.>", Prefix: "pre"}}},
	})
	if !src.Interest("ev.a.b", "") || src.Interest("p.x", "") {
		t.Error("interest over there does not follow the subscriptions here")
	}
	src.Publish(nil, "ev.a.b", "", nil, []byte("x"))
	expect(t, f, "MSG in.b.a 1 1|x|")
	app.Publish(nil, "ev.a.b", "", nil, nil)
	expect(t, f, "")

	var changes []bool
	src.WatchInterest("p.d", "", func(has bool) { changes = append(changes, has) })
	subscribe(t, c, "pre.p.*", "q", "2")
	src.Deliver(nil, "p.d", "q", "ORDERS", "ack", nil, []byte("y"))
	expect(t, f, "MSG ORDERS 2 ack 1|y|")
	subscribe(t, c, "in.b.*", "", "3") // Narrower than the import.
	if !src.Interest("ev.z.b", "") {
		t.Error("a narrow subscription has no shadow")
	}
	src.Publish(nil, "ev.z.b", "", nil, nil)
	if got := f.take(); got != "MSG in.b.z 1 0||MSG in.b.z 3 0||" && got != "MSG in.b.z 3 0||MSG in.b.z 1 0||" {
		t.Errorf("got %q", got)
	}
	c.Close()
	if fmt.Sprint(changes) != "[true false]" || src.Interest("ev.a.b", "") {
		t.Errorf("interest changed %v", changes)
	}
}

func TestImportCircles(t *testing.T) {
	b := New()
	all := map[string]Sharing{
		"A": {Exports: []Export{{Subject: ">"}, {Service: true, Subject: "s"}}, Imports: []Import{{Account: "B", Subject: "x.>"}, {Service: true, Account: "B", Subject: "s"}}},
		"B": {Exports: []Export{{Subject: ">"}, {Service: true, Subject: "s"}}, Imports: []Import{{Account: "A", Subject: "x.>"}, {Service: true, Account: "A", Subject: "s"}}},
	}
	share(t, b, all)
	got := 0
	b.Account("A").Subscribe("x.y", "", func(*Msg) { got++ })
	b.Account("A").Publish(nil, "x.y", "", nil, nil)
	b.Account("B").Publish(nil, "x.y", "", nil, nil)
	if got != 2 {
		t.Errorf("%d copies of two messages", got)
	}
	if n := b.Account("A").Publish(nil, "s", "r", nil, nil); n != 0 {
		t.Errorf("a request in a circle was taken %d times", n)
	}
}

func TestShareRefuses(t *testing.T) {
	exports := Sharing{Exports: []Export{{Subject: "ev.>"}, {Service: true, Subject: "s.*", Accounts: []string{"OTHER"}}}}
	for _, im := range []Import{
		{Account: "SRC", Subject: "other"},
		{Account: "SRC", Subject: ">"},
		{Account: "NONE", Subject: "ev.x"},
		{Account: "SRC", Subject: "s.x", Service: true},
		{Account: "SRC", Subject: "ev.*.*", To: "in.$1"},
		{Account: "SRC", Subject: "ev.>", To: "in"},
		{Account: "SRC", Subject: "ev.*", To: "in.$2"},
	} {
		b := New()
		if err := b.Share(map[string]Sharing{"SRC": exports, "APP": {Imports: []Import{im}}}); err == nil {
			t.Errorf("%+v was taken", im)
		}
	}
}

func TestNarrow(t *testing.T) {
	for _, tc := range []struct{ there, to, sub, want string }{
		{"a.b", "", "a.b", "a.b"},
		{"a.b", "", "a.*", "a.b"},
		{"a.b", "", ">", "a.b"},
		{"a.b", "", "a.c", ""},
		{"a.*", "", "a.x", "a.x"},
		{"a.*", "", "*.*", "a.*"},
		{"a.>", "", "a.x.*", "a.x.*"},
		{"a.>", "", ">", "a.>"},
		{"a.>", "", "a.>", "a.>"},
		{"a.>", "b.c.>", "b.*.x", "a.x"},
		{"a.>", "b.c.>", "b.>", "a.>"},
		{"a.*.*", "b.$2.$1", "b.x.*", "a.*.x"},
		{"a.*.>", "b.*.>", "b.>", "a.*.>"},
	} {
		m, err := newMapping(Import{Subject: tc.there, To: tc.to})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := m.narrow(tc.sub); got != tc.want || ok != (tc.want != "") {
			t.Errorf("%s to %q, subscribed %s: %q, want %q", tc.there, tc.to, tc.sub, got, tc.want)
		}
	}
}
