package consumer

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

// failing is a reader that cannot answer any more after some calls.
type failing struct {
	storage.Reader
	left int
}

var errUnread = errors.New("the disk does not answer")

func (f *failing) works() bool {
	f.left--
	return f.left >= 0
}

func (f *failing) Err() error {
	if f.left < 0 {
		return errUnread
	}
	return nil
}

func (f *failing) Load(seq uint64) (storage.Message, error) {
	if !f.works() {
		return storage.Message{}, errUnread
	}
	return f.Reader.Load(seq)
}

func (f *failing) Subjects(filters []string, after string, fn func(string, storage.SubjectState) bool) {
	f.Reader.Subjects(filters, after, func(s string, st storage.SubjectState) bool { return f.works() && fn(s, st) })
}

func (f *failing) SubjectSeqs(subject string, from uint64, fn func(uint64) bool) {
	f.Reader.SubjectSeqs(subject, from, func(seq uint64) bool { return f.works() && fn(seq) })
}

func (f *failing) LastSeq(filter string, upTo uint64) (uint64, bool) {
	seq, ok := f.Reader.LastSeq(filter, upTo)
	return seq, f.works() && ok
}

func (f *failing) NextSeq(filters []string, from uint64) (uint64, string, bool) {
	seq, subject, ok := f.Reader.NextSeq(filters, from)
	return seq, subject, f.works() && ok
}

func (f *failing) Count(filters []string, from uint64, lastOnly bool) uint64 {
	if !f.works() {
		return 0
	}
	return f.Reader.Count(filters, from, lastOnly)
}

func (f *failing) Scan(filters []string, from uint64, want int, fn func(m *storage.Message) bool) error {
	err := f.Reader.(storage.Scanner).Scan(filters, from, want, func(m *storage.Message) bool { return f.works() && fn(m) })
	return errors.Join(err, f.Err())
}

// A consumer whose stream can not be read any more at some point has sent a beginning of what there is,
// and nothing that claims to be the end of it.
func TestUnreadIsNotDelivered(t *testing.T) {
	e := memory.New()
	tx := e.Begin()
	for i := range uint64(40) {
		m := storage.Message{Seq: i + 1, Time: int64(i + 1), Subject: fmt.Sprintf("k.%d", i%13), Data: []byte{byte(i)}}
		if err := tx.Append(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(storage.Applied{Index: 1}); err != nil {
		t.Fatal(err)
	}
	for _, policy := range []api.DeliverPolicy{api.DeliverAll, api.DeliverLastPerSubject} {
		for _, filter := range []string{"", "k.*", "k.3", "none"} {
			for _, pull := range []bool{false, true} {
				t.Run(fmt.Sprint(policy, " ", filter, " ", pull), func(t *testing.T) { cutShort(t, e, policy, filter, pull) })
			}
		}
	}
}

func cutShort(t *testing.T, e *memory.Engine, policy api.DeliverPolicy, filter string, pull bool) {
	cfg := api.ConsumerConfig{Name: "c", DeliverPolicy: policy, FilterSubject: filter, AckPolicy: api.AckNone}
	if pull {
		cfg.AckPolicy = api.AckExplicit
	} else {
		cfg.DeliverSubject, cfg.IdleHeartbeat = "d", 1
	}
	Normalize(&cfg, &api.StreamConfig{Name: "S", Subjects: []string{"k.>"}, Replicas: 1})
	all, _ := delivered(t, &failing{e, 1 << 30}, cfg)
	for calls := 0; ; calls++ {
		got, err := delivered(t, &failing{e, calls}, cfg)
		if err == nil {
			if !slices.Equal(got, all) {
				t.Errorf("after %d calls: delivered %d of %d, and no error", calls, len(got), len(all))
			}
			break
		}
		if len(got) > len(all) || !slices.Equal(got, all[:len(got)]) {
			t.Errorf("after %d calls: delivered %d things, which are not the first of %d", calls, len(got), len(all))
		}
	}
}

// delivered makes a consumer, unless the reader fails meanwhile, and gives it turns until it has no
// more to do.
func delivered(t *testing.T, r *failing, cfg api.ConsumerConfig) (lines []string, err error) {
	start := StartOf(r, &cfg)
	c := New(r, Spec{Stream: "S", Name: "c", Config: cfg, Start: start}, nil, 0)
	if r.Err() != nil {
		return nil, r.Err()
	}
	turn := Turn{Reader: r, Interest: func(string, string) bool { return true }, MsgsMax: 7, BytesMax: 1 << 20}
	if c.IsPull() {
		c.Ask(Pull{Reply: "r", Batch: 100, NoWait: true, Expires: 1000}, &turn)
	}
	for more := true; more; {
		turn.Reset(turn.Now + 10)
		more = c.Run(&turn)
		for _, o := range turn.Out {
			lines = append(lines, fmt.Sprintf("%s %q %v", o.Subject, o.Header, o.Data))
		}
		if turn.Err != nil {
			return lines, turn.Err
		}
	}
	return lines, nil
}
