package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/api"
)

// errRefused is a definite answer: it did not happen and will not.
var errRefused = errors.New("refused")

const (
	keys        = 7
	consumer    = "worker"
	checkpoints = 12 * time.Second // is longer than a server waits with one
)

// client works through a list of operations and keeps the books of what it was told.
type client struct {
	server *server
	random *rand.Rand
	log    *journal

	mu      sync.Mutex // over the books, which a power cut looks at
	buckets []*bucket
	wrong   error // the first answer that contradicts the books
	silent  int   // requests without an answer
	refused int   // with an error that the books do not explain
}

func newClient(log *journal, seed uint64) *client {
	return &client{
		log: log, random: rand.New(rand.NewPCG(seed, 1)),
		buckets: []*bucket{newBucket("file", "file", 3), newBucket("rocks", "rocksdb", 2)},
	}
}

// work does one operation.
func (c *client) work(n int) {
	if n < len(c.buckets) {
		c.create(c.buckets[n])
		if n == 0 {
			c.createConsumer(c.buckets[n])
		}
		return
	}
	switch draw := c.random.IntN(100); {
	case draw < 2:
		c.comeAndGo()
	case draw < 4:
		time.Sleep(checkpoints)
	case draw < 12:
		c.consume(c.buckets[0])
	default:
		c.touch(c.buckets[c.random.IntN(len(c.buckets))], draw, n)
	}
}

// touch does something with a key.
func (c *client) touch(b *bucket, draw, n int) {
	key, value := fmt.Sprint("k", c.random.IntN(keys)), strconv.Itoa(n)
	if draw%9 == 0 {
		value += strings.Repeat("x", 5000) // Several sectors.
	}
	switch {
	case draw < 50:
		c.put(b, effect{kind: puts, key: key, value: value}, "")
	case draw < 60:
		last, _ := b.now().get(key)
		c.put(b, effect{kind: puts, key: key, value: value}, fmt.Sprint("Nats-Expected-Last-Subject-Sequence: ", last.seq))
	case draw < 65:
		c.put(b, effect{kind: puts, key: key, value: "never"}, "Nats-Expected-Last-Subject-Sequence: 1000000")
	case draw < 72:
		c.put(b, effect{kind: puts, key: key, marker: "DEL"}, "KV-Operation: DEL")
	case draw < 77:
		c.put(b, effect{kind: purges, key: key, marker: "PURGE"}, "KV-Operation: PURGE\r\nNats-Rollup: sub")
	default:
		c.get(b, key)
	}
}

// comeAndGo deletes a bucket that came the last time, and creates another.
func (c *client) comeAndGo() {
	if len(c.buckets) > 3 {
		c.remove(c.buckets[len(c.buckets)-1])
	}
	b := newBucket(fmt.Sprint("b", len(c.buckets)), []string{"file", "rocksdb"}[c.random.IntN(2)], 1)
	c.mu.Lock()
	c.buckets = append(c.buckets, b)
	c.mu.Unlock()
	c.create(b)
}

func (c *client) create(b *bucket) {
	if b.now() != nil {
		return // It was found after a restart.
	}
	body, _ := json.Marshal(map[string]any{
		"name": "KV_" + b.name, "subjects": []string{"$KV." + b.name + ".>"}, "max_msgs_per_subject": b.history,
		"storage": "file", "metadata": map[string]string{"cleat.storage": b.engine}, "num_replicas": 1,
		"allow_direct": true, "allow_rollup_hdrs": true, "deny_delete": true, "discard": "new",
	})
	c.change(b, effect{kind: creates}, func() (uint64, error) { return c.call("STREAM.CREATE.KV_"+b.name, body) })
}

func (c *client) remove(b *bucket) {
	if b.now() == nil {
		return
	}
	c.change(b, effect{kind: deletes}, func() (uint64, error) { return c.call("STREAM.DELETE.KV_"+b.name, nil) })
}

func (c *client) put(b *bucket, e effect, header string) {
	if b.now() == nil {
		return
	}
	e.seq = b.now().last + 1
	c.change(b, e, func() (uint64, error) {
		m, err := c.server.request("$KV."+b.name+"."+e.key, header, []byte(e.value))
		if err != nil {
			return 0, err
		}
		return result(m)
	})
}

// change does one operation on a bucket and notes what became of it.
func (c *client) change(b *bucket, e effect, do func() (uint64, error)) {
	if b.unknown != nil {
		return
	}
	c.mu.Lock()
	b.unknown = &e
	c.mu.Unlock()
	seq, err := do()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && e.value == "never":
		c.wrongAnswer("%s: a compare-and-set with a wrong revision succeeded", b.name)
	case err == nil:
		if seq != e.seq {
			c.wrongAnswer("%s: got revision %d, want %d", b.name, seq, e.seq)
		}
		b.acknowledged(e)
		b.unknown = nil
	case errors.Is(err, errRefused):
		if e.value != "never" {
			c.refused++
			fmt.Fprintf(c.log, "client: %s: %v\n", b.name, err)
		}
		b.unknown = nil
	default:
		c.silent++
	}
}

// get asks for the last value of a key.
func (c *client) get(b *bucket, key string) {
	m, err := c.server.request("$JS.API.DIRECT.GET.KV_"+b.name+".$KV."+b.name+"."+key, "", nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	var got string
	switch {
	case errors.Is(err, errRefused):
		if b.now() != nil {
			c.refused++
		}
		return
	case err != nil:
		c.silent++
		return
	case m.status == "":
		got = fmt.Sprint(m.header["Nats-Sequence"], m.header["KV-Operation"], string(m.data))
	case !strings.HasPrefix(m.status, "404"):
		c.refused++
		fmt.Fprintf(c.log, "client: get %s from %s: %s\n", key, b.name, m.status)
		return
	}
	var want []string
	for _, s := range b.possible(len(b.states) - 1) {
		w, ok := s.get(key)
		if !ok {
			want = append(want, "")
		} else {
			want = append(want, fmt.Sprint(w.seq, w.marker, w.value))
		}
	}
	if !slices.Contains(want, got) {
		c.wrongAnswer("get %s from %s: %q, want one of %q", key, b.name, got, want)
	}
}

func (c *client) wrongAnswer(format string, args ...any) {
	if c.wrong == nil {
		c.wrong = fmt.Errorf(format, args...)
	}
}

// call makes a request of the API that changes something.
func (c *client) call(name string, body []byte) (uint64, error) {
	m, err := c.server.request("$JS.API."+name, "", body)
	if err != nil {
		return 0, err
	}
	_, err = result(m)
	return 0, err
}

// result reads the answer to a publish or to a request of the API.
func result(m *message) (seq uint64, err error) {
	var r struct {
		Seq   uint64
		Error *api.Error
	}
	switch err := json.Unmarshal(m.data, &r); {
	case strings.HasPrefix(m.status, "503"):
		return 0, fmt.Errorf("%w: %s", errRefused, m.status)
	case err != nil:
		return 0, fmt.Errorf("%w: %q", err, m.data)
	case r.Error != nil:
		return 0, fmt.Errorf("%w: %s", errRefused, r.Error.Description)
	}
	return r.Seq, nil
}

func (c *client) createConsumer(b *bucket) {
	body, _ := json.Marshal(map[string]any{
		"stream_name": "KV_" + b.name,
		"config":      map[string]any{"durable_name": consumer, "ack_policy": "explicit", "ack_wait": time.Hour, "max_ack_pending": 1000},
	})
	if _, err := c.call("CONSUMER.DURABLE.CREATE.KV_"+b.name+"."+consumer, body); err != nil {
		fmt.Fprintf(c.log, "client: create the consumer: %v\n", err)
	}
}

// consume takes the next message and acknowledges it. What was acknowledged does not come again.
func (c *client) consume(b *bucket) {
	m, err := c.server.request("$JS.API.CONSUMER.MSG.NEXT.KV_"+b.name+"."+consumer, "", []byte(`{"batch":1,"no_wait":true}`))
	if err != nil || m.reply == "" {
		return // No answer, or no message.
	}
	// $JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>...
	seq, err := strconv.ParseUint(strings.Split(m.reply, ".")[5], 10, 64)
	if err != nil {
		panic(fmt.Sprintf("reply subject %s: %v", m.reply, err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq <= b.floor {
		c.wrongAnswer("%s: message %d was acknowledged and comes again", b.name, seq)
	}
	c.mu.Unlock()
	_, err = c.server.request(m.reply, "", []byte("+ACK"))
	c.mu.Lock()
	if err == nil {
		b.floor = max(b.floor, seq)
	}
}

// read returns all that a server holds of a bucket.
func (s *server) read(b *bucket) (*state, error) {
	m, err := s.request("$JS.API.STREAM.INFO.KV_"+b.name, "", nil)
	if err != nil {
		return nil, err
	}
	var info struct {
		Error *api.Error
		State struct {
			Last uint64 `json:"last_seq"`
		}
	}
	if err := json.Unmarshal(m.data, &info); err != nil {
		return nil, err
	}
	if info.Error != nil {
		if info.Error.Code == 404 {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: %s", errRefused, info.Error.Description)
	}
	st := &state{history: b.history, last: info.State.Last}
	inbox, ok := s.send("$JS.API.DIRECT.GET.KV_"+b.name, "", []byte(`{"seq":1,"batch":1000,"next_by_subj":">"}`))
	if !ok {
		return nil, fmt.Errorf("%w: nobody answers a direct get", errRefused)
	}
	for {
		m, err := s.await(inbox)
		if err != nil {
			return nil, err
		}
		switch {
		case strings.HasPrefix(m.status, "204"), strings.HasPrefix(m.status, "404"):
			return st, nil
		case m.status != "":
			return nil, fmt.Errorf("%w: %s", errRefused, m.status)
		}
		seq, err := strconv.ParseUint(m.header["Nats-Sequence"], 10, 64)
		if err != nil {
			return nil, err
		}
		key := strings.TrimPrefix(m.header["Nats-Subject"], "$KV."+b.name+".")
		st.messages = append(st.messages, stored{seq, key, string(m.data), m.header["KV-Operation"]})
	}
}
