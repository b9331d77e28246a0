package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"
)

// recorder is a handler that keeps what it is told.
type recorder struct {
	mu     sync.Mutex
	frames []string
	up     map[uint64]bool
	refuse error
	gone   map[uint64]bool // refused connections

	refusedBy string
	turns     []int // how many frames had come at each turn's end
}

func newRecorder() *recorder {
	return &recorder{up: make(map[uint64]bool), gone: make(map[uint64]bool)}
}

func (r *recorder) Hello() json.RawMessage { return json.RawMessage(`{"blank":true}`) }
func (r *recorder) Greet(Hello) error      { return r.refuse }
func (r *recorder) Refused(by Hello) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusedBy = by.Name
}
func (r *recorder) Frame(from uint64, kind Kind, payload []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, fmt.Sprintf("%d/%d/%s", from, kind, payload))
	return nil
}
func (r *recorder) TurnEnd() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.frames); n > 0 && (len(r.turns) == 0 || r.turns[len(r.turns)-1] != n) {
		r.turns = append(r.turns, n)
	}
}
func (r *recorder) Up(s uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up[s] = true
}
func (r *recorder) Down(s uint64, refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up[s] = false
	r.gone[s] = r.gone[s] || refused
}
func (r *recorder) get(f func() bool) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return f()
	}
}

func listen(t *testing.T, id uint64, h Handler, change func(*Options)) *Transport {
	t.Helper()
	o := Options{Cluster: "C", Server: id, Name: fmt.Sprint("n", id), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	tr, err := Listen(o, h)
	if err != nil {
		t.Fatal(err)
	}
	tr.Accept()
	t.Cleanup(func() { tr.Close() })
	return tr
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("not reached: %s", what)
}

func TestTransportCarriesFramesInOrder(t *testing.T) {
	ha, hb := newRecorder(), newRecorder()
	a, b := listen(t, 1, ha, nil), listen(t, 2, hb, nil)
	a.Dial(b.Addr().String())
	a.Dial(a.Addr().String()) // a route list names the server itself too
	eventually(t, "up", func() bool { return a.Reachable(2) })
	const n = 2000
	for i := range n {
		if err := a.Send(2, LaneRaft, KindFirst, func(b []byte) []byte { return fmt.Appendf(b, "%d", i) }); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all frames", hb.get(func() bool { return len(hb.frames) == n }))
	for i, f := range hb.frames {
		if f != fmt.Sprintf("1/%d/%d", KindFirst, i) {
			t.Fatalf("frame %d is %s", i, f)
		}
	}
	if err := b.Send(1, LaneRaft, KindFirst, func(b []byte) []byte { return b }); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("b never dialled a: %v", err)
	}
}

func TestTransportTellsWhenItHasHandledWhatCameIn(t *testing.T) {
	ha, hb := newRecorder(), newRecorder()
	a, b := listen(t, 1, ha, nil), listen(t, 2, hb, nil)
	a.Dial(b.Addr().String())
	eventually(t, "up", func() bool { return a.Reachable(2) })
	send := func(n int) {
		for range n {
			if err := a.Queue(2, LaneRequests, KindFirst, func(b []byte) []byte { return append(b, "a frame"...) }); err != nil {
				t.Fatal(err)
			}
		}
		a.Flush(2, LaneRequests)
	}
	told := func(n int) func() bool {
		return hb.get(func() bool { return len(hb.turns) > 0 && hb.turns[len(hb.turns)-1] == n })
	}
	send(1)
	eventually(t, "the end of a frame alone", told(1))
	send(1000)
	eventually(t, "the end of a thousand", told(1001))
	if n := len(hb.turns); n > 500 {
		t.Errorf("a thousand frames sent at once were handled in %d turns", n)
	}
}

// A ping that came in together with a frame must not hold back what the frame gave to send.
func TestTransportTellsOfItsTurnBehindAPing(t *testing.T) {
	ha, hb := newRecorder(), newRecorder()
	a, b := listen(t, 1, ha, nil), listen(t, 2, hb, nil)
	conn, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := writeHello(conn, a.hello(LaneRequests)); err != nil {
		t.Fatal(err)
	}
	nothing := func(b []byte) []byte { return b }
	if _, err := conn.Write(appendFrame(appendFrame(nil, KindFirst, nothing), kindPing, nothing)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "the end of the turn", hb.get(func() bool { return len(hb.turns) > 0 }))
	if took := time.Since(began); took > silenceMax/2 { // A connection that ends for its silence ends the turn too.
		t.Errorf("the turn ended after %s", took)
	}
}

func TestTransportNoticesThatAServerIsGone(t *testing.T) {
	ha, hb := newRecorder(), newRecorder()
	a, b := listen(t, 1, ha, nil), listen(t, 2, hb, nil)
	a.Dial(b.Addr().String())
	eventually(t, "up", ha.get(func() bool { return ha.up[2] }))
	began := time.Now()
	b.Close()
	eventually(t, "down and refused", ha.get(func() bool { return !ha.up[2] && ha.gone[2] }))
	if d := time.Since(began); d > time.Second {
		t.Errorf("it took %s", d)
	}
	if err := a.Send(2, LaneRaft, KindFirst, func(b []byte) []byte { return b }); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("%v", err)
	}
}

func TestTransportRefusesStrangers(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"cluster":  func(o *Options) { o.Cluster = "other" },
		"password": func(o *Options) { o.User, o.Password = "u", "wrong" },
	} {
		t.Run(name, func(t *testing.T) {
			ha, hb := newRecorder(), newRecorder()
			a := listen(t, 1, ha, change)
			b := listen(t, 2, hb, func(o *Options) { o.User, o.Password = "", "" })
			a.Dial(b.Addr().String())
			time.Sleep(300 * time.Millisecond)
			if a.Reachable(2) {
				t.Fatal("connected")
			}
			if ha.mu.Lock(); ha.refusedBy != "n2" {
				t.Errorf("told that it was refused by %q", ha.refusedBy)
			}
			ha.mu.Unlock()
		})
	}
}

func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox(1000)
	o.open = true
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = o.append(KindFirst, func(b []byte) []byte { return append(b, make([]byte, 100)...) })
	}
	if !errors.Is(err, ErrFull) || n > 12 {
		t.Fatalf("%d frames, %v", n, err)
	}
}
