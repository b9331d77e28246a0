package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// world is two servers, 1 that sends and 2 that receives, with a network between them.
type world struct {
	t      *testing.T
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	fs     [3]vfs.FS
	at     [3]*Transfers
	lines  [3]*line // to that server

	mu     sync.Mutex
	taken  [][]byte // states that arrived
	refuse error    // of Admit
	room   error
	use    error // what the taker says
	rate   [3]int64
}

// line carries frames to a server, in order and not faster than it can.
type line struct {
	w    *world
	to   int
	wake chan struct{}

	mu    sync.Mutex
	down  bool
	queue [][]byte
	seen  func(frame []byte) []byte // changes a frame on its way; nil loses it
}

const (
	lineBytesMax = 8 << 20
	lineRate     = 100 << 20 // bytes a second
)

var errDown = errors.New("down")

func newWorld(t *testing.T) *world {
	w := &world{t: t}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	for i := 1; i <= 2; i++ {
		w.fs[i] = vfs.NewMem()
		w.lines[i] = &line{w: w, to: i, wake: make(chan struct{}, 1)}
		w.open(i)
		w.wg.Go(w.lines[i].run)
	}
	return w
}

// open starts a server, anew if it ran before: what it knew is gone.
func (w *world) open(i int) {
	ctx := w.ctx
	w.at[i] = New(Options{
		FS: w.fs[i], Dir: "incoming", Ctx: ctx, Go: w.wg.Go, Rate: w.rate[i],
		Post: func(server uint64, frame []byte) error { return w.lines[server].post(frame) },
		Admit: func(uint64, []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.refuse
		},
		Check: func(label []byte, state io.Reader, trailer []byte) error {
			var b [5]byte
			if _, err := io.ReadFull(state, b[:]); err != nil || string(b[:]) != "state" {
				return fmt.Errorf("%q is no state: %v", b, err)
			}
			_, err := io.Copy(io.Discard, state)
			return err
		},
		Take: w.take,
		Room: func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.room
		},
	})
	if err := w.at[i].Prepare(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) take(a *Arrival) {
	f, err := w.fs[2].Open(a.Path)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil || string(a.Trailer) != "trailer" || a.From != 1 || !strings.HasPrefix(string(a.Label), "label") {
		w.t.Errorf("%v, trailer %q of %q from %d", err, a.Trailer, a.Label, a.From)
	}
	w.mu.Lock()
	w.taken = append(w.taken, b)
	err = w.use
	w.mu.Unlock()
	a.Done(err)
}

func (l *line) post(frame []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := 0
	for _, f := range l.queue {
		waiting += len(f)
	}
	switch {
	case l.down:
		return errDown
	case waiting > lineBytesMax:
		return ErrFull
	}
	l.queue = append(l.queue, bytes.Clone(frame))
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

func (l *line) run() {
	for {
		select {
		case <-l.w.ctx.Done():
			return
		case <-l.wake:
		}
		for l.deliver() {
		}
	}
}

func (l *line) deliver() bool {
	l.mu.Lock()
	if len(l.queue) == 0 {
		l.mu.Unlock()
		return false
	}
	f := l.queue[0]
	l.mu.Unlock()
	time.Sleep(time.Duration(len(f)) * time.Second / lineRate)
	l.mu.Lock()
	if len(l.queue) == 0 || &l.queue[0][0] != &f[0] {
		l.mu.Unlock()
		return true // The line broke meanwhile.
	}
	l.queue = l.queue[1:]
	seen := l.seen
	l.mu.Unlock()
	if seen != nil {
		f = seen(f)
	}
	if f != nil {
		if err := l.w.at[l.to].Receive(uint64(3-l.to), f); err != nil {
			l.w.t.Error(err)
		}
	}
	return true
}

// breakFor loses all that is on its way, in both directions.
func (w *world) breakFor(d time.Duration) {
	set := func(down bool) {
		for _, l := range w.lines[1:] {
			l.mu.Lock()
			l.down, l.queue = down, nil
			l.mu.Unlock()
		}
	}
	if d > 0 {
		set(true)
		time.Sleep(d)
	}
	set(false)
}

// whenSent calls fn, once, in the background, when so much of the state has gone over the line.
func (w *world) whenSent(n int64, fn func()) {
	var sum int64
	l := w.lines[2]
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.seen
	l.seen = func(f []byte) []byte {
		if before != nil {
			f = before(f)
		}
		if was := sum; f != nil && f[0] == stepChunk {
			sum += int64(len(f) - chunkHead)
			if was < n && sum >= n {
				w.wg.Go(fn)
			}
		}
		return f
	}
}

func (w *world) send(state []byte) (Sent, error) { return w.sendAs("label", state) }

func (w *world) sendAs(label string, state []byte) (Sent, error) {
	return w.at[1].Send(State{
		ID: rand.Uint64(), To: 2, Label: []byte(label), Wanted: func() error { return nil },
		Write: func(to io.Writer) ([]byte, error) {
			for b := state; len(b) > 0; { // Not in chunks of ours.
				n := min(len(b), 100_001)
				if _, err := to.Write(bytes.Clone(b[:n])); err != nil {
					return nil, err
				}
				b = b[n:]
			}
			return []byte("trailer"), nil
		},
	})
}

// close ends everything, and looks whether files are left.
func (w *world) close() {
	w.t.Helper()
	w.cancel()
	w.wg.Wait()
	for i := 1; i <= 2; i++ {
		if left, err := w.fs[i].List("incoming"); err != nil || len(left) > 0 {
			w.t.Errorf("server %d has %v left, %v", i, left, err)
		}
	}
}

func randomState(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{7})
	rng.Read(b)
	copy(b, "state")
	return b
}

// A connection that breaks costs what was on its way, not what had arrived.
func TestSnapshotStreamResume(t *testing.T) {
	state := randomState(48<<20 + 12345)
	for name, c := range map[string]struct {
		breaks []time.Duration // each when another part has been sent; 0: nobody is told
		again  int64
	}{
		"no break":        {nil, 0},
		"three breaks":    {[]time.Duration{time.Second, 20 * time.Second, time.Millisecond}, 3 * windowBytes},
		"breaks not told": {[]time.Duration{0, 0, 0, 0}, 4 * windowBytes},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for i, d := range c.breaks {
					w.whenSent(int64(i+1)*int64(len(state))/int64(len(c.breaks)+1), func() { w.breakFor(d) })
				}
				sent, err := w.send(state)
				if err != nil {
					t.Fatal(err)
				}
				if len(w.taken) != 1 || !bytes.Equal(w.taken[0], state) {
					t.Errorf("%d states arrived, or another one", len(w.taken))
				}
				if sent.Again > c.again || sent.Broken != len(c.breaks) || sent.Bytes != int64(len(state)) {
					t.Errorf("%+v, want at most %d bytes again, and %d breaks", sent, c.again, len(c.breaks))
				}
				w.close()
			})
		})
	}
}

// All states together are sent, and received, no faster than the rate, and not much slower; each gets its share.
func TestRateIsBounded(t *testing.T) {
	const each, states = 6 << 20, 3
	for name, bound := range map[string][3]int64{
		"sender": {1: 4 << 20}, "receiver": {2: 4 << 20}, "both": {1: 4 << 20, 2: 4 << 20}, "slow": {1: 1 << 20, 2: 1 << 20}, "none": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.rate = bound
				w.open(1)
				w.open(2)
				began := time.Now()
				var took [states]time.Duration
				var sending sync.WaitGroup
				for i := range took {
					sending.Go(func() {
						label := fmt.Sprintf("label %d", i)
						sent, err := w.sendAs(label, randomState(each))
						took[i] = time.Since(began)
						if err != nil || sent.Again > 0 || sent.Broken > 0 {
							t.Errorf("%s: %+v, %v", label, sent, err)
						}
					})
				}
				sending.Wait()
				least := time.Duration(0)
				if r := max(bound[1], bound[2]); r > 0 {
					least = (states*each - 2*chunkBytes) * time.Second / time.Duration(r)
				}
				for i, d := range took {
					if slack := least/5 + time.Second; d < least-slack || d > least+slack {
						t.Errorf("state %d took %s, and all together should take %s", i, d, least)
					}
				}
				if last := slices.Max(took[:]); last < least {
					t.Errorf("all took %s, less than the %s that their size takes at that rate", last, least)
				}
				w.close()
			})
		})
	}
}

// A chunk that is damaged or lost on its way is sent again; nothing of it gets into the state.
func TestDamagedChunksAreSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		state := randomState(8 << 20)
		rng := rand.New(rand.NewPCG(1, 2))
		w.lines[2].seen = func(f []byte) []byte {
			if f[0] != stepChunk {
				return f
			}
			switch rng.IntN(12) {
			case 0:
				f[len(f)/2] ^= 4
			case 1:
				f[headBytes+2] ^= 4 // its place
			case 2:
				return nil
			}
			return f
		}
		sent, err := w.send(state)
		if err != nil || len(w.taken) != 1 || !bytes.Equal(w.taken[0], state) {
			t.Fatalf("%v; %d states arrived", err, len(w.taken))
		}
		if sent.Broken < 5 {
			t.Errorf("only %d frames were damaged: %+v", sent.Broken, sent)
		}
		w.close()
	})
}

// rotten is a file system that changes a byte of what is written to it.
type rotten struct {
	vfs.FS
	at int64
}

type rottenFile struct {
	vfs.File
	at *int64
}

func (fs *rotten) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return rottenFile{f, &fs.at}, err
}

func (f rottenFile) Write(b []byte) (int, error) {
	if *f.at >= 0 && *f.at < int64(len(b)) {
		b = bytes.Clone(b)
		b[*f.at] ^= 1
	}
	*f.at -= int64(len(b))
	return f.File.Write(b)
}

// What is not whole and sound never gets to whoever would use it, and both sides hear of that.
func TestUnsoundStatesAreRefused(t *testing.T) {
	state := randomState(4 << 20)
	for name, c := range map[string]struct {
		prepare func(w *world)
		want    string
	}{
		"damaged on the disk of the receiver": {func(w *world) {
			w.fs[2] = &rotten{w.fs[2], 1 << 20}
			w.open(2)
		}, "its checksum is not that of what was sent"},
		"damaged on the disk of the sender": {func(w *world) {
			w.fs[1] = &rotten{w.fs[1], 2 << 20}
			w.open(1)
		}, "its checksum is not that of what was sent"},
		"truncated": {func(w *world) {
			w.lines[2].seen = func(f []byte) []byte {
				if f[0] == stepEnd { // It claims to be whole before it is.
					return nil
				}
				if p, _ := parse(f); f[0] == stepChunk && p.offset == 1<<20 {
					return endFrame(p.id, p.offset, make([]byte, 32), []byte("trailer"))
				}
				return f
			}
		}, "its checksum is not that of what was sent"},
		"not wanted":      {func(w *world) { w.refuse = errors.New("nobody asked") }, "nobody asked"},
		"no room":         {func(w *world) { w.room = errors.New("the disk is full") }, "the disk is full"},
		"no use":          {func(w *world) { w.use = errors.New("no use") }, "no use"},
		"another content": {func(w *world) { state[0] = 'S' }, `"State" is no state`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c.prepare(w)
				_, err := w.send(state)
				state[0] = 's'
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				if len(w.taken) > 0 && name != "no use" {
					t.Error("it arrived all the same")
				}
				w.close()
			})
		})
	}
}

// The sender hears of the outcome also if the word of it is lost, and the receiver does not begin anew.
func TestLostResultIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		lost := 0
		w.lines[1].seen = func(f []byte) []byte {
			if f[0] == stepResult && lost < 3 {
				lost++
				return nil
			}
			return f
		}
		sent, err := w.send(randomState(1 << 20))
		if err != nil || len(w.taken) != 1 || sent.Again != 0 || lost != 3 {
			t.Fatalf("%+v %v, %d states arrived, %d results lost", sent, err, len(w.taken), lost)
		}
		w.close()
	})
}

// A receiver that was started again has nothing; the sender has the same state still.
func TestReceiverStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		state := randomState(16 << 20)
		w.whenSent(8<<20, func() {
			w.breakFor(3 * time.Second)
			w.open(2)
		})
		sent, err := w.send(state)
		if err != nil || len(w.taken) != 1 || !bytes.Equal(w.taken[0], state) {
			t.Fatalf("%v, %d states arrived", err, len(w.taken))
		}
		if sent.Again < 8<<20 {
			t.Errorf("%+v: the receiver was not started again", sent)
		}
		w.close()
	})
}

// Every sending comes to an end: a receiver that is gone for good, a state that can not be made, or is not
// wanted any more.
func TestSendingEnds(t *testing.T) {
	for name, c := range map[string]struct {
		write  error
		wanted error
		down   time.Duration
		want   string
	}{
		"the receiver is gone":       {nil, nil, time.Hour, "nothing was heard"},
		"the state can not be made":  {errors.New("damaged block"), nil, 0, "damaged block"},
		"another leader was elected": {nil, errors.New("not the leader"), 0, "not the leader"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				state := randomState(16 << 20)
				var mu sync.Mutex
				var wanted error
				w.whenSent(4<<20, func() {
					mu.Lock()
					wanted = c.wanted
					mu.Unlock()
					w.breakFor(c.down)
				})
				_, err := w.at[1].Send(State{
					ID: 1, To: 2, Label: []byte("label"),
					Wanted: func() error {
						mu.Lock()
						defer mu.Unlock()
						return wanted
					},
					Write: func(to io.Writer) ([]byte, error) {
						if c.write != nil {
							_, _ = to.Write(bytes.Clone(state[:9<<20]))
							return nil, c.write
						}
						_, err := to.Write(bytes.Clone(state))
						return []byte("trailer"), err
					},
				})
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				time.Sleep(idleMax + time.Second) // The receiver hears nothing any more.
				if left, err := w.fs[2].List("incoming"); err != nil || len(left) > 0 || len(w.at[2].incoming) > 0 {
					t.Errorf("the receiver keeps %v, %v", left, err)
				}
				if len(w.taken) > 0 {
					t.Error("it arrived")
				}
				w.close()
			})
		})
	}
}

// Another state of the same thing takes the place of one that is on its way; only so many are.
func TestArrivalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 2 * arrivalsMax {
			if err := w.at[2].Receive(1, offerFrame(uint64(i+1), 1, []byte("label"))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := len(w.at[2].incoming); n != 1 || w.at[2].arriving != 1 {
			t.Errorf("%d states of one thing on their way, %d counted", n, w.at[2].arriving)
		}
		for i := range 2 * arrivalsMax {
			if err := w.at[2].Receive(1, offerFrame(uint64(100+i), 1, fmt.Append(nil, i))); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := len(w.at[2].incoming); n != arrivalsMax {
			t.Errorf("%d states on their way, want %d", n, arrivalsMax)
		}
		w.close()
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(offerFrame(7, 1, []byte("label")))
	chunk := append(beginChunk(nil, 7, 4096), "bytes"...)
	sealChunk(chunk)
	f.Add(chunk)
	f.Add(endFrame(7, 4101, make([]byte, 32), []byte("trailer")))
	f.Add(haveFrame(7, 1, 4096))
	f.Add(resultFrame(7, errors.New("why")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		var again []byte
		switch p.step {
		case stepOffer:
			again = offerFrame(p.id, p.question, p.rest)
		case stepChunk:
			if p.damaged {
				return
			}
			again = append(beginChunk(nil, p.id, p.offset), p.rest...)
			sealChunk(again)
		case stepEnd:
			again = endFrame(p.id, p.offset, p.sum, p.rest)
		default:
			return
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x is parsed as %x", b, again)
		}
	})
}
