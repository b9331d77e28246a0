package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cleatkv/cleat/internal/storage"
)

// difference asks both readers the same questions and returns the first on which they disagree,
// or "". With deep set it asks about every message and subject, otherwise about a sample.
func difference(want, got storage.Reader, rng *rand.Rand, deep bool) string {
	if w, g := want.State(), got.State(); w != g {
		return fmt.Sprintf("State: want %+v, got %+v", w, g)
	}
	if w, g := want.Applied(), got.Applied(); w.Index != g.Index || w.Term != g.Term || !bytes.Equal(w.Conf, g.Conf) {
		return fmt.Sprintf("Applied: want %+v, got %+v", w, g)
	}
	ws, wa, wok := want.NextExpiry()
	gs, ga, gok := got.NextExpiry()
	if ws != gs || wa != ga || wok != gok {
		return fmt.Sprintf("NextExpiry: want %d %d %v, got %d %d %v", ws, wa, wok, gs, ga, gok)
	}
	prefix := []string{"", "a", "dedup/"}[rng.IntN(3)]
	if w, g := auxList(want, prefix), auxList(got, prefix); w != g {
		return fmt.Sprintf("AuxRange(%q): want %s, got %s", prefix, w, g)
	}
	samples := 2
	if deep {
		samples = 25
		if d := allMessages(want, got); d != "" {
			return d
		}
	}
	for range samples {
		if d := differenceAt(want, got, rng); d != "" {
			return d
		}
	}
	return ""
}

// differenceAt asks about a random sequence, subject, time and list of filters.
func differenceAt(want, got storage.Reader, rng *rand.Rand) string {
	st := want.State()
	seq := rng.Uint64N(st.LastSeq + 3)
	if d := sameMessage(want, got, seq); d != "" {
		return d
	}
	at := st.FirstTime - 5 + rng.Int64N(max(1, st.LastTime-st.FirstTime+10))
	if w, g := want.SeqAtTime(at), got.SeqAtTime(at); w != g {
		return fmt.Sprintf("SeqAtTime(%d): want %d, got %d", at, w, g)
	}
	if d := sameSubject(want, got, randomSubject(rng), seq); d != "" {
		return d
	}
	filters := randomFilters(rng)
	after := ""
	if rng.IntN(3) == 0 {
		after = randomSubject(rng)
	}
	limit := 1 + rng.IntN(40)
	if w, g := subjectList(want, filters, after, limit), subjectList(got, filters, after, limit); w != g {
		return fmt.Sprintf("Subjects(%q, %q): want %s, got %s", filters, after, w, g)
	}
	ws, wn, wok := want.NextSeq(filters, seq)
	gs, gn, gok := got.NextSeq(filters, seq)
	if wok != gok || wok && (ws != gs || wn != gn) {
		return fmt.Sprintf("NextSeq(%q, %d): want %d %q %v, got %d %q %v", filters, seq, ws, wn, wok, gs, gn, gok)
	}
	lastOnly := rng.IntN(2) == 0
	if w, g := want.Count(filters, seq, lastOnly), got.Count(filters, seq, lastOnly); w != g {
		return fmt.Sprintf("Count(%q, %d, %v): want %d, got %d", filters, seq, lastOnly, w, g)
	}
	if d := sameScan(want, got, filters, seq, 1+rng.IntN(100)); d != "" {
		return d
	}
	filter := randomFilter(rng)
	ws, wok = want.LastSeq(filter, seq)
	gs, gok = got.LastSeq(filter, seq)
	if wok != gok || wok && ws != gs {
		return fmt.Sprintf("LastSeq(%q, %d): want %d %v, got %d %v", filter, seq, ws, wok, gs, gok)
	}
	return ""
}

// allMessages compares every message and every subject that want has, and the number of each.
func allMessages(want, got storage.Reader) string {
	st := want.State()
	for seq, ok := st.FirstSeq, true; ok && seq <= st.LastSeq; seq++ {
		if seq, _, ok = want.NextSeq(nil, seq); !ok {
			break
		}
		if d := sameMessage(want, got, seq); d != "" {
			return d
		}
	}
	d := ""
	want.Subjects(nil, "", func(s string, _ storage.SubjectState) bool {
		d = sameSubject(want, got, s, 0)
		return d == ""
	})
	return d
}

func sameMessage(want, got storage.Reader, seq uint64) string {
	w, werr := want.Load(seq)
	g, gerr := got.Load(seq)
	if errors.Is(werr, storage.ErrNotFound) && errors.Is(gerr, storage.ErrNotFound) {
		return ""
	}
	if werr != nil || gerr != nil {
		return fmt.Sprintf("Load(%d): want error %v, got error %v", seq, werr, gerr)
	}
	if w.Seq != g.Seq || w.Time != g.Time || w.Expires != g.Expires || w.Subject != g.Subject {
		return fmt.Sprintf("Load(%d): want %v, got %v", seq, brief(w), brief(g))
	}
	if (w.Header == nil) != (g.Header == nil) || !bytes.Equal(w.Header, g.Header) || !bytes.Equal(w.Data, g.Data) {
		return fmt.Sprintf("Load(%d): body: want %q %q, got %q %q", seq, w.Header, w.Data, g.Header, g.Data)
	}
	return ""
}

func brief(m storage.Message) string {
	return fmt.Sprintf("{seq %d time %d expires %d subject %q}", m.Seq, m.Time, m.Expires, m.Subject)
}

// sameScan compares what a scan finds with what one message after the other gives.
func sameScan(want, got storage.Reader, filters []string, from uint64, limit int) (wrong string) {
	s, ok := got.(storage.Scanner)
	if !ok {
		return ""
	}
	seen := 0
	err := s.Scan(filters, from, limit, func(g *storage.Message) bool {
		seq, _, ok := want.NextSeq(filters, from)
		if !ok || seq != g.Seq {
			wrong = fmt.Sprintf("Scan(%q) from %d: want %d %v, got %d", filters, from, seq, ok, g.Seq)
			return false
		}
		w, err := want.Load(seq)
		if err != nil || brief(w) != brief(*g) || !bytes.Equal(w.Header, g.Header) || !bytes.Equal(w.Data, g.Data) {
			wrong = fmt.Sprintf("Scan(%q): want %v %v, got %v", filters, brief(w), err, brief(*g))
			return false
		}
		from, seen = seq+1, seen+1
		return seen < limit
	})
	if seq, _, more := want.NextSeq(filters, from); err == nil && wrong == "" && seen < limit && more {
		return fmt.Sprintf("Scan(%q): ended before %d", filters, seq)
	}
	if err != nil {
		return fmt.Sprintf("Scan(%q): %v", filters, err)
	}
	return wrong
}

func sameSubject(want, got storage.Reader, s string, from uint64) string {
	w, wok := want.Subject(s)
	g, gok := got.Subject(s)
	if wok != gok || w != g {
		return fmt.Sprintf("Subject(%q): want %+v %v, got %+v %v", s, w, wok, g, gok)
	}
	if w, g := seqList(want, s, from), seqList(got, s, from); w != g {
		return fmt.Sprintf("SubjectSeqs(%q, %d): want %s, got %s", s, from, w, g)
	}
	return ""
}

func seqList(r storage.Reader, s string, from uint64) string {
	var seqs []uint64
	r.SubjectSeqs(s, from, func(seq uint64) bool {
		seqs = append(seqs, seq)
		return len(seqs) < 100
	})
	return fmt.Sprint(seqs)
}

func subjectList(r storage.Reader, filters []string, after string, limit int) string {
	var b bytes.Buffer
	r.Subjects(filters, after, func(s string, st storage.SubjectState) bool {
		fmt.Fprintf(&b, "%s%v ", s, st)
		limit--
		return limit > 0
	})
	return b.String()
}

func auxList(r storage.Reader, prefix string) string {
	var b bytes.Buffer
	r.AuxRange(prefix, func(k string, v []byte) bool {
		fmt.Fprintf(&b, "%s=%x ", k, v)
		return true
	})
	return b.String()
}
