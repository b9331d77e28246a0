package stream

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

func TestResultRoundTrip(t *testing.T) {
	for _, want := range []*Result{
		{},
		{Seq: 1 << 60},
		{Seq: 7, Duplicate: true},
		{Purged: 300},
		{Purged: 300, Rest: &Purge{Filter: "a.>", Seq: 70, Most: 300, After: "a.b"}},
		{Created: -5},
		{Err: api.ErrWrongLastSequence.With(7)},
		{Seq: 7, Republish: &Republished{Subject: "a.b", Header: []byte("h"), Data: []byte("d")}},
	} {
		got, err := DecodeResult(AppendResult(nil, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v becomes %+v, %v", want, got, err)
		}
	}
}

func FuzzDecodeResult(f *testing.F) {
	f.Add(AppendResult(nil, &Result{Err: api.ErrBadRequest}))
	f.Add(AppendResult(nil, &Result{Seq: 1, Republish: &Republished{Subject: "x", Data: []byte("y")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeResult(b)
		if err != nil {
			return
		}
		again, err := DecodeResult(AppendResult(nil, r))
		if err != nil {
			t.Fatalf("%+v does not decode again: %v", r, err)
		}
		if r.Republish == nil && !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v becomes %+v", r, again)
		}
	})
}

// FuzzCommand applies arbitrary commands: each is either damage, which is reported, or executed;
// a publish comes back byte for byte.
func FuzzCommand(f *testing.F) {
	header := []byte(HeaderLine + "Nats-Msg-Id: 1\r\nNats-TTL: 1s\r\n\r\n")
	f.Add(AppendPublish(nil, "a.b", header, []byte("data")))
	f.Add(EncodeDelete(&Delete{Seq: 1, Erase: true}))
	f.Add(EncodePurge(&Purge{Filter: "a.*", Keep: 1}))
	f.Add(EncodePurge(&Purge{Filter: "a.*", Seq: 7, Most: 1, After: "a.b"}))
	f.Add(EncodeExpire())
	f.Add(EncodeConfigure(&Configure{Revision: 2}))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, command []byte) {
		s, err := Open(memory.New(), replica.Entry{Index: 1, Term: 1})
		if err != nil {
			t.Fatal(err)
		}
		c, refused := api.StreamConfig{Name: "S", Subjects: []string{"a.>"}, AllowMsgTTL: true, AllowRollup: true}.Normalize(false)
		if refused != nil {
			t.Fatal(refused)
		}
		configure := EncodeConfigure(&Configure{Config: c, Revision: 1})
		if _, err := s.Apply(replica.Entry{Index: 2, Term: 1}, 1, [][]byte{configure}); err != nil {
			t.Fatal(err)
		}
		results, err := s.Apply(replica.Entry{Index: 3, Term: 1}, 2, [][]byte{command})
		if err != nil || Kind(command[0]) != KindPublish {
			return
		}
		r := results[0].(*Result)
		if r.Err != nil {
			return
		}
		p, err := decodePublish(command[1:])
		if err != nil {
			t.Fatalf("an undecodable command was applied: %v", err)
		}
		m, ok, err := s.Get(r.Seq)
		if err != nil || !ok {
			t.Fatalf("message %d is not there: %v", r.Seq, err)
		}
		if m.Subject != string(p.subject) || !bytes.Equal(m.Data, p.data) || !bytes.Equal(m.Header, withoutStatus(p.header)) {
			t.Fatalf("stored %+v of %q", m, command)
		}
	})
}
