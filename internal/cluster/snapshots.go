package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/cleatkv/cleat/internal/peer"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/transfer"
	"github.com/cleatkv/cleat/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// snapshots carries the state of groups to members that are too far behind for their log. Raft's
// message holds a token only; the state travels apart (package transfer), labelled with the group and
// the member that it is for, and with the message behind it. The message is handed to Raft when the state
// is whole and was found sound.
type snapshots struct {
	c         *Cluster
	transfers *transfer.Transfers

	mu     sync.Mutex
	tokens map[string]*transfer.Arrival // whole states that wait for Raft to ask for them
	busy   map[memberOf]bool            // members that are being sent a state
	failed map[memberOf]failure         // members for whom that came to nothing
}

type memberOf struct {
	group  wal.GroupID
	member uint64
}

// failure makes the next try wait: to make a state costs much.
type failure struct {
	next time.Time
	wait time.Duration
}

const (
	snapSendersMax = 2 // states sent at a time
	snapshotDir    = "incoming"
	labelBytes     = 16

	// A state that Raft found it does not need is asked for by nobody.
	tokenFor = 30 * time.Second

	awaitedFor = 5 * time.Minute // without an offer

	snapRetryMin = time.Second
	snapRetryMax = 30 * time.Second
)

func newSnapshots(c *Cluster) *snapshots {
	s := &snapshots{
		c: c, tokens: make(map[string]*transfer.Arrival),
		busy: make(map[memberOf]bool), failed: make(map[memberOf]failure),
	}
	s.transfers = transfer.New(transfer.Options{
		FS: c.opts.FS, Dir: filepath.Join(c.opts.Dir, snapshotDir),
		Post: s.post, Go: c.wg.Go, Ctx: c.ctx, Rate: c.opts.TransferRate,
		Admit: s.admit, Check: check, Take: s.take, Room: s.room,
	})
	return s
}

func (s *snapshots) post(server uint64, frame []byte) error {
	err := s.c.send(server, peer.LaneBulk, kindSnapshot, func(b []byte) []byte { return append(b, frame...) })
	if errors.Is(err, peer.ErrFull) {
		return transfer.ErrFull
	}
	return err
}

// room keeps what the log and the engines need to go on.
func (s *snapshots) room() error {
	if s.c.disk.room.Load() < 0 {
		return fmt.Errorf("server %q has no room for it on its disk", s.c.opts.Name)
	}
	return nil
}

// send begins to send the group's state to a member, in the background. Both outcomes are reported
// to Raft, always. It runs on the replica's owner.
func (s *snapshots) send(g *group, r *replica.Replica, to uint64, m *pb.Message) {
	member := m.GetTo()
	report := func(err error) {
		g.shard.Call(func() { r.ReportSnapshot(member, err == nil) })
	}
	wanted := func() error {
		if st := r.Status(); st.Leader != r.ID() || st.Term != m.GetTerm() {
			return errors.New("this server does not lead any more")
		}
		return nil
	}
	if err := s.begin(g, r, to, m, wanted, report); err != nil {
		report(err)
		return
	}
	// From here on the member finds what follows the state in the log.
	r.KeepLog(member)
}

var (
	errStateUnderWay = errors.New("cluster: a state is on its way to that member")
	errStateLater    = errors.New("cluster: a state cannot be sent now")
)

// begin sends the group's state to a member in the background, for as long as it is wanted, behind a message that
// says what it is. If it has begun, done hears once how that has ended.
func (s *snapshots) begin(g *group, r *replica.Replica, to uint64, m *pb.Message, wanted func() error, done func(error)) error {
	key := memberOf{g.id, m.GetTo()}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.busy[key]:
		return errStateUnderWay
	case len(s.busy) >= snapSendersMax || to == 0 || time.Now().Before(s.failed[key].next):
		return errStateLater
	}
	s.busy[key] = true
	s.c.wg.Go(func() {
		began := time.Now()
		sent, err := s.transmit(g, r, to, m, wanted)
		s.ended(key, err)
		done(err)
		what := fmt.Sprintf("the state of %s to server %q", g.name(), s.c.PeerName(to))
		switch {
		case err == nil:
			s.c.opts.Logger.Info(fmt.Sprintf("sent %s: %d bytes in %s, %d bytes of them again since the connection was lost %d times",
				what, sent.Bytes, time.Since(began).Round(time.Millisecond), sent.Again, sent.Broken))
		case s.c.ctx.Err() == nil:
			s.c.opts.Logger.Warn(fmt.Sprintf("sending %s: %v", what, err))
		}
	})
	return nil
}

// ended keeps the book of who is being sent what.
func (s *snapshots) ended(key memberOf, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, key)
	if err == nil {
		delete(s.failed, key)
		return
	}
	wait := min(max(2*s.failed[key].wait, snapRetryMin), snapRetryMax)
	s.failed[key] = failure{time.Now().Add(wait), wait}
}

// transmit sends one state and waits for the receiver's word.
func (s *snapshots) transmit(g *group, r *replica.Replica, to uint64, m *pb.Message, wanted func() error) (transfer.Sent, error) {
	return s.transfers.Send(transfer.State{
		ID: rand.Uint64(), To: to, Label: label(g.id, m.GetTo()), Wanted: wanted,
		Write: func(w io.Writer) ([]byte, error) {
			at, err := r.Machine().WriteSnapshot(roomy{s, w})
			if err != nil {
				return nil, err
			}
			conf, err := replica.DecodeConf(at.Conf)
			if err != nil {
				return nil, err
			}
			// The state is newer than Raft's message says; the message must tell its true position.
			m.Snapshot = &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: &at.Index, Term: &at.Term, ConfState: conf}}
			return peer.AppendMessage(nil, uint64(g.id), m), nil
		},
	})
}

// roomy is a writer that stops when the disk is full.
type roomy struct {
	s *snapshots
	w io.Writer
}

func (w roomy) Write(p []byte) (int, error) {
	if err := w.s.room(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

func label(g wal.GroupID, member uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(g)), member)
}

// receiver finds the replica that a label speaks of.
func (s *snapshots) receiver(label []byte) (*group, *replica.Replica, error) {
	if len(label) != labelBytes {
		return nil, nil, errors.New("malformed label")
	}
	id, member := binary.LittleEndian.Uint64(label), binary.LittleEndian.Uint64(label[8:])
	if g := s.c.group(wal.GroupID(id)); g != nil {
		if r := g.rep.Load(); r != nil && r.ID() == member && r.Status().Stopped == nil {
			return g, r, nil
		}
	}
	return nil, nil, fmt.Errorf("there is no replica %d of group %d", member, id)
}

func (s *snapshots) admit(_ uint64, label []byte) error {
	g, _, err := s.receiver(label)
	if err != nil {
		return err
	}
	g.awaits.set(time.Now())
	return s.room()
}

// awaited says how far the first state of the local replica is on its way, as an error, since without it the
// replica is none. Where nobody has offered one for long it says nothing any more: what keeps it away is elsewhere, and
// whoever waits for this server before the next one is restarted would wait for ever.
func (s *snapshots) awaited(g *group, member uint64, now time.Time) error {
	if size, ok := s.transfers.Incoming(label(g.id, member)); ok {
		return fmt.Errorf("its replica here is receiving the state from another server, %d bytes of it so far", size)
	}
	if now.Sub(g.awaits.get()) < awaitedFor {
		return errors.New("its replica here waits for the state from another server")
	}
	return nil
}

// check reads a whole state: it must be what the message behind it says.
func check(label []byte, state io.Reader, trailer []byte) error {
	_, m, rest, err := peer.DecodeMessage(trailer)
	if err != nil {
		return err
	}
	want := m.GetSnapshot().GetMetadata()
	if m.GetType() != pb.MsgSnap || want == nil || len(rest) > 0 {
		return errors.New("no snapshot message")
	}
	sr, err := storage.NewSnapshotReader(state)
	if err != nil {
		return err
	}
	at := sr.State().Applied
	if at.Index != want.GetIndex() || at.Term != want.GetTerm() {
		return fmt.Errorf("the state is at %d/%d, announced was %d/%d", at.Term, at.Index, want.GetTerm(), want.GetIndex())
	}
	if _, err := replica.DecodeConf(at.Conf); err != nil {
		return err
	}
	for {
		if _, err := sr.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// take has the whole state: the message goes to Raft, with a token by which Install finds the file.
func (s *snapshots) take(a *transfer.Arrival) {
	g, r, err := s.receiver(a.Label)
	if err != nil {
		a.Done(err)
		return
	}
	_, m, _, err := peer.DecodeMessage(a.Trailer)
	if err != nil || m.GetTo() != r.ID() || !g.isHome(r, m.GetFrom(), a.From) {
		a.Done(errors.New("its message is for another replica, or of another one"))
		return
	}
	if r.Blind() {
		s.c.takeState(g.stream, r, m.GetSnapshot().GetMetadata(), a)
		return
	}
	s.mu.Lock()
	s.tokens[a.Path] = a
	s.mu.Unlock()
	m.Snapshot.Data = []byte(a.Path)
	g.shard.Receive(r, m)
	s.c.wg.Go(func() { s.await(g, r, a) })
}

// await lets go of a state that Raft did not ask for. While another one is being installed it may yet.
func (s *snapshots) await(g *group, r *replica.Replica, a *transfer.Arrival) {
	for waits := true; waits; {
		select {
		case <-s.c.ctx.Done():
			return
		case <-time.After(tokenFor):
		}
		seen := make(chan bool, 1)
		// Behind the message, where the replica's owner is: it has seen the message then.
		g.shard.Call(func() { seen <- r.Installing() })
		select {
		case <-s.c.ctx.Done():
			return
		case waits = <-seen:
		}
	}
	if s.redeem(a.Path) != nil {
		a.Done(nil)
	}
}

func (s *snapshots) redeem(token string) *transfer.Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.tokens[token]
	delete(s.tokens, token)
	return a
}

// Install puts a received state into the replica's machine, in the background.
func (e env) Install(r *replica.Replica, token []byte, done func(error)) {
	s := e.c.snapshots
	a := s.redeem(string(token))
	if a == nil {
		done(errors.New("the received state is not here any more"))
		return
	}
	e.c.wg.Go(func() {
		err := s.installFile(r, a.Path)
		a.Done(err)
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
