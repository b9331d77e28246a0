package kv

import (
	"reflect"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	if got := Subject("b", "a.c"); got != "$KV.b.a.c" {
		t.Errorf("subject %q", got)
	}
	for _, c := range []struct {
		subject, key string
		ok           bool
	}{{"$KV.b.a.c", "a.c", true}, {"$KV.b.", "", false}, {"$KV.bb.a", "$KV.bb.a", false}} {
		if key, ok := Key("b", c.subject); ok != c.ok || ok && key != c.key {
			t.Errorf("%s is key %q, %v", c.subject, key, ok)
		}
	}
	for stream, want := range map[string]bool{"KV_b": true, "KV_": false, "b": false, "KV_a.b": false} {
		if _, ok := BucketName(stream); ok != want {
			t.Errorf("%s holds a bucket: %v", stream, ok)
		}
	}
	for key, want := range map[string]bool{"a": true, "a.b=/_-": true, "": false, ".a": false, "a.": false, "a..b": false, "a b": false, "a*": false, "*": false, "é": false} {
		if ValidKey(key) != want {
			t.Errorf("key %q is valid: %v", key, !want)
		}
	}
	for pattern, want := range map[string]bool{"a.*": true, ">": true, "a.>": true, ">.a": false, "a..b": false, "a b": false} {
		if ValidPattern(pattern) != want {
			t.Errorf("pattern %q is valid: %v", pattern, !want)
		}
	}
}

func TestOperations(t *testing.T) {
	for _, op := range []Operation{Put, Delete, Purge} {
		if got := OperationOf(op.Header()); got != op {
			t.Errorf("%v comes back as %v", op, got)
		}
	}
	for header, want := range map[string]Operation{
		"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1s\r\n\r\n": Purge,
		"NATS/1.0\r\nNats-Marker-Reason: Remove\r\n\r\n":                 Delete,
		"NATS/1.0\r\nKV-Operation: OTHER\r\n\r\n":                        Put,
		"NATS/1.0\r\nkv-operation: DEL\r\n\r\n":                          Put,
	} {
		if got := OperationOf([]byte(header)); got != want {
			t.Errorf("%q is %v, want %v", header, got, want)
		}
	}
}

func TestBucketRoundTrip(t *testing.T) {
	for _, want := range []Bucket{
		{Name: "a", History: 1, MaxBytes: -1, MaxValueBytes: -1, Engine: "file", Replicas: 1},
		{Name: "b", History: 5, MaxBytes: 100, MaxValueBytes: 10, Engine: "memory", Replicas: 3, TTL: time.Hour, MarkerTTL: time.Minute},
		{Name: "c", History: 64, MaxBytes: -1, MaxValueBytes: -1, Engine: "rocksdb", Replicas: 1, StaleReads: true, Compressed: true,
			Metadata: map[string]string{"x": "y"}, RepublishTo: "copy.>", PlacementTags: []string{"ssd"}},
	} {
		c := want.StreamConfig()
		normal, refused := c.Normalize(true)
		if refused != nil {
			t.Fatalf("%s: %v", want.Name, refused)
		}
		if got, ok := BucketOf(&normal); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v becomes %+v", want, got)
		}
	}
}
