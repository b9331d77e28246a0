package stream

import (
	"fmt"
	"testing"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

// benchStream is a bucket as clients make them, with a history of one.
func benchStream(b *testing.B) *Stream {
	s, err := Open(memory.New(), replica.Entry{Index: 1, Term: 1})
	if err != nil {
		b.Fatal(err)
	}
	c, refused := api.StreamConfig{Name: "KV_b", Subjects: []string{"$KV.b.>"}, MaxMsgsPerSubject: 1,
		Discard: api.DiscardNew, AllowRollup: true, DenyDelete: true, AllowDirect: true}.Normalize(false)
	if refused != nil {
		b.Fatal(refused)
	}
	command := EncodeConfigure(&Configure{Config: c, Revision: 1})
	if _, err := s.Apply(replica.Entry{Index: 2, Term: 1}, 1, [][]byte{command}); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkPut applies puts of 128 bytes over 100,000 keys, packed as the replica packs them.
func BenchmarkPut(b *testing.B) {
	for _, pack := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("pack=%d", pack), func(b *testing.B) { benchmarkPut(b, pack, nil) })
	}
	b.Run("cas", func(b *testing.B) {
		benchmarkPut(b, 64, []byte(HeaderLine+hdrExpectedSubjSeq+": 0\r\n\r\n"))
	})
}

func benchmarkPut(b *testing.B, pack int, header []byte) {
	s := benchStream(b)
	commands := make([][]byte, 100_000)
	data := make([]byte, 128)
	for i := range commands {
		commands[i] = AppendPublish(nil, fmt.Sprintf("$KV.b.key-%06d", i*7919%len(commands)), header, data)
	}
	b.ReportAllocs()
	at := replica.Entry{Index: 2, Term: 1}
	for i := 0; b.Loop(); i++ {
		// One iteration is one command; every pack-th applies a pack.
		if i%pack != 0 {
			continue
		}
		at.Index++
		from := i % (len(commands) - pack)
		if _, err := s.Apply(at, int64(i), commands[from:from+pack]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLast(b *testing.B) {
	s := benchStream(b)
	for i := range 1000 {
		command := AppendPublish(nil, fmt.Sprintf("$KV.b.%d", i), nil, make([]byte, 128))
		if _, err := s.Apply(replica.Entry{Index: uint64(3 + i), Term: 1}, 1, [][]byte{command}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := s.Last("$KV.b.500"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
