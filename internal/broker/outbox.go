package broker

import (
	"sync"
)

// Conn is the connection of a client as the broker needs it. None of its methods blocks, and none
// but Offer may call the client: the others are called under the lock of its output.
type Conn interface {
	// Offer gives bytes to the socket. n of them are dealt with; clear tells that none of these is
	// held back within the connection. It is never called twice at a time.
	Offer(p []byte) (n int, clear bool, err error)

	// StartWriter starts a goroutine that calls Client.Drain, since the socket is full. It is not
	// called after Kill or Abort.
	StartWriter()

	// Abort breaks the connection off because of the client's slowness or a failed write.
	Abort(slow bool, err error)

	// Flushed tells that everything was written after Client.Finish; the socket may be closed. After
	// Finish, one of Flushed and Abort is called, unless it was Kill that ended the output.
	Flushed()
}

const (
	chunkSmall = 4 << 10
	chunkLarge = 64 << 10

	// flushAt is how much may gather at one client before it is offered to the socket in the midst
	// of a batch, so that a long batch to a quick client is not taken for slowness.
	flushAt = 256 << 10
)

// outbox is the bytes that wait for one client's socket.
type outbox struct {
	mu    sync.Mutex
	queue []*chunk // Oldest first.
	bytes int      // In the queue and in the hands of the writer.

	// busy is set while someone writes: a flush, or the writer goroutine after the socket was
	// full. It alone takes from the queue, and it goes on until the queue is empty.
	busy    bool
	held    *chunk // What a full socket left for the writer goroutine.
	batch   *Batch // The batch that will flush this client; a hint that spares duplicates.
	closing bool   // Nothing is added any more.
	dead    bool   // The socket is gone: what waits is dropped.

	limit int // More bytes than this mean that the client is too slow.
	msgs  int64
	sent  int64 // Payload bytes, for the statistics.
}

// chunk is a piece of output. Small and large ones are pooled; a single message that is larger
// than those has one of its own.
type chunk struct {
	b   []byte
	off int // What was written already.
}

var (
	smallChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, chunkSmall)} }}
	largeChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, chunkLarge)} }}
)

// room returns a chunk at the end of the queue that takes n more bytes. o.mu is held.
func (o *outbox) room(n int) *chunk {
	last := len(o.queue) - 1
	if last >= 0 && cap(o.queue[last].b)-len(o.queue[last].b) >= n {
		return o.queue[last]
	}
	var k *chunk
	switch {
	case last < 0 && n <= chunkSmall:
		k = smallChunks.Get().(*chunk)
	case n <= chunkLarge:
		k = largeChunks.Get().(*chunk)
	default:
		k = &chunk{b: make([]byte, 0, n)}
	}
	o.queue = append(o.queue, k)
	return k
}

// pop takes the oldest chunk. o.mu is held.
func (o *outbox) pop() *chunk {
	k := o.queue[0]
	n := copy(o.queue, o.queue[1:])
	o.queue[n] = nil
	o.queue = o.queue[:n]
	return k
}

func release(k *chunk) {
	k.b, k.off = k.b[:0], 0
	switch cap(k.b) {
	case chunkSmall:
		smallChunks.Put(k)
	case chunkLarge:
		largeChunks.Put(k)
	}
}

// begin locks the outbox to add about n bytes and returns where, or nil if nothing can be added.
// The caller must call added if it got a chunk.
func (o *outbox) begin(n int) *chunk {
	o.mu.Lock()
	if o.closing {
		o.mu.Unlock()
		return nil
	}
	return o.room(n)
}

// added unlocks the outbox after n bytes were added and puts the client on the batch's list.
func (c *Client) added(n int, b *Batch) {
	o := &c.out
	o.bytes += n
	if b != nil && o.batch != b {
		o.batch = b
		b.clients = append(b.clients, c)
	}
	if o.bytes > o.limit {
		o.drop()
		c.conn.Abort(true, nil)
		o.mu.Unlock()
		return
	}
	due := o.bytes > flushAt && !o.busy
	o.mu.Unlock()
	if due {
		c.flush(nil)
	}
}

// drop forgets what waits. o.mu is held.
func (o *outbox) drop() {
	o.closing, o.dead = true, true
	for _, k := range o.queue {
		release(k)
	}
	clear(o.queue)
	o.queue = nil
}

// flush offers what waits to the socket and returns how much it left over.
func (c *Client) flush(b *Batch) (left int) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if b != nil && o.batch == b {
		o.batch = nil
	}
	if o.busy {
		return o.bytes
	}
	for len(o.queue) > 0 {
		o.busy = true
		k := o.pop()
		o.mu.Unlock()
		n, clear, err := c.conn.Offer(k.b[k.off:])
		o.mu.Lock()
		o.bytes -= n
		k.off += n
		if err != nil {
			o.busy = false
			c.fail(err)
			return 0
		}
		if o.dead {
			break
		}
		if k.off < len(k.b) || !clear {
			o.held = k // Still busy: the writer takes over.
			c.conn.StartWriter()
			return o.bytes
		}
		release(k)
	}
	o.busy = false
	if o.closing && !o.dead {
		c.conn.Flushed()
	}
	return 0
}

// fail drops the output of a broken socket. o.mu is held; Abort does not block.
func (c *Client) fail(err error) {
	if !c.out.dead {
		c.out.drop()
		c.conn.Abort(false, err)
	}
}

// Drain writes what a full socket left over, until nothing is left. The goroutine that StartWriter
// made calls it; write may block, and is called with nothing to write if only the connection
// itself held something back.
func (c *Client) Drain(write func(p []byte) error) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	k := o.held
	o.held = nil
	for k != nil && !o.dead {
		rest := k.b[k.off:]
		o.mu.Unlock()
		err := write(rest)
		o.mu.Lock()
		o.bytes -= len(rest)
		release(k)
		k = nil
		if err != nil {
			c.fail(err)
			break
		}
		if len(o.queue) > 0 {
			k = o.pop()
		}
	}
	o.busy = false
	if o.closing && !o.dead {
		c.conn.Flushed()
	}
}

// Send adds protocol bytes that are no message: PONG, +OK, INFO and the like.
func (c *Client) Send(b *Batch, line string) {
	k := c.out.begin(len(line))
	if k == nil {
		return
	}
	k.b = append(k.b, line...)
	c.added(len(line), b)
}

// Finish lets what waits be written, after which the connection is told by Flushed. Nothing can be
// added any more.
func (c *Client) Finish() {
	c.out.mu.Lock()
	if c.out.closing {
		c.out.mu.Unlock()
		return
	}
	c.out.closing = true
	c.out.mu.Unlock()
	c.flush(nil)
}

// Leave is Finish for a client that is expected to come back on another server: messages for it are given to late
// from then on, until Close, with whether they go to another server too. late runs on the publisher's goroutine and
// must neither block nor call the broker.
func (c *Client) Leave(late func(m *Msg, far bool)) {
	c.late.Store(&late)
	c.Finish()
}

// Kill drops what waits: the socket is closed or about to be.
func (c *Client) Kill() {
	c.out.mu.Lock()
	c.out.drop()
	c.out.mu.Unlock()
}

// Flush writes what waits, without blocking.
func (c *Client) Flush() { c.flush(nil) }
