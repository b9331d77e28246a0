package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
)

// The subjects of the tests are made of few tokens, so that they meet often, and of such whose
// bytes sort around the dot, where an ordered index of whole subjects goes wrong most easily.
var (
	tokens  = []string{"a", "b", "c", "a-", "a!", "ab", "0", "zz", "long-token-with-a-tail", "*"}
	filters = []string{"a", "b", "c", "a-", "*", "*", "*", "ab", "zz"}
)

func randomSubject(rng *rand.Rand) string {
	return strings.Join(pick(rng, tokens, 1+rng.IntN(4)), ".")
}

func randomFilter(rng *rand.Rand) string {
	f := pick(rng, filters, 1+rng.IntN(4))
	if rng.IntN(3) == 0 {
		f[len(f)-1] = ">"
	}
	return strings.Join(f, ".")
}

func randomFilters(rng *rand.Rand) []string {
	var fs []string
	for range []int{0, 1, 1, 1, 2, 5}[rng.IntN(6)] {
		fs = append(fs, randomFilter(rng))
	}
	return fs
}

func pick(rng *rand.Rand, from []string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = from[rng.IntN(len(from))]
	}
	return out
}

func randomBytes(rng *rand.Rand, most int) []byte {
	b := make([]byte, rng.IntN(most+1))
	for i := range b {
		b[i] = "abcdefgh"[rng.IntN(8)] // compressible, but not too well
	}
	return b
}

// writer makes the same random changes to an engine and to the model.
type writer struct {
	rng   *rand.Rand
	model *model
	index uint64
	large int // size of the rare large bodies

	committing func(*model) // called with the state that a commit is about to bring about
}

func newWriter(seed uint64) *writer {
	return &writer{
		rng:        rand.New(rand.NewPCG(seed, 1)),
		model:      newModel(),
		large:      20_000,
		committing: func(*model) {},
	}
}

// begin starts a change in place if the engine can do that, and one beside its state if not.
func begin(e storage.Engine) storage.Tx {
	if p, ok := e.(storage.InPlacer); ok {
		return p.BeginInPlace()
	}
	return e.Begin()
}

// change makes one change of some operations. It reports a disagreement seen while it was open.
func (w *writer) change(e storage.Engine) error {
	final := w.rng.IntN(2) == 0 // It is not discarded, nor is the engine read meanwhile.
	var tx storage.Tx
	if final {
		tx = begin(e)
	} else {
		tx = e.Begin()
	}
	next := w.model.clone()
	for range w.rng.IntN(12) {
		if err := w.operation(tx, next); err != nil {
			tx.Discard()
			return err
		}
	}
	if w.rng.IntN(4) == 0 {
		if d := difference(next, tx, w.rng, false); d != "" {
			tx.Discard()
			return errors.New("inside a change: " + d)
		}
	}
	if !final && w.rng.IntN(10) == 0 {
		if d := difference(w.model, e, w.rng, false); d != "" {
			tx.Discard()
			return errors.New("before the commit: " + d)
		}
	}
	if !final && w.rng.IntN(8) == 0 {
		tx.Discard()
		return nil
	}
	w.index += 1 + w.rng.Uint64N(3)
	next.applied = storage.Applied{Index: w.index, Term: w.index / 100}
	if w.index%7 != 0 {
		next.applied.Conf = fmt.Appendf(nil, "conf %d", w.index/50)
	}
	w.committing(next)
	if err := tx.Commit(next.applied); err != nil {
		return err
	}
	w.model = next
	return nil
}

func (w *writer) operation(tx storage.Tx, m *model) error {
	switch n := w.rng.IntN(100); {
	case n < 60:
		return w.append(tx, m)
	case n < 82:
		return w.remove(tx, m)
	case n < 84:
		seq := m.lastSeq + w.rng.Uint64N(5)
		m.lastSeq = seq
		return tx.SkipTo(seq)
	case n < 94:
		key := w.auxKey()
		value := randomBytes(w.rng, 40)
		m.aux[key] = string(value)
		tx.SetAux(key, value)
		for i := range value { // The engine copies what it keeps.
			value[i] = 'x'
		}
	default:
		key := w.auxKey()
		delete(m.aux, key)
		tx.DeleteAux(key)
	}
	return nil
}

func (w *writer) auxKey() string {
	return []string{"a", "config", "dedup/", "z"}[w.rng.IntN(4)] + fmt.Sprint(w.rng.IntN(12))
}

func (w *writer) append(tx storage.Tx, m *model) error {
	msg := storage.Message{
		Seq:     m.lastSeq + 1,
		Time:    m.lastTime + 1 + w.rng.Int64N(20),
		Subject: randomSubject(w.rng),
		Data:    randomBytes(w.rng, 60),
	}
	switch w.rng.IntN(10) {
	case 0:
		msg.Expires = msg.Time + w.rng.Int64N(200)
	case 1:
		msg.Expires = storage.NeverExpires
	case 2, 3:
		msg.Header = append([]byte("NATS/1.0\r\nA: "), randomBytes(w.rng, 30)...)
	case 4:
		if w.rng.IntN(10) == 0 {
			msg.Data = randomBytes(w.rng, w.large)
		}
	case 5:
		msg.Seq += w.rng.Uint64N(4)
	}
	m.append(msg)
	theirs := msg // The engine copies what it keeps.
	theirs.Header = append([]byte(nil), msg.Header...)
	theirs.Data = append([]byte{}, msg.Data...)
	err := tx.Append(theirs)
	for i := range theirs.Header {
		theirs.Header[i] = 'x'
	}
	for i := range theirs.Data {
		theirs.Data[i] = 'x'
	}
	return err
}

func (w *writer) remove(tx storage.Tx, m *model) error {
	seq := w.rng.Uint64N(m.lastSeq + 2)
	if w.rng.IntN(2) == 0 && len(m.msgs) > 0 {
		seq = m.msgs[w.rng.IntN(len(m.msgs))].Seq
	}
	if w.rng.IntN(3) == 0 && len(m.msgs) > 0 {
		seq = m.msgs[0].Seq
	}
	remove := tx.Remove
	if w.rng.IntN(5) == 0 {
		remove = tx.Erase
	}
	was, err := remove(seq)
	if want := m.remove(seq); err == nil && was != want {
		return fmt.Errorf("remove %d: want %v, got %v", seq, want, was)
	}
	return err
}
