package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// collected is a Visitor that keeps everything.
type collected struct {
	consumers []*Consumer
	messages  []*storage.Message
	removed   []uint64
}

func (c *collected) Consumer(x *Consumer) error       { c.consumers = append(c.consumers, x); return nil }
func (c *collected) Message(m *storage.Message) error { c.messages = append(c.messages, m); return nil }
func (c *collected) Removed(seq uint64) error         { c.removed = append(c.removed, seq); return nil }

func archive(t *testing.T, messages ...*storage.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, &api.StreamState{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Consumer(&Consumer{Config: api.ConsumerConfig{Name: "C", Durable: "C"}, State: ConsumerState{AckFloor: api.SequenceInfo{Consumer: 2, Stream: 3}}}, 1); err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := w.Message(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var sample = []*storage.Message{
	{Seq: 3, Time: time.Now().UnixNano(), Subject: "$KV.b.a", Data: []byte("value")},
	{Seq: 4, Time: -1, Subject: "state.json", Header: []byte("NATS/1.0\r\nA: B\r\n\r\n"), Data: []byte{}},
	{Seq: 1 << 40, Time: 1, Subject: "x", Data: bytes.Repeat([]byte("v"), 3<<20)},
}

func TestRoundTrip(t *testing.T) {
	var got collected
	if err := Read(bytes.NewReader(archive(t, sample...)), "S", &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.messages, sample) || len(got.consumers) != 1 || got.consumers[0].State.AckFloor.Stream != 3 {
		t.Fatalf("%d messages, %d consumers", len(got.messages), len(got.consumers))
	}
}

// Archives that nats-server made, before and after 2.15.
func TestReadForeign(t *testing.T) {
	for name, tt := range map[string]struct{ stream, want string }{
		"nats-2.9.10.tar.s2": {"KV_OLD", "1 k.1=v1, 2 k.2=v2, 3 k.3=v3, 4 k.4=v4, 5 k.1=v1b, 6 k.2= KV-Operation: DEL"},
		"nats-2.15.tar.s2":   {"KV_CONFIG", "1 app.name=demo, 2 app.name=demo2, "},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		var got collected
		if err := Read(bytes.NewReader(b), tt.stream, &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var all []string
		for _, m := range got.messages {
			_, key, _ := strings.Cut(strings.TrimPrefix(m.Subject, "$KV."), ".")
			s := fmt.Sprintf("%d %s=%s", m.Seq, key, m.Data)
			if lines := strings.Split(string(m.Header), "\r\n"); len(lines) > 1 {
				s += " " + lines[1]
			}
			all = append(all, s)
		}
		if text := strings.Join(all, ", "); !strings.HasPrefix(text, tt.want) {
			t.Errorf("%s: %s, want %s", name, text, tt.want)
		}
	}
}

// Whatever is cut off or changed is found, before anybody takes the archive for whole.
func TestReadDamaged(t *testing.T) {
	old, err := os.ReadFile(filepath.Join("testdata", "nats-2.9.10.tar.s2"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"new": archive(t, sample[:2]...), "old": old} {
		for n := range b {
			if err := Read(bytes.NewReader(b[:n]), "KV_OLD", new(collected)); err == nil {
				t.Errorf("%s: whole after %d of %d bytes", name, n, len(b))
			}
			flipped := bytes.Clone(b)
			flipped[n] ^= 4
			var was, is collected
			if Read(bytes.NewReader(b), "KV_OLD", &was) != nil {
				t.Fatal("damaged before it was")
			}
			if err := Read(bytes.NewReader(flipped), "KV_OLD", &is); err == nil && !reflect.DeepEqual(is.messages, was.messages) {
				t.Errorf("%s: byte %d changed, and so the messages", name, n)
			}
		}
	}
	for name, b := range map[string][]byte{
		"empty": nil, "order": archive(t, sample[1], sample[0]), "noise": []byte("noise"), "other tar": compressed(t, "no tar at all"),
	} {
		if err := Read(bytes.NewReader(b), "S", new(collected)); !errors.Is(err, ErrArchive) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func compressed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := s2.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"nats-2.9.10.tar.s2", "nats-2.15.tar.s2"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		plain, err := io.ReadAll(s2.NewReader(bytes.NewReader(b)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(plain)
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		var last uint64
		var got collected
		if read(bufio.NewReader(bytes.NewReader(plain)), "KV_OLD", &got) != nil {
			return
		}
		for _, m := range got.messages {
			if m.Seq <= last || m.Subject == "" {
				t.Fatalf("message %d, %q follows message %d", m.Seq, m.Subject, last)
			}
			last = m.Seq
		}
	})
}
