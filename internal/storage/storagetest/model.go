package storagetest

import (
	"slices"
	"sort"
	"strings"

	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/subject"
)

// model is the plainest storage.Reader there is: a slice of messages that every question scans.
// Engines are compared with it.
type model struct {
	msgs     []storage.Message
	lastSeq  uint64
	lastTime int64
	aux      map[string]string
	applied  storage.Applied
}

var _ storage.Reader = (*model)(nil)

func newModel() *model { return &model{aux: make(map[string]string)} }

// clone returns a model that shares nothing that changes.
func (m *model) clone() *model {
	c := *m
	c.msgs = slices.Clone(m.msgs)
	c.aux = make(map[string]string, len(m.aux))
	for k, v := range m.aux {
		c.aux[k] = v
	}
	return &c
}

func (m *model) append(msg storage.Message) {
	m.msgs = append(m.msgs, msg)
	m.lastSeq = msg.Seq
	m.lastTime = msg.Time
}

func (m *model) remove(seq uint64) bool {
	i := m.at(seq)
	if i == len(m.msgs) || m.msgs[i].Seq != seq {
		return false
	}
	m.msgs = slices.Delete(m.msgs, i, i+1)
	return true
}

// at is the position of the first message at or above seq.
func (m *model) at(seq uint64) int {
	return sort.Search(len(m.msgs), func(i int) bool { return m.msgs[i].Seq >= seq })
}

func (m *model) State() storage.State {
	s := storage.State{FirstSeq: m.lastSeq + 1, LastSeq: m.lastSeq, LastTime: m.lastTime}
	subjects := make(map[string]bool)
	for i := range m.msgs {
		s.Msgs++
		s.Bytes += m.msgs[i].Size()
		subjects[m.msgs[i].Subject] = true
	}
	if len(m.msgs) > 0 {
		s.FirstSeq = m.msgs[0].Seq
		s.FirstTime = m.msgs[0].Time
	}
	s.Subjects = uint64(len(subjects))
	return s
}

func (m *model) Applied() storage.Applied { return m.applied }
func (m *model) Err() error               { return nil }

func (m *model) Load(seq uint64) (storage.Message, error) {
	if i := m.at(seq); i < len(m.msgs) && m.msgs[i].Seq == seq {
		return m.msgs[i], nil
	}
	return storage.Message{}, storage.ErrNotFound
}

func (m *model) Subject(s string) (storage.SubjectState, bool) {
	var st storage.SubjectState
	m.SubjectSeqs(s, 0, func(seq uint64) bool {
		if st.Msgs == 0 {
			st.First = seq
		}
		st.Msgs++
		st.Last = seq
		return true
	})
	return st, st.Msgs > 0
}

func (m *model) Subjects(filters []string, after string, fn func(string, storage.SubjectState) bool) {
	seen := make(map[string]bool)
	var names []string
	for i := range m.msgs {
		s := m.msgs[i].Subject
		if !seen[s] && s > after && matches(filters, s) {
			seen[s] = true
			names = append(names, s)
		}
	}
	slices.Sort(names)
	for _, s := range names {
		st, _ := m.Subject(s)
		if !fn(s, st) {
			return
		}
	}
}

func (m *model) SubjectSeqs(s string, from uint64, fn func(uint64) bool) {
	for i := range m.msgs {
		if m.msgs[i].Subject == s && m.msgs[i].Seq >= from && !fn(m.msgs[i].Seq) {
			return
		}
	}
}

func (m *model) LastSeq(filter string, upTo uint64) (uint64, bool) {
	for i := len(m.msgs) - 1; i >= 0; i-- {
		if (upTo == 0 || m.msgs[i].Seq <= upTo) && matches([]string{filter}, m.msgs[i].Subject) {
			return m.msgs[i].Seq, true
		}
	}
	return 0, false
}

func (m *model) NextSeq(filters []string, from uint64) (uint64, string, bool) {
	for _, msg := range m.msgs[m.at(from):] {
		if matches(filters, msg.Subject) {
			return msg.Seq, msg.Subject, true
		}
	}
	return 0, "", false
}

func (m *model) Count(filters []string, from uint64, lastOnly bool) uint64 {
	n := uint64(0)
	for _, msg := range m.msgs[m.at(from):] {
		if !matches(filters, msg.Subject) {
			continue
		}
		if st, _ := m.Subject(msg.Subject); !lastOnly || st.Last == msg.Seq {
			n++
		}
	}
	return n
}

func (m *model) SeqAtTime(t int64) uint64 {
	for i := range m.msgs {
		if m.msgs[i].Time >= t {
			return m.msgs[i].Seq
		}
	}
	return m.lastSeq + 1
}

func (m *model) NextExpiry() (seq uint64, at int64, ok bool) {
	for i := range m.msgs {
		if e := m.msgs[i].Expires; e > 0 && (!ok || e < at) {
			seq, at, ok = m.msgs[i].Seq, e, true
		}
	}
	return seq, at, ok
}

func (m *model) Aux(key string) ([]byte, bool) {
	v, ok := m.aux[key]
	return []byte(v), ok
}

func (m *model) AuxRange(prefix string, fn func(string, []byte) bool) {
	var keys []string
	for k := range m.aux {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if !fn(k, []byte(m.aux[k])) {
			return
		}
	}
}

func matches(filters []string, s string) bool {
	for _, f := range filters {
		if subject.Match(f, s) {
			return true
		}
	}
	return len(filters) == 0
}
