package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/stream"
	"github.com/cleatkv/cleat/internal/wal"
)

func (c *Cluster) wakeReconciler() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// reconcileLoop makes this server match the meta group's decisions. It alone opens, changes and
// drops streams, and sees after the replicas that are lost.
func (c *Cluster) reconcileLoop() {
	ticker := time.NewTicker(cmp.Or(c.opts.mendEvery, mendEvery))
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
			c.askForLost()
			continue
		case answer := <-c.mends:
			c.takeMend(answer)
			continue
		case x := <-c.states:
			c.rebuild(x)
			continue
		case x := <-c.rebuilt:
			c.regain(x)
			continue
		case <-c.kick:
		}
		for _, k := range c.Meta().TakeChanges() {
			if c.ctx.Err() != nil {
				return
			}
			if err := c.reconcile(k); err != nil {
				c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: %v", k.Account, k.Name, err))
			}
			c.checkKey(k)
		}
	}
}

// reconcile handles one stream.
func (c *Cluster) reconcile(k meta.Key) error {
	want := c.Meta().Stream(k)
	if want != nil && want.Plan != nil {
		defer c.plansChanged.Store(true)
	}
	c.mu.RLock()
	have := c.streams[k]
	c.mu.RUnlock()
	if have != nil && (want == nil || want.Group != have.Assignment().Group) {
		if err := c.drop(have); err != nil {
			return err
		}
		have = nil
	}
	switch {
	case want == nil:
		return nil
	case have == nil:
		return c.addStream(want)
	}
	have.assign.Store(want)
	err := c.matchReplica(have)
	c.opts.Hooks.StreamUpdated(have)
	have.configure()
	return err
}

// addStream makes a stream known on this server, with its local replica if it is to have one.
func (c *Cluster) addStream(a *meta.Stream) error {
	s := &Stream{key: meta.Key{Account: a.Account, Name: a.Config.Name}}
	s.group = newGroup(c, wal.GroupID(a.Group), c.shardOf(wal.GroupID(a.Group)), s)
	s.assign.Store(a)
	err := c.openLocal(s)
	c.mu.Lock()
	c.streams[s.key], c.byGroup[s.id] = s, s.group
	c.mu.Unlock()
	// Before the replica runs: what subscribes to the stream's subjects must not miss its start. And also
	// without one: clients of this server reach the stream through others.
	c.opts.Hooks.StreamStarted(s)
	if err != nil {
		return err
	}
	return c.openReplica(s)
}

// matchReplica opens or drops the local replica, as the assignment now says.
func (c *Cluster) matchReplica(s *Stream) error {
	want, ok := s.Assignment().On(c.id.server)
	if l := s.local.Load(); l != nil && (!ok || l.id != want.ID) {
		if err := c.dropLocal(s); err != nil {
			return err
		}
	}
	if b := s.blind.Load(); b != nil && (!ok || b.id != want.ID) {
		c.dropBlind(s, b)
	}
	if lost := s.lost.Load(); lost != nil && (!ok || lost.id != want.ID) {
		c.putAside(s, lost)
	}
	if f := s.frozen.Load(); f != nil && (!ok || f.id != want.ID) {
		c.dropFrozen(s, f)
	}
	if !ok || s.local.Load() != nil || s.blind.Load() != nil || s.frozen.Load() != nil {
		return nil
	}
	if err := c.openLocal(s); err != nil {
		return err
	}
	return c.openReplica(s)
}

// openLocal opens engine and machine of the local replica, if there is to be one and it is not lost.
func (c *Cluster) openLocal(s *Stream) error {
	a := s.Assignment()
	self, ok := a.On(c.id.server)
	if !ok {
		return nil
	}
	l := &local{id: self.ID, kind: storeOf(&a.Config), name: engineName(s.id, self.ID)}
	err := cmp.Or(c.wasLost[l.name], c.tied[l.name])
	if st, _ := c.log.State(s.id); err == nil && c.suspects[l.name] && st.Damage == nil {
		err = fmt.Errorf("%w: its log was found damaged, and does not look it any more", replica.ErrLost)
	}
	if was := c.wasFrozen[l.name]; err == nil && was != nil {
		s.frozen.Store(was) // It does not run again as what it was.
		return nil
	}
	if was := c.wasBlind[l.name]; err == nil && was != nil {
		s.blind.Store(&blindness{id: l.id, cause: was}) // What lies there is not to be used.
		return nil
	}
	if err == nil {
		err = c.openEngine(s, l)
	}
	if err != nil {
		if l.engine != nil {
			err = errors.Join(err, l.engine.Close())
		}
		c.loseIf(s, l.id, err)
		s.refuse(err)
		return err
	}
	s.local.Store(l)
	return nil
}

func (c *Cluster) openEngine(s *Stream, l *local) (err error) {
	a := s.Assignment()
	if l.kind == storeMemory && len(a.Members()) == 1 {
		// Its messages did not survive the last process, so its log must not either.
		if _, ok := c.log.State(s.id); ok {
			c.log.Submit([]wal.Update{{Group: s.id, Remove: true}}, func(error) {})
		}
	}
	store, err := c.store(l.kind)
	if err != nil {
		return c.refusedBy(l, len(a.Members()), err)
	}
	if l.engine, err = store.Open(l.name, engineOptions(&a.Config)); err != nil {
		return c.refusedBy(l, len(a.Members()), err)
	}
	var begin replica.Entry
	if a.Founded(l.id) {
		begin = genesisEntry(a.Genesis)
	}
	if err := c.beginStreamLog(s, l, begin); err != nil {
		return err
	}
	l.machine, err = stream.Open(l.engine, begin)
	return err
}

func engineOptions(cfg *api.StreamConfig) storage.Options {
	return storage.Options{Compress: cfg.Compression == api.S2Compression}
}

// start opens the Raft member on its shard's goroutine and waits for that. cfg says which member, and on what machine.
func (s *Stream) start(cfg replica.Config) error {
	cfg.Group, cfg.Name, cfg.Log, cfg.Logger = s.id, s.key.Account+"/"+s.key.Name, s.c.log, s.c.opts.Logger
	cfg.Incarnation, cfg.Owner, cfg.Again, cfg.Home = rand.Uint64(), s.group, s.group.again, s.group.server
	opened := make(chan error, 1)
	s.shard.Call(func() {
		r, err := s.shard.Open(cfg)
		if err == nil {
			s.rep.Store(r)
		}
		opened <- err
	})
	return <-opened
}

// openReplica starts the Raft member of the local machine, if there is one.
func (c *Cluster) openReplica(s *Stream) error {
	l, a := s.local.Load(), s.Assignment()
	if l == nil {
		return nil
	}
	s.awaits.set(time.Now())
	err := s.start(replica.Config{ID: l.id, Machine: l.machine, First: len(a.Genesis) > 0 && a.Genesis[0] == l.id})
	s.refuse(err)
	if err != nil {
		c.loseIf(s, l.id, err)
		return err
	}
	if r := s.rep.Load(); len(a.Genesis) > 1 && a.Genesis[0] == l.id && r.Status().Applied == replica.GenesisIndex {
		s.c.wg.Go(func() { s.hurry(r) })
	}
	return nil
}

// hurry brings the first election about as soon as enough of the other members have started.
func (s *Stream) hurry(r *replica.Replica) {
	for pause := time.Millisecond; pause < replica.TickInterval; pause *= 2 {
		select {
		case <-s.c.ctx.Done():
			return
		case <-time.After(pause):
		}
		if r.Status().Leader != 0 || s.rep.Load() != r {
			return
		}
		s.shard.Call(r.CampaignFirst)
	}
}

// drop stops a stream that the meta group has deleted and removes all that it held.
func (c *Cluster) drop(s *Stream) error {
	s.gone.Store(true)
	c.opts.Hooks.StreamStopped(s)
	s.held.fail(ErrUnavailable)
	err := c.dropLocal(s)
	if b := s.blind.Load(); b != nil {
		c.dropBlind(s, b)
	}
	if f := s.frozen.Load(); f != nil {
		err = errors.Join(err, c.thaw(s, f), c.dropStorage(&local{kind: storeOf(s.Config()), name: engineName(s.id, f.id)}))
		c.log.Submit([]wal.Update{{Group: s.id, Remove: true}}, func(error) {})
	}
	lost := s.lost.Load()
	if on, ok := s.Assignment().On(c.id.server); ok && lost == nil && s.refused.Load() != nil {
		lost = &loss{id: on.ID} // It was never opened.
		err = errors.Join(err, c.forgetTie(s, on.ID))
	}
	if lost != nil {
		c.log.Submit([]wal.Update{{Group: s.id, Remove: true}}, func(error) {})
		c.putAside(s, lost)
	}
	c.mu.Lock()
	delete(c.streams, s.key)
	delete(c.byGroup, s.id)
	c.mu.Unlock()
	return err
}

// dropLocal stops the local replica and removes its data: the meta group has decided, in a
// committed command, that it is not to be.
func (c *Cluster) dropLocal(s *Stream) error {
	l := s.local.Load()
	if l == nil {
		return nil
	}
	closed := make(chan struct{})
	s.shard.Call(func() {
		if r := s.rep.Load(); r != nil {
			s.shard.Close(r)
		}
		close(closed)
	})
	<-closed
	s.rep.Store(nil)
	c.log.Submit([]wal.Update{{Group: s.id, Remove: true}}, func(error) {})
	// Whoever reads from it lets go before it is closed.
	s.local.Store(nil)
	if !s.gone.Load() {
		c.opts.Hooks.StreamUpdated(s)
	}
	err := s.closeEngine(l)
	if err != nil {
		return fmt.Errorf("close its storage: %w", err)
	}
	if lost := s.lost.Load(); lost != nil && lost.id == l.id {
		return nil // Kept for whoever wants to know why.
	}
	store, err := c.store(l.kind)
	if err == nil {
		err = store.Drop(l.name)
	}
	if err != nil {
		return fmt.Errorf("remove its storage: %w", err)
	}
	return nil
}

func (c *Cluster) shardOf(group wal.GroupID) *replica.Shard {
	h := fnv.New32a()
	fmt.Fprint(h, group)
	return c.shards[1+int(h.Sum32())%(len(c.shards)-1)]
}
