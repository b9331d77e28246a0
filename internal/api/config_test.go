package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// normalize decodes and completes a configuration as a create request does.
func normalize(text string) (StreamConfig, *Error) {
	var req StreamConfigRequest
	if err := Decode([]byte(text), &req); err != nil {
		return StreamConfig{}, err
	}
	c, err := req.Normalize(req.Pedantic)
	if err != nil {
		return c, err
	}
	return c, c.CheckCreate()
}

// TestRefusedConfigs lists configurations that nats-server 2.15.2 refuses, with its words.
func TestRefusedConfigs(t *testing.T) {
	for _, c := range []struct {
		config string
		code   uint16
		text   string
	}{
		{`{"name":"A","foo":1}`, 10025, `invalid JSON: json: unknown field "foo"`},
		{`{"name":"A","placement":{"clustr":"x"}}`, 10025, `invalid JSON: json: unknown field "clustr"`},
		{`{"name":"A","retention":"x<y"}`, 10025, `invalid JSON: can not unmarshal "\"x<y\""`},
		{`{"name":"A","retention":5}`, 10025, `invalid JSON: can not unmarshal "5"`},
		{`{"name":"A",`, 10025, `invalid JSON: unexpected EOF`},
		{`{"name":"A"} x`, 10025, `invalid JSON: invalid character 'x' looking for beginning of value at offset 14`},
		{`{"name":5}`, 10025, `invalid JSON: json: cannot unmarshal number into Go struct field StreamConfigRequest.StreamConfig.name of type string`},
		{`{"name":""}`, 10052, `stream name is required and can not contain '.', '*', '>', '\', '/'`},
		{`{"name":"a*b"}`, 10052, `stream name is required and can not contain '.', '*', '>', '\', '/'`},
		{`{"name":"` + strings.Repeat("x", 256) + `"}`, 10052, `stream name is too long, maximum allowed is 255`},
		{`{"name":"A","description":"` + strings.Repeat("x", 4097) + `"}`, 10052, `stream description is too long, maximum allowed is 4096`},
		{`{"name":"A","metadata":{"k":"` + strings.Repeat("x", 131072) + `"}}`, 10052, `stream metadata exceeds maximum size of 131072 bytes`},
		{`{"name":"A","num_replicas":6}`, 10052, `maximum replicas is 5`},
		{`{"name":"A","num_replicas":-1}`, 10133, `replicas count cannot be negative`},
		{`{"name":"A","max_msgs":-7,"pedantic":true}`, 10157, `pedantic mode: max_msgs must be set to -1`},
		{`{"name":"A","max_msg_size":-7,"pedantic":true}`, 10157, `pedantic mode: max_msg_size must be set to -1`},
		{`{"name":"A","max_age":-1}`, 10052, `max age can not be negative`},
		{`{"name":"A","max_age":1000}`, 10052, `max age needs to be >= 100ms`},
		{`{"name":"A","duplicate_window":-20000}`, 10052, `duplicates window can not be negative`},
		{`{"name":"A","duplicate_window":20000}`, 10052, `duplicates window needs to be >= 100ms`},
		{`{"name":"A","max_age":1000000000,"duplicate_window":2000000000}`, 10052, `duplicates window can not be larger then max age`},
		{`{"name":"A","deny_purge":true,"allow_rollup_hdrs":true}`, 10052, `roll-ups require the purge permission`},
		{`{"name":"A","discard_new_per_subject":true}`, 10052, `discard new per subject requires discard new policy to be set`},
		{`{"name":"A","discard_new_per_subject":true,"discard":"new"}`, 10052, `discard new per subject requires max msgs per subject > 0`},
		{`{"name":"A","subject_delete_marker_ttl":1000}`, 10052, `subject delete marker TTL must be at least 1 second`},
		{`{"name":"A","subject_delete_marker_ttl":-1000}`, 10052, `subject delete marker TTL must not be negative`},
		{`{"name":"A","subject_delete_marker_ttl":1000000000,"pedantic":true}`, 10052, `subject delete marker cannot be set if message TTLs are disabled`},
		{`{"name":"A","subject_delete_marker_ttl":1000000000,"allow_msg_ttl":true,"pedantic":true}`, 10052, `subject delete marker cannot be set if roll-ups are disabled`},
		{`{"name":"A","allow_msg_counter":true,"discard":"new"}`, 10052, `counter stream cannot use discard new`},
		{`{"name":"A","persist_mode":"async","storage":"memory"}`, 10052, `async persist mode is only supported on file storage`},
		{`{"name":"A","mirror":{"name":"B"},"subjects":["x"]}`, 10034, `stream mirrors can not contain subjects`},
		{`{"name":"A","subjects":["foo..bar"]}`, 10052, `invalid subject`},
		{`{"name":"A","subjects":[""]}`, 10052, `invalid subject`},
		{`{"name":"A","subjects":["b","a.*","a.b"]}`, 10052, `subject "a.*" overlaps with "a.b"`},
		{`{"name":"A","subjects":["a","a"]}`, 10052, `subject "a" overlaps with "a"`},
		{`{"name":"A","subjects":[">"]}`, 10052, `capturing all subjects requires no-ack to be true`},
		{`{"name":"A","subjects":[">"],"no_ack":true,"num_replicas":3}`, 10052, `capturing all subjects requires replicas of 1`},
		{`{"name":"A","subjects":["*.>"]}`, 10052, `subjects that overlap with jetstream api require no-ack to be true`},
		{`{"name":"A","subjects":["$JSC.x"]}`, 10052, `subjects that overlap with jetstream api require no-ack to be true`},
		{`{"name":"A","subjects":["$SYS.SERVER.>"]}`, 10052, `subjects that overlap with system api require no-ack to be true`},
		{`{"name":"A","republish":{"dest":"x.>"},"pedantic":true}`, 10157, `pedantic mode: republish source can not be empty`},
		{`{"name":"A","republish":{"dest":">"}}`, 10052, `stream configuration for republish destination forms a cycle`},
		{`{"name":"A","republish":{"src":"A","dest":"x.>"}}`, 10052, `stream configuration for republish with transform from 'A' to 'x.>' not valid`},
		{`{"name":"A","subject_transform":{"src":"zzz..*","dest":"x.$1"}}`, 10155, `stream transform source: invalid subject zzz..*`},
		{`{"name":"A","subject_transform":{"src":"zzz.*","dest":"x.$1.$2"}}`, 10156, `stream transform: invalid mapping destination: wildcard index out of range in $2: [2]`},
		{`{"name":"A","subject_transform":{"src":"*","dest":"x.{{foo(1)}}"}}`, 10156, `stream transform: invalid mapping destination: unknown function in {{foo(1)}}`},
		{`{"name":"A","placement":{"preferred":"x"}}`, 10052, `preferred server not permitted in placement`},
		{`{"name":"A","sealed":true}`, 10052, `stream configuration for create can not be sealed`},
		{`{"name":"A","mirror_direct":true}`, 10052, `stream has no mirror but does have mirror direct`},

		// Ours alone: what is not built, and what is not known.
		{`{"name":"A","allow_atomic":true}`, 10185, `JetStream minimum api level required`},
		{`{"name":"A","allow_msg_schedules":true}`, 10185, `JetStream minimum api level required`},
		{`{"name":"A","metadata":{"cleat.storage":"tape"}}`, 10052, `metadata cleat.storage can not be "tape" with file storage`},
		{`{"name":"A","storage":"memory","metadata":{"cleat.storage":"rocksdb"}}`, 10052, `metadata cleat.storage can not be "rocksdb" with memory storage`},
		{`{"name":"A","metadata":{"cleat.reads":"fast"}}`, 10052, `metadata cleat.reads can not be "fast"`},
	} {
		_, err := normalize(c.config)
		if err == nil || err.ErrCode != c.code || err.Description != c.text {
			t.Errorf("%.120s:\n got %v\nwant %s (%d)", c.config, err, c.text, c.code)
		}
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{`{"name":"A"}`, `{"name":"A","subjects":["A"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,` +
			`"max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":120000000000,` +
			`"compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,` +
			`"allow_rollup_hdrs":false,"consumer_limits":{},"allow_msg_ttl":false}`},
		{`{"name":"A","subjects":["a"],"max_age":1000000000,"placement":{},"subject_delete_marker_ttl":1000000000,"deny_purge":true,"republish":{"dest":"x.>"},"metadata":{"_nats.ver":"1","a":"b"}}`,
			`{"name":"A","subjects":["a"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":1000000000,` +
				`"max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":1000000000,` +
				`"compression":"none","republish":{"src":"\u003e","dest":"x.\u003e"},"allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,` +
				`"allow_rollup_hdrs":true,"consumer_limits":{},"allow_msg_ttl":true,"subject_delete_marker_ttl":1000000000,"metadata":{"a":"b"}}`},
	} {
		cfg, refused := normalize(c.config)
		if refused != nil {
			t.Errorf("%s: %v", c.config, refused)
			continue
		}
		b, err := json.Marshal(cfg)
		if err != nil || string(b) != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.config, b, c.want)
		}
		again, refused := cfg.Normalize(false)
		if refused != nil || !reflect.DeepEqual(again, cfg) {
			t.Errorf("%s is not stable: %v %+v", c.config, refused, again)
		}
	}
}

func TestUpdates(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{`{"name":"A"}`, `{"name":"A","description":"d","max_msgs":5,"deny_delete":true}`, ""},
		{`{"name":"A"}`, `{"name":"B"}`, "stream configuration name must match original"},
		{`{"name":"A"}`, `{"name":"A","storage":"memory"}`, "stream configuration update can not change storage type"},
		{`{"name":"A"}`, `{"name":"A","metadata":{"cleat.storage":"rocksdb"}}`, "stream configuration update can not change storage type"},
		{`{"name":"A","retention":"workqueue"}`, `{"name":"A"}`, "stream configuration update can not change retention policy to/from workqueue"},
		{`{"name":"A","retention":"interest"}`, `{"name":"A"}`, ""},
		{`{"name":"A","deny_delete":true}`, `{"name":"A"}`, "stream configuration update can not cancel deny message deletes"},
		{`{"name":"A","deny_purge":true}`, `{"name":"A"}`, "stream configuration update can not cancel deny purge"},
		{`{"name":"A","allow_msg_ttl":true}`, `{"name":"A"}`, "message TTL status can not be disabled"},
		{`{"name":"A"}`, `{"name":"A","num_replicas":3,"placement":{"cluster":"c"}}`, ErrMoveAndScale.Description},
	} {
		from, err1 := normalize(c.from)
		to, err2 := normalize(c.to)
		if err1 != nil || err2 != nil {
			t.Fatal(c, err1, err2)
		}
		got := ""
		if err := CheckUpdate(&from, &to); err != nil {
			got = err.Description
		}
		if got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

func TestSeal(t *testing.T) {
	from, _ := normalize(`{"name":"A","max_age":1000000000,"allow_rollup_hdrs":true}`)
	to := from
	to.Sealed = true
	if err := CheckUpdate(&from, &to); err != nil {
		t.Fatal(err)
	}
	if to.MaxAge != 0 || to.Discard != DiscardNew || !to.DenyDelete || !to.DenyPurge || to.AllowRollup {
		t.Errorf("sealed: %+v", to)
	}
	open := to
	open.Sealed = false
	if err := CheckUpdate(&to, &open); err == nil {
		t.Error("a sealed stream was opened again")
	}
}

func TestConfigEqual(t *testing.T) {
	a, _ := normalize(`{"name":"A","metadata":{"a":"b"}}`)
	for text, want := range map[string]bool{
		`{"name":"A","metadata":{"a":"b","_nats.level":"5"}}`: true,
		`{"name":"A","metadata":{"a":"c"}}`:                   false,
		`{"name":"A","metadata":{"a":"b"},"subjects":["A"]}`:  true,
		`{"name":"A","metadata":{"a":"b"},"subjects":["B"]}`:  false,
	} {
		b, _ := normalize(text)
		stamped := b.Stamped("9.9.9")
		if got := ConfigEqual(&a, &stamped); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestPubAck(t *testing.T) {
	for _, c := range []struct {
		ack  PubAck
		want string
	}{
		{PubAck{Stream: "KV_b", Seq: 12}, `{"stream":"KV_b","seq":12}`},
		{PubAck{Stream: "KV_b", Seq: 12, Domain: "hub", Duplicate: true}, `{"stream":"KV_b","domain":"hub","seq":12,"duplicate":true}`},
		{PubAck{Stream: "KV_b", Err: ErrWrongLastSequence.With(5)},
			`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"KV_b","seq":0}`},
		{PubAck{Stream: "a\"b\\c\n\xff\u00e9"}, `{"stream":"a\"b\\c\u000a` + "\ufffd\u00e9" + `","seq":0}`},
	} {
		got := string(c.ack.AppendJSON(nil))
		if got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// FuzzDecode reads any bytes as a configuration: no panic, and what is accepted is stable.
func FuzzDecode(f *testing.F) {
	f.Add(`{"name":"A","subjects":["a.>"],"max_age":1000000000,"republish":{"dest":"x.>"}}`)
	f.Add(`{"name":"A","subject_transform":{"src":"*.*","dest":"{{partition(3,1,2)}}.$1"}}`)
	f.Add(`{"name":"A","mirror":{"name":"B"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, refused := normalize(text)
		if refused != nil {
			return
		}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, refused := normalize(string(b))
		if refused != nil {
			t.Fatalf("%s is refused the second time: %v", b, refused)
		}
		if !ConfigEqual(&c, &again) {
			t.Fatalf("%s is not stable", b)
		}
	})
}

func TestPage(t *testing.T) {
	for _, c := range []struct{ total, offset, from, to int }{{5, 0, 0, 2}, {5, 4, 4, 5}, {5, 9, 5, 5}, {0, 0, 0, 0}, {5, -1, 0, 2}} {
		p := Page{Total: c.total, Offset: c.offset, Limit: 2}
		if from, to := p.Slice(); from != c.from || to != c.to {
			t.Errorf("%+v: %d..%d", c, from, to)
		}
	}
}

func TestEmptyRequest(t *testing.T) {
	for body, want := range map[string]bool{"": true, " \n": true, "{}": true, " { } ": true, "{": false, `{"a":1}`: false, "[]": false, "}": false} {
		if EmptyRequest([]byte(body)) != want {
			t.Errorf("%q: %v", body, !want)
		}
	}
}

func TestWith(t *testing.T) {
	e := ErrExternalAPIOverlap.With("p", "s")
	if e.Description != "stream external api prefix p must not overlap with s" || e.Code != 400 {
		t.Errorf("%+v", e)
	}
	if ErrExternalAPIOverlap.Description == e.Description {
		t.Error("With changed the definition")
	}
	if !errors.Is(e, ErrExternalAPIOverlap) || errors.Is(e, ErrBadRequest) {
		t.Error("a filled in error is not told by its code")
	}
}
