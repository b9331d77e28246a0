package stream

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/consumer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/filelog"
	"github.com/cleatkv/cleat/internal/storage/lsm"
	"github.com/cleatkv/cleat/sim/simfs"
)

var errDisk = errors.New("the disk does not answer")

// sickbed is a stream on a disk of which one read, the one that is to fail, fails.
type sickbed struct {
	t      *testing.T
	disk   *simfs.FS
	store  func(vfs.FS) (storage.Store, error)
	data   string // how the paths end that hold what is read
	failAt atomic.Int64
	reads  atomic.Int64
}

func newSickbed(t *testing.T, data string, store func(vfs.FS) (storage.Store, error)) *sickbed {
	b := &sickbed{t: t, disk: simfs.New(1, simfs.Journal), store: store, data: data}
	b.with(b.disk, func(s *Stream, e storage.Engine) { b.fill(s, e) })
	return b
}

// fail is the hook of a disk.
func (b *sickbed) fail(o simfs.Op) error {
	if o.Kind == "read" && strings.Contains(o.Path, b.data) && b.reads.Add(1) == b.failAt.Load() {
		return errDisk
	}
	return nil
}

// with opens the stream anew, with nothing of it in any cache.
func (b *sickbed) with(disk *simfs.FS, fn func(*Stream, storage.Engine)) {
	b.t.Helper()
	disk.SetHook(b.fail)
	store, err := b.store(disk)
	if err != nil {
		b.t.Fatal(err)
	}
	e, err := store.Open("e", storage.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := Open(e, replica.Entry{Index: 1, Term: 1})
	if err != nil {
		b.t.Fatal(err)
	}
	fn(s, e)
	b.failAt.Store(0)
	if err := errors.Join(e.Close(), store.Close()); err != nil {
		b.t.Fatal(err)
	}
}

// hour is when the commands of the tests come; the messages are from the first minute.
const hour = int64(time.Hour)

// fill stores some hundred messages, most subjects having a history, some messages being exempt from
// the age limit.
func (b *sickbed) fill(s *Stream, e storage.Engine) {
	b.t.Helper()
	cfg, refused := (&api.StreamConfig{
		Name: "S", Subjects: []string{"a.>"}, MaxMsgsPerSubject: 8, MaxBytes: 400 * 600, Discard: api.DiscardNew, AllowRollup: true,
		AllowMsgTTL: true, MaxAge: 50 * time.Minute, SubjectDeleteMarkerTTL: time.Hour, Sources: []*api.StreamSource{{Name: "O"}},
	}).Normalize(false)
	if refused != nil && refused.ErrCode != 10052 {
		b.t.Fatal(refused)
	}
	commands := [][]byte{EncodeConfigure(&Configure{Config: cfg, Revision: 1, Created: 1})}
	for i := range 300 {
		header := ""
		if i < 3 {
			header = HeaderLine + "Nats-TTL: never\r\n\r\n"
		}
		commands = append(commands, AppendPublish(nil, fmt.Sprintf("a.%02d", i%60), []byte(header), []byte(strings.Repeat("x", 500))))
	}
	if _, err := s.Apply(replica.Entry{Index: 2, Term: 1}, int64(time.Minute), commands); err != nil {
		b.t.Fatal(err)
	}
	if err := e.Checkpoint(); err != nil {
		b.t.Fatal(err)
	}
}

// try runs fn over and over, each time with another read failing, the later ones sparsely. Each
// time it must say that it could not tell, or say what it says when nothing fails.
func (b *sickbed) try(name string, reads int, fn func(*Stream) (string, error)) {
	b.t.Helper()
	var want string
	failures := 0
	for at := int64(0); ; at += 1 + at/4 {
		done := false
		b.with(b.disk.CrashClone(simfs.Everything, 1), func(s *Stream, _ storage.Engine) {
			b.reads.Store(0)
			b.failAt.Store(at)
			got, err := fn(s)
			switch {
			case at == 0 && err != nil:
				b.t.Fatalf("%s: %v", name, err)
			case at == 0:
				want = got
			case b.reads.Load() < at:
				done = true
			case err != nil:
				failures++
				if !strings.Contains(err.Error(), "data") || !errors.Is(err, errDisk) {
					b.t.Errorf("%s, read %d failed: the error does not say what and where: %v", name, at, err)
				}
			case got != want:
				b.t.Errorf("%s, read %d failed: answer %s, where %s is right", name, at, got, want)
			}
		})
		if done {
			break
		}
	}
	if failures < reads {
		b.t.Errorf("%s: only %d reads failed", name, failures)
	}
}

func each(t *testing.T, test func(t *testing.T, b *sickbed, fromDisk bool)) {
	t.Run("rocksdb", func(t *testing.T) {
		test(t, newSickbed(t, ".sst", func(fs vfs.FS) (storage.Store, error) {
			return lsm.OpenStore(fs, "data", lsm.WithCache(1<<10), lsm.WithReport(func(string) {}))
		}), true)
	})
	t.Run("file", func(t *testing.T) {
		test(t, newSickbed(t, "block-", func(fs vfs.FS) (storage.Store, error) { return filelog.OpenStore(fs, "data") }), false)
	})
}

// What the engine could not read is never answered as not there, nor as less than there is.
func TestReadErrorIsNoAnswer(t *testing.T) {
	each(t, func(t *testing.T, b *sickbed, fromDisk bool) {
		message := func(m storage.Message, ok bool, err error) (string, error) {
			return fmt.Sprint(m.Seq, m.Subject, len(m.Data), ok), err
		}
		count := 0
		if fromDisk {
			count = 1
		}
		b.try("get", 1, func(s *Stream) (string, error) { return message(s.Get(150)) })
		b.try("last", 1, func(s *Stream) (string, error) { return message(s.Last("a.07")) })
		b.try("last of many", 1, func(s *Stream) (string, error) { return message(s.Last("a.*")) })
		b.try("last of none", 0, func(s *Stream) (string, error) { return message(s.Last("b.*")) })
		b.try("next", 1, func(s *Stream) (string, error) { return message(s.Next("a.09", 30)) })
		b.try("next of two", 1, func(s *Stream) (string, error) { return message(s.NextOf([]string{"a.09", "a.11"}, 30)) })
		b.try("count", count, func(s *Stream) (string, error) {
			n, err := s.Count("a.*", 20)
			return fmt.Sprint(n), err
		})
		b.try("sequence at a time", count, func(s *Stream) (string, error) {
			seq, err := s.SeqAtTime(time.Unix(60, 100))
			return fmt.Sprint(seq), err
		})
		b.try("last of each", count, func(s *Stream) (string, error) {
			held, seqs, bound, err := s.MultiLast([]string{"a.1*", "a.*"}, 250, 1000)
			if err == nil {
				held.Release()
			}
			return fmt.Sprint(seqs, bound), err
		})
		b.try("description", count, func(s *Stream) (string, error) {
			state, total, err := s.Describe(Details{SubjectsFilter: "a.*", Limit: 1000, Deleted: true})
			return fmt.Sprint(state, total), err
		})
		b.try("position of a source", count, func(s *Stream) (string, error) {
			origin, seq, err := s.SourcePosition("O > >")
			return fmt.Sprint(origin, seq), err
		})
		b.try("start of a consumer", count, func(s *Stream) (text string, err error) {
			err = s.View(func(r storage.Reader) {
				text = fmt.Sprint(consumer.StartOf(r, &api.ConsumerConfig{DeliverPolicy: api.DeliverLastPerSubject, FilterSubject: "a.1"}))
			})
			return text, err
		})
		b.try("observation", count, func(s *Stream) (text string, err error) {
			c := &counter{t: t, messages: make(map[uint64]string)}
			err = s.Observe(c, nil, c.Replaced)
			return fmt.Sprint(len(c.messages)), err
		})
	})
}

// A verdict that rests on a read that failed is not given: the replica stops instead.
func TestReadErrorStopsApply(t *testing.T) {
	each(t, func(t *testing.T, b *sickbed, fromDisk bool) {
		count := 0
		if fromDisk {
			count = 1
		}
		apply := func(command []byte) func(*Stream) (string, error) {
			return func(s *Stream) (string, error) {
				results, err := s.Apply(replica.Entry{Index: 3, Term: 1}, int64(2*time.Minute), [][]byte{command})
				if err != nil {
					return "", err
				}
				return fmt.Sprint(results[0].(*Result), s), nil
			}
		}
		expecting := []byte(HeaderLine + "Nats-Expected-Last-Subject-Sequence: 1\r\n\r\n")
		creating := []byte(HeaderLine + "Nats-Expected-Last-Subject-Sequence: 0\r\n\r\n")
		body := []byte(strings.Repeat("y", 300))
		b.try("create", count, apply(AppendPublish(nil, "a.07", creating, body)))
		b.try("create anew", 0, apply(AppendPublish(nil, "a.x", creating, body)))
		b.try("compare and set", count, apply(AppendPublish(nil, "a.00", expecting, body)))
		b.try("put", count, apply(AppendPublish(nil, "a.00", nil, body)))
		b.try("put where room is made", 1, apply(AppendPublish(nil, "a.00", []byte(HeaderLine+"Nats-Rollup: sub\r\n\r\n"), []byte(strings.Repeat("z", 81_000)))))
		b.try("purge of a key", count, apply(AppendPublish(nil, "a.00", []byte(HeaderLine+"Nats-Rollup: sub\r\n\r\n"), nil)))
		b.try("delete", count, apply(EncodeDelete(&Delete{Seq: 150})))
		b.try("delete of what is not there", 0, apply(EncodeDelete(&Delete{Seq: 4000})))
		b.try("purge", count, apply(EncodePurge(&Purge{Filter: "a.1"})))
		b.try("purge of some", count, apply(EncodePurge(&Purge{Filter: "a.1", Most: 3})))
		b.try("purge but for some", count, apply(EncodePurge(&Purge{Filter: "a.*", Keep: 10})))
		b.try("copy", count, apply(AppendCopied(nil, &Copied{Source: "O > >", Origin: 7, Seq: 1, Subject: "a.03", Data: body})))
		b.try("consumer", count, apply(EncodeConsumer(KindConsumer, (&consumer.Create{Config: api.ConsumerConfig{
			Name: "c", Durable: "c", DeliverPolicy: api.DeliverLastPerSubject, AckPolicy: api.AckExplicit, FilterSubject: "a.*",
		}}).Encode())))
		b.try("expiry", 1, func(s *Stream) (string, error) {
			results, err := s.Apply(replica.Entry{Index: 3, Term: 1}, hour, [][]byte{EncodeExpire()})
			if err != nil {
				return "", err
			}
			return fmt.Sprint(results[0].(*Result), s), nil
		})
	})
}

// A stream whose records could not be read is not opened as one without them.
func TestReadErrorRefusesOpen(t *testing.T) {
	b := newSickbed(t, ".sst", func(fs vfs.FS) (storage.Store, error) {
		return lsm.OpenStore(fs, "data", lsm.WithCache(1<<10), lsm.WithReport(func(string) {}))
	})
	b.disk.SetHook(b.fail)
	store, err := b.store(b.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	refused := 0
	for at := int64(1); ; at++ {
		e, err := store.Open("e", storage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b.reads.Store(0)
		b.failAt.Store(at)
		s, err := Open(e, replica.Entry{Index: 1, Term: 1})
		b.failAt.Store(0)
		if err == nil && s.Config() == nil {
			t.Fatalf("read %d failed, and the stream has no configuration", at)
		}
		if err != nil {
			refused++
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if b.reads.Load() < at {
			break
		}
	}
	if refused == 0 {
		t.Error("no read failed")
	}
}
