package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
)

// A stream that nobody leads, because some of its replicas lost what nobody knows of their logs, asks all of its
// members what they have. If what is left is known to hold all that was acknowledged (see replica.Reform) the whole ones
// freeze themselves, and the group begins anew from the one with the best log; otherwise it waits and says why.
//
//	no leader for stuckAfter -> each tells all what it has -> the whole ones freeze themselves: close, mark durably
//	-> anybody proposes to the meta group who is to be the only member -> that one executes all of its log, begins
//	another log behind it, removes its mark and runs; the frozen others make way
//	-> the number that was asked for is made up, under new ids, as whenever there are too few (see heal.go)
//
// A frozen replica never runs again as the member that it was, whatever a restart finds: the only way out is that the
// meta group chose it, or that it is not a member any more.
const (
	frozenMarking = ".frozen"
	stuckAfter    = 5 * time.Second // unless Options.stuckAfter says otherwise
	proposeAgain  = 2 * time.Second // between two tries
	surveyEvery   = 2 * time.Second // and stuckAfter at most
	remainsFor    = 3 * surveyEvery // so long an answer counts
)

// frozen is a replica of this server that is frozen, and what its mark says. The reconciler's, but for id.
type frozen struct {
	id      uint64
	epoch   uint64 // of the assignment
	remains replica.Remains
	tried   time.Time // to begin anew
}

// frozenMark is a mark's content.
type frozenMark struct {
	Epoch   uint64          `json:"epoch"`
	Remains replica.Remains `json:"remains"`
}

// stuck is what a server knows of a stream that nobody leads. It is the reconciler's.
type stuck struct {
	since time.Time // when a leader was last missed first
	heard map[uint64]heardRemains
	asked time.Time // when the others were last told what is here
	told  time.Time // when the meta group was last told
}

type heardRemains struct {
	replica.Remains
	at time.Time
}

// waiting says why a stream waits.
type waiting struct{ why, text string }

// tendStuck takes what step a stream without a leader needs next. The reconciler calls it now and then.
func (c *Cluster) tendStuck(s *Stream) {
	a := s.Assignment()
	if f := s.frozen.Load(); f != nil && a.Reformed > f.epoch {
		c.beginAnew(s, f)
		return
	}
	if !s.isStuck(time.Now()) {
		s.stuck.heard = nil
		s.waits.Store(nil)
		return
	}
	if time.Since(s.stuck.asked) < min(surveyEvery, cmp.Or(c.opts.stuckAfter, stuckAfter)) {
		return
	}
	s.stuck.asked = time.Now()
	if silent := s.silent(); len(silent) > 0 {
		why := "nobody leads it, and these servers with a replica do not answer: " + strings.Join(silent, ", ")
		s.noteWaiting(why, why)
		return
	}
	own := c.remainsHere(s)
	if own != nil {
		c.tellRemains(s, own)
	}
	for _, r := range c.lostBefore(s) {
		c.tellRemains(s, &r)
	}
	all := s.freshRemains()
	v := replica.Reform(all)
	s.noteWaiting(v.Why, s.explain(v.Why, all))
	switch {
	case v.Freeze && own != nil && !own.Lost && !own.Frozen:
		c.freeze(s)
	case v.Source != 0 && time.Since(s.stuck.told) > proposeAgain:
		s.stuck.told = time.Now()
		c.ProposeMeta(meta.Encode(meta.KindReform, &meta.Reform{
			Account: a.Account, Name: a.Config.Name, Group: a.Group, Epoch: a.Epoch, Source: v.Source,
		}), WaiterFunc(func(any, error) {})) // Told again until the assignment has changed.
	}
}

// isStuck tells whether this server's replica has done without a leader for a while, in a stream that is to have one.
func (s *Stream) isStuck(now time.Time) bool {
	a := s.Assignment()
	if len(a.Members()) == 1 || s.hasNoReplica() || storeOf(&a.Config) == storeMemory || a.GivenUp {
		return false
	}
	led := false
	if l := s.lost.Load(); l != nil {
		led = now.Sub(s.led.get()) < cmp.Or(s.c.opts.stuckAfter, stuckAfter)
	} else if r := s.rep.Load(); r != nil {
		st := r.Status()
		led = st.Leader != 0 && !st.CutOff
	}
	if led || s.stuck.since.IsZero() {
		s.stuck.since = now
	}
	return now.Sub(s.stuck.since) > cmp.Or(s.c.opts.stuckAfter, stuckAfter)
}

// tellRemains tells all members what one here has.
func (c *Cluster) tellRemains(s *Stream, r *replica.Remains) {
	s.hearRemains(*r)
	for _, m := range s.members() {
		if m.Server != c.id.server {
			c.sendMend(m.Server, &mendFrame{Group: uint64(s.id), Member: r.Member, Remains: r})
		}
	}
}

// lostBefore are the members that this server has lost and that have a vote still: another one is to take their seat,
// and nobody can give it that.
func (c *Cluster) lostBefore(s *Stream) (all []replica.Remains) {
	a := s.Assignment()
	self, _ := a.On(c.id.server)
	for _, r := range a.Replicas {
		if r.Server != c.id.server || r.ID == self.ID || !slices.Contains(a.Lost, r.ID) {
			continue
		}
		if _, err := c.opts.FS.Stat(filepath.Join(c.opts.Dir, damagedDir, engineName(s.id, r.ID)+lostMarking)); err == nil {
			all = append(all, replica.Remains{Member: r.ID, Lost: true})
		}
	}
	return all
}

// remainsHere is what the replica here has, nil if that cannot be told.
func (c *Cluster) remainsHere(s *Stream) *replica.Remains {
	st, _ := c.log.State(s.id)
	if l := s.lost.Load(); l != nil {
		r := &replica.Remains{Member: l.id, Lost: !suspect(l.cause), Commit: st.Hard.Commit}
		if open := s.local.Load(); open != nil && open.id == l.id {
			r.Commit = max(r.Commit, open.engine.Applied().Index)
		}
		if suspect(l.cause) {
			r.Waits = "nobody has what its log lost, and it is not known that it was never committed"
		}
		if !l.marked {
			return nil // What it says has to hold after a crash.
		}
		return r
	}
	if f := s.frozen.Load(); f != nil {
		if st.Damage != nil {
			return &replica.Remains{Member: f.id, Waits: "its log was damaged after it had frozen itself"}
		}
		return &f.remains
	}
	if b := s.blind.Load(); b != nil {
		return &replica.Remains{Member: b.id, Waits: "its state is lost, and another one has to come from a whole replica"}
	}
	r := s.rep.Load()
	if r == nil {
		return nil
	}
	told := make(chan *replica.Remains, 1)
	s.shard.Call(func() {
		remains, err := r.Remains()
		if err != nil {
			told <- nil
			return
		}
		told <- &remains
	})
	return <-told
}

// hearRemains notes what a member has.
func (s *Stream) hearRemains(r replica.Remains) {
	if s.stuck.heard == nil {
		s.stuck.heard = make(map[uint64]heardRemains)
	}
	s.stuck.heard[r.Member] = heardRemains{r, time.Now()}
}

func (s *Stream) freshRemains() (all []replica.Remains) {
	for _, h := range s.stuck.heard { // order: sorted below
		if time.Since(h.at) < remainsFor {
			all = append(all, h.Remains)
		}
	}
	slices.SortFunc(all, func(a, b replica.Remains) int { return cmp.Compare(a.Member, b.Member) })
	return all
}

// silent names the servers with a replica that cannot be reached.
func (s *Stream) silent() (all []string) {
	for _, r := range s.Assignment().Replicas {
		if r.Server != s.c.id.server && !s.c.reachable(r.Server) {
			all = append(all, fmt.Sprintf("%q", s.c.PeerName(r.Server)))
		}
	}
	return all
}

// noteWaiting says once why the stream waits, and keeps it for whoever asks.
func (s *Stream) noteWaiting(why, text string) {
	switch old := s.waits.Load(); {
	case why == "":
		s.waits.Store(nil)
	case old == nil || old.why != why:
		s.waits.Store(&waiting{why, text})
		s.c.opts.Logger.Error(fmt.Sprintf("%s: %s", s.name(), text))
	}
}

// explain says why the stream waits, with what its members have.
func (s *Stream) explain(why string, all []replica.Remains) string {
	var have []string
	for _, r := range all {
		what := fmt.Sprintf("whole up to log entry %d of term %d", r.LastIndex, r.LastTerm)
		switch {
		case r.Lost:
			what = "lost"
		case r.Waits != "":
			what = "waits"
		}
		have = append(have, fmt.Sprintf("%d on %q: %s", r.Member, s.c.PeerName(s.server(r.Member)), what))
	}
	return fmt.Sprintf("nobody leads it, and to begin anew with what is left could lose what was acknowledged: %s (replicas: %s). It waits for that to change; if it never will, the way on is \"cleat cluster recover\"",
		why, strings.Join(have, "; "))
}

// freeze stops the replica here for good, as the member that it is, and notes durably what it has.
func (c *Cluster) freeze(s *Stream) {
	l := s.local.Load()
	if l == nil {
		return
	}
	s.closeReplica()
	remains, err := replica.RemainsOf(c.log, s.id, l.id, l.machine.Applied())
	remains.Frozen = true
	f := &frozen{id: l.id, epoch: s.Assignment().Epoch, remains: remains}
	if err == nil {
		err = c.markFrozen(engineName(s.id, l.id), f)
	}
	if err != nil {
		c.opts.Logger.Error(fmt.Sprintf("%s: freeze replica %d of this server: %v", s.name(), l.id, err))
		if err := c.openReplica(s); err != nil {
			c.opts.Logger.Error(fmt.Sprintf("%s: %v", s.name(), err))
		}
		return
	}
	s.frozen.Store(f)
	c.report(s.name(), l.machine.Checkpoint()) // It may be kept aside, without its log.
	c.closeSighted(s)
	c.opts.Logger.Warn(fmt.Sprintf("%s: replica %d of this server froze itself, whole up to log entry %d of term %d: the group is to begin anew from the best of those that are left",
		s.name(), f.id, remains.LastIndex, remains.LastTerm))
}

func (c *Cluster) markFrozen(name string, f *frozen) error {
	b, err := json.Marshal(frozenMark{Epoch: f.epoch, Remains: f.remains})
	if err != nil {
		return err
	}
	dir := filepath.Join(c.opts.Dir, damagedDir)
	if err := makeDir(c.opts.FS, dir); err != nil {
		return err
	}
	return writeFileAtomically(c.opts.FS, dir, name+frozenMarking, b)
}

// readFrozen reads a mark.
func (c *Cluster) readFrozen(name string) (*frozen, error) {
	b, err := readFile(c.opts.FS, filepath.Join(c.opts.Dir, damagedDir, name+frozenMarking))
	if err != nil {
		return nil, err
	}
	var m frozenMark
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s is malformed: %w", name+frozenMarking, err)
	}
	return &frozen{id: m.Remains.Member, epoch: m.Epoch, remains: m.Remains}, nil
}

// thaw removes the mark of a frozen replica.
func (c *Cluster) thaw(s *Stream, f *frozen) error {
	dir, name := filepath.Join(c.opts.Dir, damagedDir), engineName(s.id, f.id)
	if err := errors.Join(removeFile(c.opts.FS, filepath.Join(dir, name+frozenMarking)), syncDir(c.opts.FS, dir)); err != nil {
		return err
	}
	delete(c.wasFrozen, name)
	s.frozen.Store(nil)
	return nil
}

// thawAll removes all such marks: a cluster that was recovered begins anew with what it has.
func (c *Cluster) thawAll() error {
	dir := filepath.Join(c.opts.Dir, damagedDir)
	names, err := c.opts.FS.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if strings.HasSuffix(name, frozenMarking) {
			err = errors.Join(err, removeFile(c.opts.FS, filepath.Join(dir, name)))
		}
	}
	return errors.Join(err, syncDir(c.opts.FS, dir))
}

// beginAnew makes the frozen replica here the only member of its group: the meta group has chosen it. A crash anywhere
// leaves the mark, and it is done again.
func (c *Cluster) beginAnew(s *Stream, f *frozen) {
	if time.Since(f.tried) < proposeAgain {
		return
	}
	f.tried = time.Now()
	l := &local{id: f.id, kind: storeOf(s.Config()), name: engineName(s.id, f.id)}
	err := c.executeAlone(s, l, f)
	if err == nil {
		err = c.thaw(s, f)
	}
	if err != nil {
		if l.engine != nil {
			err = errors.Join(err, l.engine.Close())
		}
		text := fmt.Sprintf("it is to begin anew from its replica here: %v", err)
		s.waits.Store(&waiting{text, text})
		c.opts.Logger.Error(fmt.Sprintf("%s: begin anew from replica %d of this server: %v. It is tried again", s.name(), f.id, err))
		return
	}
	s.waits.Store(nil)
	s.local.Store(l)
	if err := c.openReplica(s); err != nil {
		c.opts.Logger.Error(fmt.Sprintf("%s: %v", s.name(), err))
		return
	}
	c.opts.Hooks.StreamUpdated(s)
	c.checkKey(s.key)
	c.opts.Logger.Warn(fmt.Sprintf("%s: begun anew from replica %d of this server, which has all that was acknowledged, up to log entry %d of term %d",
		s.name(), f.id, f.remains.LastIndex, f.remains.LastTerm))
}

func (c *Cluster) executeAlone(s *Stream, l *local, f *frozen) error {
	if err := c.openEngine(s, l); err != nil {
		return err
	}
	now, err := replica.RemainsOf(c.log, s.id, l.id, l.machine.Applied())
	if err != nil {
		return err
	}
	if now.LastIndex < f.remains.LastIndex {
		return fmt.Errorf("%w: its log ends at %d, and it had said %d", replica.ErrLost, now.LastIndex, f.remains.LastIndex)
	}
	u, err := replica.Alone(c.log, s.id, l.id, l.machine, l.machine.ApplyConf)
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	c.log.Submit([]wal.Update{u}, func(err error) { written <- err })
	return <-written
}

// dropFrozen makes way: the group has begun anew from another replica. What it held is kept aside.
func (c *Cluster) dropFrozen(s *Stream, f *frozen) {
	l := &local{id: f.id, kind: storeOf(s.Config()), name: engineName(s.id, f.id)}
	err := c.keepAside(l)
	if err == nil {
		c.log.Submit([]wal.Update{{Group: s.id, Remove: true}}, func(error) {})
		err = c.thaw(s, f)
	}
	if err != nil {
		c.opts.Logger.Error(fmt.Sprintf("%s: put replica %d of this server aside, which was frozen: %v", s.name(), f.id, err))
		s.frozen.Store(nil)
	}
}
