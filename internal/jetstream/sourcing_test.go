package jetstream

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

func (s *server) info(name string) *api.StreamInfo {
	s.t.Helper()
	var r api.StreamInfoResponse
	if err := json.Unmarshal([]byte(s.request("$JS.API.STREAM.INFO."+name, "", "").data), &r); err != nil || r.Error != nil {
		s.t.Fatal(err, r.Error)
	}
	return r.StreamInfo
}

// await waits until the stream is as it is to become, and then a while to see that it stays so.
func (s *server) await(name string, is func(*api.StreamInfo) bool) *api.StreamInfo {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(s.info(name)); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b, _ := json.Marshal(s.info(name))
			s.t.Fatalf("%s stays %s", name, b)
		}
	}
	time.Sleep(50 * time.Millisecond)
	i := s.info(name)
	if !is(i) {
		s.t.Fatalf("%s became %+v", name, i.State)
	}
	return i
}

func hasMsgs(n uint64) func(*api.StreamInfo) bool {
	return func(i *api.StreamInfo) bool { return i.State.Msgs == n }
}

func TestSourcesAreCopiedOnce(t *testing.T) {
	s := startServer(t, nil)
	s.create(`{"name":"A","sources":[{"name":"O","subject_transforms":[{"src":"o.*.keep","dest":"a.$1"}]},{"name":"P"}]}`)
	i := s.await("A", func(i *api.StreamInfo) bool { return len(i.Sources) == 2 && i.Sources[0].Error != nil })
	if i.Sources[0].Active != -1 {
		t.Fatalf("%+v", i.Sources[0])
	}
	s.create(`{"name":"O","subjects":["o.>"]}`)
	s.create(`{"name":"P","subjects":["p"]}`)
	const n = 600 // More than a copier has under way.
	for k := range n {
		s.request(fmt.Sprintf("o.%d.keep", k), "Nats-Expected-Stream: O", "v")
		s.request(fmt.Sprintf("o.%d.drop", k), "", "v")
	}
	s.request("p", "", "w")
	i = s.await("A", hasMsgs(n+1))
	if src := i.Sources[0]; src.Lag != 0 || src.Active < 0 || src.Error != nil || len(src.SubjectTransforms) != 1 {
		t.Fatalf("%+v", src)
	}
	s.restart()
	s.request("o.last.keep", "", "v")
	s.await("A", hasMsgs(n+2))
	m := s.request("$JS.API.STREAM.MSG.GET.A", "", `{"last_by_subj":"a.last"}`)
	var r api.MsgGetResponse
	if err := json.Unmarshal([]byte(m.data), &r); err != nil || r.Error != nil {
		t.Fatal(m.data)
	}
	want := fmt.Sprintf("NATS/1.0\r\nNats-Stream-Source: O %d o.*.keep a.$1 o.last.keep\r\n\r\n", 2*n+1)
	if string(r.Message.Header) != want {
		t.Fatalf("got %q", r.Message.Header)
	}
	// The origin made again is another one.
	s.request("$JS.API.STREAM.DELETE.P", "", "")
	s.create(`{"name":"P","subjects":["p"]}`)
	s.request("p", "", "w")
	s.await("A", hasMsgs(n+3))
}

func TestSourceStartsWhereAsked(t *testing.T) {
	s := startServer(t, nil)
	s.create(`{"name":"O","subjects":["o"]}`)
	for range 5 {
		s.request("o", "", "v")
	}
	s.create(`{"name":"A","sources":[{"name":"O","opt_start_seq":4}]}`)
	s.create(`{"name":"B","sources":[{"name":"O","opt_start_time":"` + time.Now().UTC().Format(time.RFC3339Nano) + `"}]}`)
	s.await("A", hasMsgs(2))
	s.request("o", "", "v")
	s.await("A", hasMsgs(3))
	s.await("B", hasMsgs(1))
}

func TestRefusedSources(t *testing.T) {
	s := startServer(t, func(o *Options) { o.Domain = "D" })
	s.create(`{"name":"O","subjects":["o"],"max_msg_size":100}`)
	s.create(`{"name":"A","sources":[{"name":"O","external":{"api":"$JS.D.API"}}]}`)
	s.create(`{"name":"LOOP","sources":[{"name":"LATER"}]}`)
	for rest, want := range map[string]uint16{
		`"sources":[{"name":"O.x"}]`:                                                           10141,
		`"sources":[{"name":"O"},{"name":"O"}]`:                                                10140,
		`"sources":[{"name":"O","filter_subject":"o..x"}]`:                                     10145,
		`"sources":[{"name":"O"}],"max_msg_size":10`:                                           10046,
		`"sources":[{"name":"LOOP"}]`:                                                          10052,
		`"sources":[{"name":"O","external":{"api":"$JS.E.API"}}]`:                              10052,
		`"sources":[{"name":"O","consumer":{"name":"c"}}]`:                                     10215,
		`"sources":[{"name":"O"}],"allow_msg_schedules":true`:                                  10187,
		`"sources":[{"name":"O","subject_transforms":[{"src":"o..x"}]}]`:                       10145,
		`"sources":[{"name":"O","filter_subject":"o","subject_transforms":[{"src":"o"}]}]`:     10144,
		`"sources":[{"name":"O","subject_transforms":[{"src":"o","dest":"$7"}]}]`:              10146,
		`"sources":[{"name":"O","subject_transforms":[{"src":"o"},{"src":">","dest":"b.>"}]}]`: 10147,
	} {
		var r api.StreamCreateResponse
		m := s.request("$JS.API.STREAM.CREATE.LATER", "", `{"name":"LATER",`+rest+`}`)
		if err := json.Unmarshal([]byte(m.data), &r); err != nil || r.Error == nil || r.Error.ErrCode != want {
			t.Errorf("%s: %s", rest, m.data)
		}
	}
}

func TestMirrorFollowsItsOrigin(t *testing.T) {
	s := startServer(t, nil)
	s.create(`{"name":"M","mirror":{"name":"O"}}`)
	s.create(`{"name":"O","subjects":["o.>"],"allow_direct":true}`)
	const n = 400
	for k := range n {
		s.request(fmt.Sprintf("o.%d", k), "X: 1", "v")
	}
	same := func(i *api.StreamInfo) bool {
		o := s.info("O").State
		return i.State.Msgs == o.Msgs && i.State.FirstSeq == o.FirstSeq && i.State.LastSeq == o.LastSeq && i.State.LastTime.Equal(o.LastTime)
	}
	i := s.await("M", same)
	if i.Mirror == nil || i.Mirror.Name != "O" || i.Mirror.Lag != 0 || i.Mirror.Active < 0 || i.Mirror.Error != nil {
		t.Fatalf("%+v", i.Mirror)
	}
	for _, seq := range []int{1, n / 2, n} {
		get := func(name string) string {
			return s.request("$JS.API.STREAM.MSG.GET."+name, "", fmt.Sprintf(`{"seq":%d}`, seq)).data
		}
		if a, b := get("O"), get("M"); a != b {
			t.Fatalf("%s became %s", a, b)
		}
	}
	s.restart()
	s.request("o.last", "", "v")
	s.await("M", same)
	// What was removed before it could be copied leaves a gap, at the end too.
	s.create(`{"name":"G","subjects":["g"]}`)
	for range 6 {
		s.request("g", "", "v")
	}
	for _, seq := range []int{1, 3, 6} {
		s.request("$JS.API.STREAM.MSG.DELETE.G", "", fmt.Sprintf(`{"seq":%d}`, seq))
	}
	s.create(`{"name":"GM","mirror":{"name":"G"}}`)
	s.await("GM", func(i *api.StreamInfo) bool {
		return i.State.Msgs == 3 && i.State.FirstSeq == 2 && i.State.LastSeq == 6
	})
	// Promoted, it goes on by itself.
	s.request("$JS.API.STREAM.UPDATE.GM", "", `{"name":"GM","subjects":["gm"]}`)
	if m := s.request("gm", "", "v"); m.data != `{"stream":"GM","seq":7}` {
		t.Fatal(m.data)
	}
	s.request("g", "", "v")
	s.await("GM", func(i *api.StreamInfo) bool { return i.Mirror == nil && i.State.Msgs == 4 })
	// An origin that was made again is not what the mirror is a mirror of.
	s.request("$JS.API.STREAM.DELETE.O", "", "")
	s.create(`{"name":"O","subjects":["o.>"]}`)
	s.await("M", func(i *api.StreamInfo) bool {
		return i.State.Msgs == n+1 && i.Mirror.Error != nil && i.Mirror.Error.ErrCode == 10029
	})
}

func TestMirrorConfiguration(t *testing.T) {
	s := startServer(t, nil)
	s.create(`{"name":"O","subjects":["o"],"max_msg_size":100,"allow_direct":true}`)
	s.create(`{"name":"M","mirror":{"name":"O"}}`)
	if c := s.info("M").Config; !c.MirrorDirect || len(c.Subjects) > 0 {
		t.Fatalf("%+v", c)
	}
	for rest, want := range map[string]uint16{
		`"mirror":{"name":"O"},"max_msg_size":10`:                                       10030,
		`"mirror":{"name":"O"},"pedantic":true`:                                         10157,
		`"mirror":{"name":"O","consumer":{"name":"c"}}`:                                 10213,
		`"mirror":{"name":"O","filter_subject":"o","subject_transforms":[{"src":"o"}]}`: 10150,
		`"mirror":{"name":"O","subject_transforms":[{"src":"o..x"}]}`:                   10151,
		`"mirror":{"name":"O","subject_transforms":[{"src":"o"},{"src":"*"}]}`:          10152,
		`"mirror":{"name":"O","subject_transforms":[{"src":"o","dest":"$7"}]}`:          10154,
		`"mirror":{"name":"O.x"}`:                                                       10142,
		`"mirror":{"name":"LATER"}`:                                                     10052,
		`"mirror":{"name":"O"},"subject_delete_marker_ttl":1000000000`:                  10052,
		`"mirror":{"name":"O","external":{"api":"$JS.E.API"}}`:                          10052,
	} {
		var r api.StreamCreateResponse
		m := s.request("$JS.API.STREAM.CREATE.LATER", "", `{"name":"LATER",`+rest+`}`)
		if err := json.Unmarshal([]byte(m.data), &r); err != nil || r.Error == nil || r.Error.ErrCode != want {
			t.Errorf("%s: %s", rest, m.data)
		}
	}
	m := s.request("$JS.API.STREAM.UPDATE.M", "", `{"name":"M","mirror":{"name":"X"}}`)
	var r api.StreamCreateResponse
	if err := json.Unmarshal([]byte(m.data), &r); err != nil || r.Error == nil || r.Error.ErrCode != 10055 {
		t.Error(m.data)
	}
}
