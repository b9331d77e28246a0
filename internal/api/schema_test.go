package api

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jsm.go/schemas"
)

// schema is a JSON schema of jsm.go, as far as those use the language.
type schema map[string]any

func loadSchema(t *testing.T, kind string) schema {
	t.Helper()
	b, err := schemas.Load("jetstream/api/v1/" + kind + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// check lists what is wrong with v.
func (s schema) check(at string, v any) (wrong []string) {
	fail := func(format string, args ...any) {
		wrong = append(wrong, at+": "+fmt.Sprintf(format, args...))
	}
	for keyword, rule := range s { // order: all rules are checked
		switch keyword {
		case "type":
			if !typeMatches(rule, v) {
				fail("%v is no %v", v, rule)
			}
		case "required":
			for _, name := range rule.([]any) {
				if o, ok := v.(map[string]any); ok && o[name.(string)] == nil {
					fail("member %s is missing", name)
				}
			}
		case "properties":
			o, _ := v.(map[string]any)
			for name, sub := range rule.(map[string]any) { // order: all are checked
				if member, ok := o[name]; ok {
					wrong = append(wrong, schema(sub.(map[string]any)).check(at+"."+name, member)...)
				}
			}
		case "items":
			list, _ := v.([]any)
			for i, item := range list {
				wrong = append(wrong, schema(rule.(map[string]any)).check(fmt.Sprintf("%s[%d]", at, i), item)...)
			}
		case "allOf":
			for _, sub := range rule.([]any) {
				wrong = append(wrong, schema(sub.(map[string]any)).check(at, v)...)
			}
		case "oneOf", "anyOf":
			var all []string
			n := 0
			for _, sub := range rule.([]any) {
				problems := schema(sub.(map[string]any)).check(at, v)
				if len(problems) == 0 {
					n++
				}
				all = append(all, problems...)
			}
			if n == 0 || n > 1 && keyword == "oneOf" {
				fail("%d alternatives match: %s", n, strings.Join(all, "; "))
			}
		case "enum":
			if !slices.Contains(rule.([]any), v) {
				fail("%v is none of %v", v, rule)
			}
		case "const":
			if v != rule {
				fail("%v is not %v", v, rule)
			}
		case "minimum":
			if n, ok := v.(float64); ok && n < rule.(float64) {
				fail("%v is below %v", v, rule)
			}
		case "maximum":
			if n, ok := v.(float64); ok && n > rule.(float64) {
				fail("%v is above %v", v, rule)
			}
		case "minLength":
			if text, ok := v.(string); ok && float64(len(text)) < rule.(float64) {
				fail("%q is too short", text)
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(rule.(string)).MatchString(text) {
				fail("%q does not match %s", text, rule)
			}
		}
	}
	return wrong
}

func typeMatches(rule, v any) bool {
	if kinds, ok := rule.([]any); ok {
		return slices.ContainsFunc(kinds, func(k any) bool { return typeMatches(k, v) })
	}
	switch v := v.(type) {
	case map[string]any:
		return rule == "object"
	case []any:
		return rule == "array"
	case string:
		return rule == "string"
	case bool:
		return rule == "boolean"
	case float64:
		return rule == "number" || rule == "integer" && v == float64(int64(v))
	}
	return rule == "null"
}

func sampleStream() *StreamInfo {
	cfg, _ := StreamConfig{Name: "KV_b", Subjects: []string{"$KV.b.>"}, MaxMsgsPerSubject: 5, Discard: DiscardNew, AllowMsgTTL: true,
		SubjectDeleteMarkerTTL: time.Second, Republish: &Republish{Destination: "x.>"}, Placement: &Placement{Tags: []string{"a"}}}.Normalize(false)
	now := time.Now().UTC()
	return &StreamInfo{Config: cfg.Stamped("2.11.0"), Created: now, TimeStamp: now,
		State:   StreamState{Msgs: 2, Bytes: 70, FirstSeq: 1, LastSeq: 3, FirstTime: now, LastTime: now, NumSubjects: 2, Subjects: map[string]uint64{"a": 1}, NumDeleted: 1, Deleted: []uint64{2}},
		Cluster: &ClusterInfo{Name: "c", Leader: "n1", Replicas: []*PeerInfo{{Name: "n2", Current: true, Peer: "abc"}}},
	}
}

func sampleConsumer() *ConsumerInfo {
	now := time.Now().UTC()
	return &ConsumerInfo{Stream: "S", Name: "c", Created: now, TimeStamp: now, Delivered: SequenceInfo{Consumer: 1, Stream: 2, Last: &now},
		Config: ConsumerConfig{Name: "c", DeliverPolicy: DeliverLastPerSubject, FilterSubjects: []string{"a", "b"}, Metadata: map[string]string{"a": "b"}}}
}

// TestSchemas holds what we emit against the schemas that the nats tool validates answers with.
func TestSchemas(t *testing.T) {
	refused := func(kind string) Header {
		h := ReplyHeader(kind)
		h.Error = ErrWrongLastSequence.With(7)
		return h
	}
	for _, c := range []struct {
		kind  string
		reply func(Header) any
	}{
		{"account_info_response", func(h Header) any {
			return &AccountInfoResponse{Header: h, AccountTier: AccountTier{Limits: Unlimited}, API: APIStats{Level: Level}}
		}},
		{"stream_create_response", func(h Header) any {
			return &StreamCreateResponse{Header: h, StreamInfo: sampleStream(), DidCreate: true}
		}},
		{"stream_update_response", func(h Header) any { return &StreamCreateResponse{Header: h, StreamInfo: sampleStream()} }},
		{"stream_info_response", func(h Header) any { return &StreamInfoResponse{Header: h, StreamInfo: sampleStream()} }},
		{"stream_delete_response", func(h Header) any { return &SuccessResponse{Header: h, Success: true} }},
		{"stream_msg_delete_response", func(h Header) any { return &SuccessResponse{Header: h, Success: true} }},
		{"stream_purge_response", func(h Header) any { return &StreamPurgeResponse{Header: h, Success: true} }},
		{"stream_names_response", func(h Header) any {
			return &StreamNamesResponse{Header: h, Page: Page{Limit: NamesPage}, Streams: []string{"a"}}
		}},
		{"stream_list_response", func(h Header) any {
			return &StreamListResponse{Header: h, Page: Page{Limit: ListPage}, Streams: []*StreamInfo{sampleStream()}}
		}},
		{"stream_msg_get_response", func(h Header) any {
			return &MsgGetResponse{Header: h, Message: &StoredMessage{Subject: "a", Seq: 1, Data: []byte("x"), Time: time.Now()}}
		}},
		{"consumer_create_response", func(h Header) any { return &ConsumerInfoResponse{Header: h, ConsumerInfo: sampleConsumer()} }},
		{"consumer_info_response", func(h Header) any { return &ConsumerInfoResponse{Header: h, ConsumerInfo: sampleConsumer()} }},
		{"consumer_names_response", func(h Header) any {
			return &ConsumerNamesResponse{Header: h, Page: Page{Limit: NamesPage}, Consumers: []string{"c"}}
		}},
		{"consumer_list_response", func(h Header) any {
			return &ConsumerListResponse{Header: h, Page: Page{Limit: ListPage}, Consumers: []*ConsumerInfo{sampleConsumer()}}
		}},
		{"consumer_delete_response", func(h Header) any { return &SuccessResponse{Header: h, Success: true} }},
	} {
		s := loadSchema(t, c.kind)
		bodies := map[string]any{"answer": c.reply(ReplyHeader(c.kind))}
		if !strings.HasSuffix(c.kind, "names_response") && !strings.HasSuffix(c.kind, "list_response") {
			// Refused lists keep the shape of a list, in nats-server too, and match neither schema.
			bodies["refusal"] = &SuccessResponse{Header: refused(c.kind)}
		}
		for name, body := range bodies {
			b, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			for _, problem := range s.check(c.kind+" "+name, v) {
				t.Error(problem)
			}
		}
	}
}
