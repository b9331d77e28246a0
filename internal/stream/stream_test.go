package stream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/storage/memory"
)

// world is a stream with an observer, driven by the scenarios in testdata.
type world struct {
	t        testing.TB
	engine   *memory.Engine
	s        *Stream
	index    uint64
	now      time.Duration // since the epoch
	revision uint64
	counter  *counter
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, index: 1}
	w.engine = memory.New()
	var err error
	if w.s, err = Open(w.engine, replica.Entry{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	w.watch()
	return w
}

// watch registers the observer whose books are compared with a count after every change.
func (w *world) watch() {
	w.counter = &counter{t: w.t, messages: make(map[uint64]string)}
	if err := w.s.Observe(w.counter, nil, w.counter.Replaced); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) apply(commands ...[]byte) []*Result {
	w.index++
	results, err := w.s.Apply(replica.Entry{Index: w.index, Term: 1}, int64(w.now), commands)
	if err != nil {
		w.t.Fatalf("apply %d: %v", w.index, err)
	}
	w.counter.check(w.engine)
	out := make([]*Result, len(results))
	for i, r := range results {
		out[i] = r.(*Result)
	}
	return out
}

// configure applies a configuration given as JSON, normalised as the front end does it.
func (w *world) configure(text string) *Result {
	c := api.StreamConfig{Name: "S", Subjects: []string{"a.>"}}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		w.t.Fatal(err)
	}
	c, refused := c.Normalize(false)
	if refused != nil && refused.ErrCode != 10052 {
		w.t.Fatal(refused)
	}
	w.revision++
	return w.apply(EncodeConfigure(&Configure{Config: c, Revision: w.revision, Created: 1}))[0]
}

// restart replaces the machine by one that is opened on a snapshot of its state.
func (w *world) restart() {
	before := w.dump()
	var buf bytes.Buffer
	if _, err := w.s.WriteSnapshot(&buf); err != nil {
		w.t.Fatal(err)
	}
	engine := memory.New()
	if err := engine.InstallSnapshot(&buf); err != nil {
		w.t.Fatal(err)
	}
	s, err := Open(engine, replica.Entry{Index: 1, Term: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.engine, w.s = engine, s
	w.watch()
	if after := w.dump(); after != before {
		w.t.Fatalf("a restart changed the state from\n%s\nto\n%s", before, after)
	}
}

// dump shows the whole state: messages, auxiliary records, deadline.
func (w *world) dump() string {
	var b strings.Builder
	fmt.Fprintln(&b, w.s)
	for from := uint64(0); ; {
		seq, _, ok := w.engine.NextSeq(nil, from)
		if !ok {
			break
		}
		m, err := w.engine.Load(seq)
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%d %s @%v", m.Seq, m.Subject, time.Duration(m.Time))
		switch {
		case m.Expires == storage.NeverExpires:
			fmt.Fprint(&b, " never expires")
		case m.Expires > 0:
			fmt.Fprintf(&b, " expires @%v", time.Duration(m.Expires))
		}
		if m.Header != nil {
			lines := strings.TrimSuffix(strings.TrimPrefix(string(m.Header), HeaderLine), "\r\n\r\n")
			fmt.Fprintf(&b, " {%s}", strings.ReplaceAll(lines, "\r\n", "; "))
		}
		fmt.Fprintf(&b, " %q\n", m.Data)
		from = seq + 1
	}
	w.engine.AuxRange("", func(key string, value []byte) bool {
		if key != auxConfig {
			fmt.Fprintf(&b, "aux %q = %q\n", key, value)
		}
		return true
	})
	if at, ok := w.s.NextDeadline(); ok {
		fmt.Fprintf(&b, "deadline @%v\n", time.Duration(at))
	}
	return b.String()
}

// counter keeps the set of messages by what it is told alone.
type counter struct {
	t        testing.TB
	messages map[uint64]string
	open     bool
}

func (c *counter) Stored(seq uint64, subject string) {
	if _, ok := c.messages[seq]; ok {
		c.t.Errorf("message %d is stored twice", seq)
	}
	c.messages[seq] = subject
}

func (c *counter) Removed(r storage.Reader, seq uint64, subject string) {
	c.open = true
	if got, ok := c.messages[seq]; !ok || got != subject {
		c.t.Errorf("message %d on %s is removed, but it was %q", seq, subject, got)
	}
	delete(c.messages, seq)
	if _, err := r.Load(seq); err == nil {
		c.t.Errorf("message %d is removed, but it is still there", seq)
	}
}

func (c *counter) Settle() { c.open = false }

func (c *counter) Replaced(r storage.Reader) {
	clear(c.messages)
	for seq, subj, ok := r.NextSeq(nil, 0); ok; seq, subj, ok = r.NextSeq(nil, seq+1) {
		c.messages[seq] = subj
	}
}

func (c *counter) check(r storage.Reader) {
	if c.open {
		c.t.Error("a change with removals did not settle")
	}
	if n := r.State().Msgs; n != uint64(len(c.messages)) {
		c.t.Errorf("the observer counts %d messages, the stream has %d", len(c.messages), n)
	}
}

func (r *Result) String() string {
	switch {
	case r.Err != nil:
		return "refused: " + r.Err.Error()
	case r.Duplicate:
		return fmt.Sprintf("duplicate of %d", r.Seq)
	case r.Republish != nil:
		h := strings.ReplaceAll(string(r.Republish.Header), "\r\n", "|")
		return fmt.Sprintf("seq %d, republish %s %s %q", r.Seq, r.Republish.Subject, h, r.Republish.Data)
	case r.Seq != 0:
		return fmt.Sprintf("seq %d", r.Seq)
	case r.Purged != 0:
		return fmt.Sprintf("purged %d", r.Purged)
	}
	return "ok"
}

func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t, w.counter.t = t, t
			return w.run(d)
		})
	})
}

// run executes one step of a scenario.
func (w *world) run(d *datadriven.TestData) string {
	switch d.Cmd {
	case "config":
		return w.configure(d.Input).String()
	case "clock":
		at, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = at
		return "ok"
	case "pub": // One line is one publish, all of them one log entry: SUBJECT [Header: value; ...] DATA
		var commands [][]byte
		for line := range strings.Lines(d.Input) {
			commands = append(commands, publishLine(strings.TrimSuffix(line, "\n")))
		}
		return joinResults(w.apply(commands...))
	case "expire":
		return w.apply(EncodeExpire())[0].String()
	case "purge":
		p := &Purge{}
		for _, a := range d.CmdArgs {
			switch a.Key {
			case "filter":
				p.Filter = a.Vals[0]
			case "seq":
				p.Seq = parse(a.Vals[0])
			case "keep":
				p.Keep = parse(a.Vals[0])
			}
		}
		return w.apply(EncodePurge(p))[0].String()
	case "delete":
		return w.apply(EncodeDelete(&Delete{Seq: parse(d.CmdArgs[0].Key), Erase: d.HasArg("erase")}))[0].String()
	case "restart":
		w.restart()
		return "ok"
	case "dump":
		return w.dump()
	}
	return "unknown command " + d.Cmd
}

func parse(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

func publishLine(line string) []byte {
	subj, rest, _ := strings.Cut(line, " ")
	var header []byte
	if strings.HasPrefix(rest, "[") {
		lines, data, _ := strings.Cut(rest[1:], "]")
		header = []byte(HeaderLine + strings.ReplaceAll(lines, "; ", "\r\n") + "\r\n\r\n")
		rest = strings.TrimPrefix(data, " ")
	}
	return AppendPublish(nil, subj, header, []byte(rest))
}

func joinResults(rs []*Result) string {
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}
