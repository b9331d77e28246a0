package consumer

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/storage"
)

// TestConsumer runs the scenarios in testdata: a stream, one consumer at a time, a clock that only
// moves when told. The commands are in runCommand.
func TestConsumer(t *testing.T) {
	datadriven.Walk(t, "testdata/consumer", func(t *testing.T, path string) {
		w := &world{t: t, s: newTestStream(t, 0), interest: map[string]bool{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t, w.s.t = t, t
			return w.runCommand(d)
		})
	})
}

// world is what a scenario acts on.
type world struct {
	t        *testing.T
	s        *testStream
	c        *Consumer
	interest map[string]bool
	now      time.Duration
	turn     Turn
}

func (w *world) runCommand(d *datadriven.TestData) string {
	args := map[string]string{}
	for _, a := range d.CmdArgs {
		args[a.Key] = strings.Join(a.Vals, ",")
	}
	number := func(key string, otherwise int) int {
		if n, err := strconv.Atoi(args[key]); err == nil {
			return n
		}
		return otherwise
	}
	w.turn.Reset(int64(w.now))
	w.turn.Reader = w.s.engine
	w.turn.Interest = func(subject, _ string) bool { return w.interest[subject] }
	w.turn.MsgsMax, w.turn.BytesMax = number("msgs", 100), number("bytes", 1<<30)
	switch d.Cmd {
	case "history": // new stream that keeps n messages a subject
		w.s = newTestStream(w.t, number("keep", 0))
		return ""
	case "put": // one message a line: subject body
		w.change(func() {
			for _, line := range strings.Split(d.Input, "\n") {
				subject, body, _ := strings.Cut(line, " ")
				w.s.put(subject, body)
			}
		})
		return w.pending()
	case "remove":
		w.change(func() { w.s.remove(uint64(number("seq", 0))) })
		return w.pending()
	case "purge":
		w.change(func() { w.s.purge(args["filter"]) })
		return w.pending()
	case "create":
		var cfg api.ConsumerConfig
		if err := json.Unmarshal([]byte(d.Input), &cfg); err != nil {
			return err.Error()
		}
		stream := &api.StreamConfig{Name: "S", Subjects: []string{"k.>"}, Replicas: 1}
		Normalize(&cfg, stream)
		if err := Check(&cfg, stream, Limits{}); err != nil {
			return err.Error()
		}
		w.c = New(w.s.engine, Spec{Stream: "S", Name: cfg.Name, Config: cfg, Start: StartOf(w.s.engine, &cfg), Delivered: Mark{Consumer: uint64(number("delivered", 0)), Stream: uint64(number("upto", 0))}}, nil, int64(w.now))
		return w.info()
	case "info":
		return w.info()
	case "interest":
		w.interest[args["on"]] = true
		delete(w.interest, args["off"])
		return ""
	case "run":
		more := w.c.Run(&w.turn)
		return w.output() + fmt.Sprintf("more=%v pending=%d deadline=%s\n", more, w.c.Pending(), w.deadline())
	case "wait":
		by, err := time.ParseDuration(args["for"])
		if err != nil {
			return err.Error()
		}
		w.now += by
		return ""
	case "ack":
		a, ok := ParseAck(fmt.Sprintf("$JS.ACK.S.c.1.%s.1.1.0", args["seq"]), []byte(d.Input))
		if !ok {
			return "malformed"
		}
		wake := w.c.Acknowledge(a, &w.turn)
		return w.output() + fmt.Sprintf("wake=%v\n", wake)
	case "flow":
		return fmt.Sprintf("wake=%v\n", w.c.FlowReply(args["reply"], int64(w.now)))
	case "pull":
		var r api.NextRequest
		if err := json.Unmarshal([]byte(d.Input), &r); err != nil {
			return err.Error()
		}
		w.c.Ask(PullOf(&r, args["reply"]), &w.turn)
		return w.output()
	case "end-pulls":
		w.c.EndPulls(&w.turn, "409 Consumer Deleted")
		return w.output()
	case "pause":
		until := time.Unix(0, int64(number("until", 0))*int64(time.Second))
		w.c.Pause(&until)
		return ""
	case "unpin":
		w.c.Unpin(args["group"], &w.turn)
		return w.output()
	case "reset":
		w.c.Reset(w.s.engine, uint64(number("seq", 1)))
		return w.info()
	case "expired":
		return fmt.Sprintf("%v\n", w.c.Expired(int64(w.now)))
	}
	w.t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

func (w *world) change(fn func()) {
	w.s.begin()
	fn()
	observers := map[observer][]string{}
	if w.c != nil {
		observers[consumerObserver{w.c}] = w.c.Filters()
	}
	w.s.commit(observers)
}

// consumerObserver drops the result of Stored.
type consumerObserver struct{ *Consumer }

func (o consumerObserver) Stored(seq uint64) { o.Consumer.Stored(seq) }

func (w *world) pending() string {
	if w.c == nil {
		return ""
	}
	return fmt.Sprintf("pending=%d\n", w.c.Pending())
}

func (w *world) deadline() string {
	d := w.c.Deadline()
	if d == 0 {
		return "never"
	}
	return time.Duration(d).String()
}

func (w *world) info() string {
	i := w.c.Info(int64(w.now))
	return fmt.Sprintf("delivered=%d/%d floor=%d/%d unacked=%d redelivered=%d waiting=%d pending=%d bound=%v paused=%v\n",
		i.Delivered.Consumer, i.Delivered.Stream, i.AckFloor.Consumer, i.AckFloor.Stream,
		i.NumAckPending, i.NumRedelivered, i.NumWaiting, i.NumPending, i.PushBound, i.Paused)
}

// output prints what the turn wants sent, one line each.
func (w *world) output() string {
	var b strings.Builder
	for _, o := range w.turn.Out {
		if a := o.Advisory; a != nil {
			fmt.Fprintf(&b, "advisory %d: seq=%d count=%d reason=%q group=%q\n", a.Kind, a.StreamSeq, a.Count, a.Reason, a.Group)
			continue
		}
		fmt.Fprintf(&b, "to %s", o.To)
		if o.Queue != "" {
			fmt.Fprintf(&b, " (queue %s)", o.Queue)
		}
		if o.Subject != o.To {
			fmt.Fprintf(&b, ": %s", o.Subject)
		}
		if o.Reply != "" {
			fmt.Fprintf(&b, " [%s]", o.Reply)
		}
		if len(o.Header) > 0 {
			fmt.Fprintf(&b, " %s", strings.ReplaceAll(strings.TrimSpace(string(o.Header)), "\r\n", " | "))
		}
		if len(o.Data) > 100 {
			fmt.Fprintf(&b, " (%d bytes)", len(o.Data))
		} else if len(o.Data) > 0 {
			fmt.Fprintf(&b, " %q", o.Data)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// plain hides what a reader can do beyond storage.Reader.
type plain struct{ storage.Reader }

// TestReadAhead delivers from random streams with and without reading ahead, while they change, and
// wants the same from both.
func TestReadAhead(t *testing.T) {
	for seed := range int64(30) {
		rng := rand.New(rand.NewSource(seed))
		s := newTestStream(t, []int{0, 1, 3}[rng.Intn(3)])
		key := func() string { return fmt.Sprintf("k.%d.%d", rng.Intn(12), rng.Intn(1+int(seed)*4)) }
		write := func(n int, observers map[observer][]string) {
			s.begin()
			for range n {
				if rng.Intn(8) > 0 {
					s.put(key(), strings.Repeat("x", rng.Intn(40)))
				} else {
					s.remove(uint64(rng.Intn(int(s.tx.State().LastSeq) + 1)))
				}
			}
			s.commit(observers)
		}
		write(1000, nil)
		cfg := api.ConsumerConfig{
			Name: "c", DeliverSubject: "in", DeliverPolicy: []api.DeliverPolicy{api.DeliverAll, api.DeliverLastPerSubject}[rng.Intn(2)],
			FilterSubjects: [][]string{{">"}, {"k.1.*"}, {"k.*.1"}, {"k.1.*", "k.2.1", "k.3.>"}, {"*.*.>"}}[rng.Intn(5)],
		}
		var turns [2]Turn
		var made [2]*Consumer
		observers := map[observer][]string{}
		for i := range made {
			made[i] = New(s.engine, Spec{Stream: "S", Name: "c", Config: cfg, Start: StartOf(s.engine, &cfg)}, nil, 0)
			observers[consumerObserver{made[i]}] = made[i].Filters()
			turns[i] = Turn{MsgsMax: 100, BytesMax: 2000, Interest: func(string, string) bool { return true }}
		}
		for more := true; more; {
			for i := range turns {
				turns[i].Reset(0)
			}
			turns[0].Reader, turns[1].Reader = s.engine, plain{s.engine}
			more = made[0].Run(&turns[0])
			made[1].Run(&turns[1])
			if a, b := fmt.Sprintf("%+v", turns[0].Out), fmt.Sprintf("%+v", turns[1].Out); a != b {
				t.Fatalf("seed %d: reading ahead gives\n%s\nand not\n%s", seed, a, b)
			}
			if rng.Intn(3) == 0 {
				write(rng.Intn(10), observers)
			}
		}
	}
}
