package jetstream

import (
	"fmt"
	"maps"
	"testing"
)

// Operations on keys are counted by kind and by what came of them; other streams are not.
func TestOperationsAreCounted(t *testing.T) {
	s := startServer(t, nil)
	for _, create := range []string{
		`{"name":"KV_b","subjects":["$KV.b.>"],"max_msgs_per_subject":1,"allow_direct":true,"allow_rollup_hdrs":true,"max_msg_size":100}`,
		`{"name":"S","subjects":["s"],"allow_direct":true}`,
	} {
		name := "KV_b"
		if create[9] == 'S' {
			name = "S"
		}
		s.request("$JS.API.STREAM.CREATE."+name, "", create)
	}
	s.request("s", "", "not a key")
	s.request("$JS.API.DIRECT.GET.S.s", "", "")
	s.request("$KV.b.k", "", "1")
	s.request("$KV.b.k", "Nats-Expected-Last-Subject-Sequence: 0", "2")
	s.request("$KV.b.k", "", string(make([]byte, 200)))
	s.publish("$KV.b.l", "", "nobody waits for this")
	s.request("$KV.b.k", "KV-Operation: DEL", "")
	s.request("$KV.b.k", "KV-Operation: PURGE; Nats-Rollup: sub", "")
	s.request("$JS.API.DIRECT.GET.KV_b.$KV.b.k", "", "")
	s.request("$JS.API.DIRECT.GET.KV_b.$KV.b.nothing", "", "")
	s.request("$JS.API.DIRECT.GET.KV_b", "", `{"seq":1}`)
	s.request("$JS.API.STREAM.MSG.GET.KV_b", "", `{"last_by_subj":"$KV.b.k"}`)

	want := map[string]uint64{
		"put ok": 2, "put conflict": 1, "put refused": 1, "delete ok": 1, "purge ok": 1, "get ok": 2, "get not_found": 2,
	}
	got := make(map[string]uint64)
	for _, op := range s.service.Operations() {
		for result, n := range op.Results {
			if n > 0 {
				got[op.Name+" "+result] = n
			}
		}
		if most := op.Within[10]; op.Count() > 0 && (most != op.Count() || op.Seconds <= 0 || op.Within[0.00005] > most) {
			t.Errorf("%s: %d operations took %v s: %v", op.Name, op.Count(), op.Seconds, op.Within)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v\nnot     %v", fmt.Sprint(got), fmt.Sprint(want))
	}
}

func BenchmarkOperationsDone(b *testing.B) {
	var o operations
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			o.done(opPut, resultOK, sinceEpoch())
		}
	})
}
