package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// snapshots carries the state of groups to members that are too far behind for their log. Raft's
// message holds a token only; the state travels apart, in chunks, and is put into a file. The
// message is handed to Raft when the state is whole.
//
//	begin:  | 1 | transfer 8 |
//	chunk:  | 2 | transfer 8 | bytes |
//	end:    | 3 | transfer 8 | group 8 | raft message |      with the position of the state sent
//	abort:  | 4 | transfer 8 |
//	result: | 5 | transfer 8 | ok 1 |                        from the receiver
type snapshots struct {
	c *Cluster

	mu       sync.Mutex
	next     uint64
	outgoing map[uint64]chan bool // result by transfer
	incoming map[transfer]*incoming
	tokens   map[string]transfer // of whole states that wait for Raft to ask for them
	busy     map[memberOf]bool   // members that are being sent a state
}

// transfer names one sending of a state.
type transfer struct {
	from uint64
	id   uint64
}

type memberOf struct {
	group  wal.GroupID
	member uint64
}

type incoming struct {
	path string
	file vfs.File
	err  error
}

const (
	snapBegin = iota + 1
	snapChunk
	snapEnd
	snapAbort
	snapResult
)

const (
	snapChunkBytes  = 256 << 10
	snapSendersMax  = 2 // states sent at a time
	snapResultAfter = 2 * time.Minute
	snapshotDir     = "incoming"
)

func newSnapshots(c *Cluster) *snapshots {
	return &snapshots{
		c: c, outgoing: make(map[uint64]chan bool), incoming: make(map[transfer]*incoming),
		tokens: make(map[string]transfer), busy: make(map[memberOf]bool),
	}
}

// prepare removes what transfers of an earlier life left behind.
func (s *snapshots) prepare() error {
	dir := filepath.Join(s.c.opts.Dir, snapshotDir)
	if err := s.c.opts.FS.RemoveAll(dir); err != nil {
		return err
	}
	return s.c.opts.FS.MkdirAll(dir, 0o750)
}

// send begins to send the group's state to a member, in the background. Both outcomes are reported
// to Raft, always.
func (s *snapshots) send(g *group, r *replica.Replica, to uint64, m *pb.Message) {
	key := memberOf{g.id, m.GetTo()}
	report := func(ok bool) {
		g.shard.Call(func() { r.ReportSnapshot(key.member, ok) })
	}
	s.mu.Lock()
	if s.busy[key] || len(s.busy) >= snapSendersMax || to == 0 {
		s.mu.Unlock()
		report(false)
		return
	}
	s.busy[key] = true
	s.next++
	id := s.next
	result := make(chan bool, 1)
	s.outgoing[id] = result
	s.mu.Unlock()
	s.c.wg.Go(func() {
		err := s.transmit(r, to, id, m, result)
		s.mu.Lock()
		delete(s.busy, key)
		delete(s.outgoing, id)
		s.mu.Unlock()
		if err != nil && s.c.ctx.Err() == nil {
			s.c.opts.Logger.Warn(fmt.Sprintf("sending the state of group %d to server %q: %v", g.id, s.c.PeerName(to), err))
		}
		report(err == nil)
	})
}

// transmit sends one state and waits for the receiver's word.
func (s *snapshots) transmit(r *replica.Replica, to, id uint64, m *pb.Message, result chan bool) error {
	if err := s.frame(to, snapBegin, id, nil); err != nil {
		return err
	}
	w := &chunkWriter{s: s, to: to, id: id}
	at, err := r.Machine().WriteSnapshot(w)
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		_ = s.frame(to, snapAbort, id, nil)
		return err
	}
	conf, err := replica.DecodeConf(at.Conf)
	if err != nil {
		return err
	}
	// The state is newer than Raft's message says; the message must tell its true position.
	m.Snapshot = &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: &at.Index, Term: &at.Term, ConfState: conf}}
	if err := s.frame(to, snapEnd, id, peer.AppendMessage(nil, uint64(r.Group()), m)); err != nil {
		return err
	}
	select {
	case ok := <-result:
		if !ok {
			return errors.New("the receiver could not use it")
		}
		return nil
	case <-time.After(snapResultAfter):
		return errors.New("no answer from the receiver")
	case <-s.c.ctx.Done():
		return s.c.ctx.Err()
	}
}

func (s *snapshots) frame(to uint64, step byte, id uint64, body []byte) error {
	for {
		err := s.c.send(to, peer.LaneBulk, kindSnapshot, func(b []byte) []byte {
			b = append(b, step)
			b = binary.LittleEndian.AppendUint64(b, id)
			return append(b, body...)
		})
		if !errors.Is(err, peer.ErrFull) {
			return err
		}
		select { // The lane is as fast as the network: wait for room.
		case <-s.c.ctx.Done():
			return s.c.ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// chunkWriter cuts what is written into frames.
type chunkWriter struct {
	s   *snapshots
	to  uint64
	id  uint64
	buf []byte
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if len(w.buf) < snapChunkBytes {
		return len(p), nil
	}
	return len(p), w.flush()
}

func (w *chunkWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.s.frame(w.to, snapChunk, w.id, w.buf)
	w.buf = w.buf[:0]
	return err
}

// receive handles one frame of a transfer.
func (s *snapshots) receive(from uint64, payload []byte) error {
	if len(payload) < 9 {
		return errors.New("malformed snapshot frame")
	}
	id := binary.LittleEndian.Uint64(payload[1:])
	t, body := transfer{from, id}, payload[9:]
	switch payload[0] {
	case snapBegin:
		s.begin(t)
	case snapChunk:
		s.chunk(t, body)
	case snapEnd:
		s.end(t, body)
	case snapAbort:
		if in := s.forget(t); in != nil {
			s.discard(in)
		}
	case snapResult:
		s.mu.Lock()
		result := s.outgoing[id]
		s.mu.Unlock()
		if result != nil && len(body) == 1 {
			select {
			case result <- body[0] == 1:
			default:
			}
		}
	}
	return nil
}

func (s *snapshots) begin(t transfer) {
	in := &incoming{path: filepath.Join(s.c.opts.Dir, snapshotDir, fmt.Sprintf("%016x-%d", t.from, t.id))}
	in.file, in.err = s.c.opts.FS.Create(in.path, vfs.WriteCategoryUnspecified)
	s.mu.Lock()
	old := s.incoming[t]
	s.incoming[t] = in
	s.mu.Unlock()
	if old != nil {
		s.discard(old)
	}
}

func (s *snapshots) chunk(t transfer, body []byte) {
	s.mu.Lock()
	in := s.incoming[t]
	s.mu.Unlock()
	if in == nil || in.err != nil {
		return
	}
	_, in.err = in.file.Write(body)
}

// end has the whole state: the message goes to Raft, with a token by which Install finds the file.
func (s *snapshots) end(t transfer, body []byte) {
	s.mu.Lock()
	in := s.incoming[t]
	s.mu.Unlock()
	id, m, _, err := peer.DecodeMessage(body)
	g := s.c.group(wal.GroupID(id))
	var r *replica.Replica
	if g != nil {
		r = g.rep.Load()
	}
	if err != nil || in == nil || in.err != nil || r == nil || m.GetTo() != r.ID() || m.GetType() != pb.MsgSnap || m.GetSnapshot() == nil {
		s.finish(t, false)
		return
	}
	token := in.path
	s.mu.Lock()
	s.tokens[token] = t
	s.mu.Unlock()
	m.Snapshot.Data = []byte(token)
	g.shard.Receive(r, m)
	// Raft may find that it does not need the state. Then nobody asks for the token.
	s.c.wg.Go(func() {
		select {
		case <-s.c.ctx.Done():
		case <-time.After(snapResultAfter / 4):
		}
		s.mu.Lock()
		_, unused := s.tokens[token]
		delete(s.tokens, token)
		s.mu.Unlock()
		if unused {
			s.finish(t, true)
		}
	})
}

// Install puts a received state into the replica's machine, in the background.
func (e env) Install(r *replica.Replica, token []byte, done func(error)) {
	s := e.c.snapshots
	s.mu.Lock()
	t, ok := s.tokens[string(token)]
	delete(s.tokens, string(token))
	s.mu.Unlock()
	if !ok {
		done(errors.New("the received state is not here any more"))
		return
	}
	e.c.wg.Go(func() {
		err := s.installFile(r, string(token))
		s.finish(t, err == nil)
		done(err)
	})
}

func (s *snapshots) installFile(r *replica.Replica, path string) error {
	f, err := s.c.opts.FS.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, ok := r.Owner().(*group); ok && st.stream != nil {
		st.stream.maint.Lock()
		defer st.stream.maint.Unlock()
	}
	return r.Machine().InstallSnapshot(f)
}

// finish ends a transfer and tells the sender.
func (s *snapshots) finish(t transfer, ok bool) {
	if in := s.forget(t); in != nil {
		s.discard(in)
	}
	var b byte
	if ok {
		b = 1
	}
	_ = s.frame(t.from, snapResult, t.id, []byte{b})
}

func (s *snapshots) forget(t transfer) *incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.incoming[t]
	delete(s.incoming, t)
	return in
}

func (s *snapshots) discard(in *incoming) {
	if in.file != nil {
		in.file.Close()
		_ = s.c.opts.FS.Remove(in.path) // Left-overs are removed at the next start.
	}
}
