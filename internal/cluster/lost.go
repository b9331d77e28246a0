package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
	"github.com/cleatkv/cleat/internal/wal"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A replica is lost when this server cannot stand for what it acknowledged or voted for: its log or its
// storage is damaged, missing or older than it was, or it failed while it ran. It is quarantined, durably,
// so that it speaks for nobody any more, whatever a restart finds: under its Raft id it might vote against
// what it has forgotten. If there are others who have the data, the meta group gives this server another
// replica with an id of its own in its place, which begins empty, learns, and takes the seat in one change of
// membership. What was lost is kept aside for whoever wants to know why.
const (
	damagedDir  = "damaged"
	lostAgain   = 5 * time.Second // between two tries to have a replica replaced
	lostMarking = ".lost"
)

// loss is of one replica of this server.
type loss struct {
	id    uint64
	cause error
	since time.Time

	marked bool // durably
}

// lose quarantines the stream's replica with that id. The plan loop has it replaced.
func (c *Cluster) lose(s *Stream, id uint64, cause error) {
	if old := s.lost.Load(); old != nil && old.id == id && (suspect(cause) || !suspect(old.cause)) {
		return
	}
	l := &loss{id: id, cause: cause, since: time.Now()}
	if err := c.markLost(s.id, l); err == nil {
		l.marked = true
	} else {
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: quarantine its replica: %v", s.key.Account, s.key.Name, err))
	}
	s.lost.Store(l)
	c.plansChanged.Store(true)
	what := "is lost and will not be used again"
	if suspect(cause) {
		what = "is quarantined until the others have told what its log has lost"
	}
	c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: replica %d of this server %s: %v", s.key.Account, s.key.Name, id, what, cause))
}

// mark notes why something was quarantined.
func (c *Cluster) mark(name string, why error) error {
	dir := filepath.Join(c.opts.Dir, damagedDir)
	if err := makeDir(c.opts.FS, dir); err != nil {
		return err
	}
	return writeFileAtomically(c.opts.FS, dir, name, []byte(why.Error()+"\n"))
}

func (c *Cluster) markLost(g wal.GroupID, l *loss) error {
	marking := lostMarking
	if suspect(l.cause) {
		marking = suspectMarking
	}
	if err := c.mark(engineName(g, l.id)+marking, l.cause); err != nil {
		return err
	}
	dir := filepath.Join(c.opts.Dir, damagedDir)
	var d *wal.DamageError
	if !errors.As(l.cause, &d) || d.File == "" {
		return nil
	}
	// The log gives the file up when nobody needs what is in it any more.
	err := vfs.Copy(c.opts.FS, filepath.Join(c.opts.Dir, walDir, d.File), filepath.Join(dir, engineName(g, l.id)+"-"+d.File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // A missing file is the damage.
	}
	return err
}

// loadLost reads which replicas were quarantined in an earlier life, and why.
func (c *Cluster) loadLost() error {
	dir := filepath.Join(c.opts.Dir, damagedDir)
	names, err := c.opts.FS.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read which replicas are quarantined: %w", err)
	}
	c.wasLost, c.wasBlind, c.tied, c.suspects = make(map[string]error), make(map[string]error), make(map[string]error), make(map[string]bool)
	c.wasFrozen = make(map[string]*frozen)
	for _, name := range names {
		if err := c.loadTie(dir, name); err != nil {
			return err
		}
		if engine, ok := strings.CutSuffix(name, suspectMarking); ok {
			c.suspects[engine] = true
		}
		if engine, ok := strings.CutSuffix(name, frozenMarking); ok {
			if c.wasFrozen[engine], err = c.readFrozen(engine); err != nil {
				return fmt.Errorf("read which replicas are frozen: %w", err)
			}
		}
		for marking, was := range map[string]map[string]error{lostMarking: c.wasLost, blindMarking: c.wasBlind} { // order: a name has one
			engine, ok := strings.CutSuffix(name, marking)
			if !ok {
				continue
			}
			why, err := readFile(c.opts.FS, filepath.Join(dir, name))
			if err != nil {
				return fmt.Errorf("read which replicas are quarantined: %w", err)
			}
			kind := replica.ErrLost
			if marking == blindMarking {
				kind = replica.ErrStateLost
			}
			was[engine] = fmt.Errorf("%w: found earlier: %s", kind, strings.TrimSpace(string(why)))
		}
	}
	return nil
}

// metaMark names the meta group's own replica among those that were quarantined.
const metaMark = "meta"

// checkMeta stops a server that has lost what it held of the meta group: all else that it has may be as
// old. Started again it joins anew, see rejoin.
func (c *Cluster) checkMeta() {
	err := c.metaGroup.rep.Load().Status().Stopped
	if err == nil || !isLoss(err) || !c.Clustered() || c.fatal.Load() != nil {
		return
	}
	err = errors.Join(err, c.mark(metaMark+lostMarking, err))
	c.onFatal(fmt.Errorf("this server has lost a part of what it held of the meta group, and must not go on as what it was: %w. Start it again: it joins as a new member and gets what it lacks from the others", err))
}

// replace has the lost replica of this server replaced, if it is not yet.
func (s *Stream) replace() {
	l := s.lost.Load()
	if l == nil || time.Since(s.told) < lostAgain {
		return
	}
	a := s.Assignment()
	if storeOf(&a.Config) != storeMemory && time.Since(s.led.get()) > lostAgain {
		return // Without a majority nobody could replace it, and what it has may be needed.
	}
	if suspect(l.cause) && time.Since(l.since) < mendFor {
		return
	}
	if on, ok := a.On(s.c.id.server); !ok || on.ID != l.id {
		return // Decided already.
	}
	s.told = time.Now()
	s.c.ProposeMeta(meta.Encode(meta.KindReplicaLost, &meta.ReplicaLost{
		Account: a.Account, Name: a.Config.Name, Group: a.Group, Replica: l.id,
	}), WaiterFunc(func(any, error) {})) // Told again until the assignment has changed.
}

// putAside makes room for the replica that takes the place of a lost one.
func (c *Cluster) putAside(s *Stream, lost *loss) {
	l := &local{id: lost.id, kind: storeOf(s.Config()), name: engineName(s.id, lost.id)}
	where := filepath.Join(c.opts.Dir, damagedDir)
	if err := c.keepAside(l); err != nil {
		c.opts.Logger.Error(fmt.Sprintf("stream %s > %s: keep what replica %d held in %s: %v", s.key.Account, s.key.Name, lost.id, where, err))
	} else {
		c.opts.Logger.Info(fmt.Sprintf("stream %s > %s: what replica %d held is kept in %s, until somebody removes it", s.key.Account, s.key.Name, lost.id, where))
	}
	s.lost.CompareAndSwap(lost, nil)
	s.mend = nil
}

// keepAside moves what a lost replica held out of the way, in place of removing it.
func (c *Cluster) keepAside(l *local) error {
	fsys, dir := c.opts.FS, filepath.Join(c.opts.Dir, damagedDir)
	if l.kind != storeFile {
		return nil // The others have no files of their own.
	}
	err := fsys.Rename(filepath.Join(c.opts.Dir, streamsDir, l.name), filepath.Join(dir, l.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(syncDir(fsys, dir), syncDir(fsys, filepath.Join(c.opts.Dir, streamsDir)))
}

// learnIssued finds out which ids were issued before this server was started: as of the first time that it
// hears from a majority of the meta group.
func (c *Cluster) learnIssued() {
	for c.ctx.Err() == nil {
		told := make(chan error, 1)
		c.ReadMeta(func(err error) { told <- err })
		select {
		case err := <-told:
			if err == nil {
				c.issued.Store(c.Meta().Issued())
				return
			}
		case <-c.ctx.Done():
		}
		select {
		case <-time.After(tickEvery):
		case <-c.ctx.Done():
		}
	}
}

// isNew tells whether an id was issued after this server was started: then whatever the log has lost
// cannot have been of it.
func (c *Cluster) isNew(id uint64) bool {
	before := c.issued.Load()
	return before != 0 && id > before
}

func engineName(g wal.GroupID, id uint64) string { return fmt.Sprintf("g%d-r%d", g, id) }

// isLoss tells whether an error says that a replica lost what it held, rather than that something else
// does not work now.
func isLoss(err error) bool {
	var log *wal.DamageError
	var engine *storage.CorruptError
	return errors.Is(err, replica.ErrLost) || errors.Is(err, replica.ErrStateLost) || errors.As(err, &log) || errors.As(err, &engine)
}

// loseIf quarantines a replica if the error says that it is lost, and if there are others to have the data from; or
// makes it blind, if it is its state alone.
func (c *Cluster) loseIf(s *Stream, id uint64, err error) {
	switch {
	case !isLoss(err) || len(s.Assignment().Members()) == 1:
	case c.staysVoter(s, err):
		c.goBlind(s, id, err)
	default:
		c.lose(s, id, err)
	}
}

// beginStreamLog gives a stream's replica a log, if it has none yet, and finds out whether it has lost
// what it held.
func (c *Cluster) beginStreamLog(s *Stream, l *local, begin replica.Entry) error {
	st, ok := c.log.State(s.id)
	at := l.engine.Applied()
	joins := begin.Index == 0
	empty := at.Index <= begin.Index
	fresh := c.isNew(l.id)
	switch {
	case empty && joins && ok && st.Last == 0 && st.Damage == nil:
		return nil // It began here, and has heard nothing yet.
	case empty && (joins && ok || st.Damage != nil) && fresh:
		// What the log has, or has lost, is of the replica whose place this one takes.
		u := replica.Joining(s.id)
		if !joins {
			u = replica.Genesis(s.id)
		}
		c.log.Submit([]wal.Update{u}, func(error) {})
		return nil
	case empty && ok && st.First > begin.Index+1, empty && joins && ok:
		return fmt.Errorf("%w: its storage %s is empty, and its log is not", replica.ErrStateLost, l.name)
	}
	err := c.beginLog(s.id, l.engine, begin, "its storage "+l.name)
	if err != nil && !isLoss(err) {
		err = fmt.Errorf("%w: %w", replica.ErrLost, err)
	}
	return err
}
