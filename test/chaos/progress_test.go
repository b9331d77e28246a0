package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cleatkv/cleat/test/process"
)

// progress judges liveness: clients that stay with one server each write, read and watch without pause, and
// each has to succeed in all three within a time that the test says.
type progress struct {
	t     *testing.T
	begun time.Time
	lines []*line
	upTo  kind // of the kinds those before this one are judged
	stop  context.CancelFunc
	load  sync.WaitGroup
}

// line is what one client does with one bucket.
type line struct {
	server int
	bucket string
	kv     jetstream.KeyValue
	book   *ledger // of the bucket
	begun  time.Time

	// newest is, by kind, when the newest operation was begun that succeeded, since begun. Of a watch it is when the
	// write was begun that was shown.
	newest [kinds]atomic.Int64

	mu    sync.Mutex
	why   [kinds]error // of the last failure
	mute  []span       // operations that ended without an answer
	watch jetstream.KeyWatcher
}

// kind is what is done.
type kind int

const (
	writing kind = iota
	reading
	watching
	kinds
)

func (k kind) String() string { return [...]string{"write", "read", "watch"}[k] }

// span is when an operation began and ended, since begun.
type span struct {
	kind       kind
	began, end time.Duration
}

// progressEvery is how often an operation of each kind is begun, whatever became of those before.
const progressEvery = 100 * time.Millisecond

// newProgress begins to do so at every server, in all the buckets whose books are given.
func newProgress(t *testing.T, servers []*process.Server, books ...*ledger) *progress {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &progress{t: t, begun: time.Now(), upTo: kinds, stop: cancel}
	for i, s := range servers {
		js := newSession(t, s).js
		for _, book := range books {
			kv, err := js.KeyValue(ctx, book.bucket)
			if err != nil {
				t.Fatal(err)
			}
			l := &line{server: i, bucket: book.bucket, kv: kv, book: book, begun: p.begun}
			p.lines = append(p.lines, l)
			p.load.Go(func() { l.every(ctx, &p.load, l.write) })
			p.load.Go(func() { l.every(ctx, &p.load, l.read) })
			p.load.Go(func() { l.follow(ctx) })
		}
	}
	t.Cleanup(p.end)
	return p
}

// end waits for what is under way.
func (p *progress) end() {
	p.stop()
	p.load.Wait()
}

func (l *line) every(ctx context.Context, load *sync.WaitGroup, do func(n int) error) {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		<-ticker.C
		load.Go(func() { _ = do(n) })
	}
}

func (l *line) key() string { return fmt.Sprintf("progress.%d", l.server) }

func (l *line) write(n int) error {
	began := time.Since(l.begun)
	value := fmt.Sprintf("%s-%d-%d", l.key(), n, began)
	l.book.begin(value, write{key: l.key()})
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	revision, err := l.kv.Put(ctx, l.key(), []byte(value))
	l.book.end(value, judgeError(err), revision)
	l.note(writing, began, err)
	return err
}

func (l *line) read(int) error {
	began := time.Since(l.begun)
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	_, err := l.kv.Get(ctx, l.key())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		err = nil
	}
	l.note(reading, began, err)
	return err
}

// follow watches what all the clients write.
func (l *line) follow(ctx context.Context) {
	for ctx.Err() == nil {
		w, err := l.kv.Watch(ctx, "progress.*")
		if err != nil {
			l.note(watching, time.Since(l.begun), err)
			time.Sleep(progressEvery)
			continue
		}
		l.mu.Lock()
		l.watch = w
		l.mu.Unlock()
		for e := range w.Updates() {
			if e == nil {
				continue
			}
			value := string(e.Value())
			began, err := strconv.ParseInt(value[strings.LastIndexByte(value, '-')+1:], 10, 64)
			l.note(watching, time.Duration(began), err)
		}
	}
}

// anew has a watch begun again, after the bucket has lost what it had.
func (l *line) anew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch != nil {
		_ = l.watch.Stop()
	}
}

// note keeps what became of an operation.
func (l *line) note(k kind, began time.Duration, err error) {
	if err == nil {
		raise(&l.newest[k], int64(began))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.why[k] = err
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		l.mute = append(l.mute, span{k, began, time.Since(l.begun)})
	}
}

// resumed waits until each of the lines has had a write, a read and a watch message succeed that were begun after
// the moment, and returns how long after it that was, by kind.
func (p *progress) resumed(what string, after time.Time, limit time.Duration, which func(*line) bool) [kinds]time.Duration {
	p.t.Helper()
	moment := int64(after.Sub(p.begun))
	var took [kinds]time.Duration
	for k := range p.upTo {
		for {
			late := p.late(k, moment, which)
			took[k] = time.Since(after)
			if len(late) == 0 {
				break
			}
			if took[k] > limit {
				for _, l := range late {
					l.mu.Lock()
					p.t.Errorf("%s: no %s at n%d of %s within %s; the last failure: %v", what, k, l.server, l.bucket, limit, l.why[k])
					l.mu.Unlock()
				}
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return took
}

// everywhere demands that all go on, reads and watchers too, and ends the load.
func (p *progress) everywhere(what string) {
	p.t.Helper()
	// A watcher may have to be found by its client, which looks after two missed heartbeats, ten seconds, and in the midst of
	// a fault does so in vain: twice as long as where it is judged how soon.
	took := p.resumed(what, time.Now(), 2*goOnMax, func(*line) bool { return true })
	p.t.Logf("%s: writes, reads and watchers go on everywhere after %s", what, told(took))
	p.end()
}

func (p *progress) late(k kind, moment int64, which func(*line) bool) (late []*line) {
	for _, l := range p.lines {
		if which(l) && l.newest[k].Load() <= moment {
			late = append(late, l)
		}
	}
	return late
}

// clear demands that what was begun and ended between two moments, and did not succeed, was told so.
func (p *progress) clear(what string, from, to time.Time, which func(*line) bool) {
	p.t.Helper()
	for _, l := range p.lines {
		if !which(l) {
			continue
		}
		l.mu.Lock()
		for k := range kinds {
			silent := slices.DeleteFunc(slices.Clone(l.mute), func(s span) bool {
				return s.kind != k || s.began < from.Sub(p.begun) || s.end > to.Sub(p.begun)
			})
			if len(silent) > 0 {
				s := slices.MinFunc(silent, func(a, b span) int { return cmp.Compare(a.began, b.began) })
				p.t.Errorf("%s: %d times no answer to a %s at n%d of %s, first to one begun %s after the beginning", what, len(silent), k, l.server, l.bucket, s.began-from.Sub(p.begun))
			}
		}
		l.mu.Unlock()
	}
}
