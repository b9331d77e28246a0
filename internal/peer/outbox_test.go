package peer

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/rawio"
)

// loopback gives both ends of a TCP connection with small buffers, whose socket is full often.
func loopback(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	near.(*net.TCPConn).SetWriteBuffer(32 << 10)
	far.(*net.TCPConn).SetReadBuffer(32 << 10)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// Frames of one sender arrive in order and none twice, whoever writes them: many senders flush and
// signal while the socket is full again and again.
func TestOutboxKeepsOrderWhoeverWrites(t *testing.T) {
	near, far := loopback(t)
	conn := rawio.Wrap(near)
	if conn == nil {
		t.Fatal("a TCP connection is not taken for a plain socket")
	}
	o := newOutbox(1 << 20)
	if !o.begin(conn) {
		t.Fatal("begin")
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-o.wake:
			}
			if err := o.write(conn); err != nil {
				t.Error(err)
				return
			}
		}
	})
	const senders, each = 4, 3000
	for s := range senders {
		go func() { // Ends when its frames are sent.
			for n := range uint64(each) {
				err := ErrFull
				for err == ErrFull {
					if err = o.append(KindFirst, func(b []byte) []byte {
						b = append(b, byte(s))
						b = binary.LittleEndian.AppendUint64(b, n)
						return append(b, make([]byte, 300)...)
					}); err == ErrFull {
						time.Sleep(100 * time.Microsecond)
					}
				}
				if n%3 == 0 {
					o.signal()
				} else {
					o.flush()
				}
			}
			o.flush()
		}()
	}
	far.SetReadDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(far)
	var next [senders]uint64
	for i := range senders * each {
		if i%1000 == 0 {
			time.Sleep(5 * time.Millisecond) // The socket fills.
		}
		_, p, err := readFrame(r)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		s, n := p[0], binary.LittleEndian.Uint64(p[1:])
		if n != next[s] {
			t.Fatalf("sender %d: frame %d instead of %d", s, n, next[s])
		}
		next[s]++
	}
	close(stop)
	o.signal()
	writer.Wait()
	if o.writing || len(o.buf) > 0 || len(o.rest) > 0 {
		t.Errorf("writing %v, %d and %d bytes left", o.writing, len(o.buf), len(o.rest))
	}
}

// A flush that was under way when its connection ended must not touch what belongs to the next one.
func TestOutboxForgetsWithItsConnection(t *testing.T) {
	near, _ := loopback(t)
	conn := rawio.Wrap(near)
	o := newOutbox(64 << 20)
	o.begin(conn)
	frame := func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) }
	for range 8 { // More than both sockets hold: the flush leaves a rest.
		o.append(KindFirst, frame)
	}
	o.flush()
	if len(o.rest) == 0 {
		t.Fatal("8 MiB fit into a small socket: the test shows nothing")
	}
	o.end()
	near, far := loopback(t)
	conn = rawio.Wrap(near)
	if !o.begin(conn) {
		t.Fatal("a second connection is not taken")
	}
	o.append(KindFirst, func(b []byte) []byte { return append(b, 7) })
	o.flush()
	far.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, p, err := readFrame(bufio.NewReader(far)); err != nil || len(p) != 1 || p[0] != 7 {
		t.Fatalf("%v %v: the first frame of a connection is not the first that was sent on it", p, err)
	}
}
