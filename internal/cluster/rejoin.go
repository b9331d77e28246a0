package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/cleatkv/cleat/internal/meta"
	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/wal"
)

// A server that has lost what it held of the meta group is the same server still, with the replicas of
// streams that it has, but it must not vote there under its old member id. It asks the others for a new
// one, and learns the state from them. Until a majority has given it one, nothing is changed on its disk
// beyond the mark that it is lost.

// rejoin becomes another member of the meta group, and starts this server then.
func (c *Cluster) rejoin(lost error) {
	c.opts.Logger.Error(fmt.Sprintf("this server has lost a part of what it held of the meta group: %v. It asks the other servers to be admitted as a new member", lost))
	err := c.mark(metaMark+lostMarking, lost)
	if err == nil {
		var answer *joinAnswer
		if answer = c.askForSeat(); answer == nil {
			return // Closed meanwhile.
		}
		err = c.takeSeat(answer)
	}
	if err != nil && c.ctx.Err() == nil {
		c.onFatal(fmt.Errorf("join the meta group anew: %w", err))
	}
}

// askForSeat asks whoever can be reached, again and again; it returns nil when the server is closed.
func (c *Cluster) askForSeat() *joinAnswer {
	ticker := time.NewTicker(foundingStep)
	defer ticker.Stop()
	for {
		f := c.founding
		f.mu.Lock()
		answer := f.joined
		f.mu.Unlock()
		if answer != nil {
			return answer
		}
		self := c.self()
		for id, g := range c.met() { // order: all are asked, the answers are the same
			if g.Cluster != 0 {
				f.tell(id, kindJoin, joinRequest{Server: &self, Lost: c.identity().member})
			}
		}
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			return nil
		}
	}
}

// takeSeat puts the old member's state aside and begins as the new one. A crash before the mark is gone
// makes the server ask again.
func (c *Cluster) takeSeat(answer *joinAnswer) error {
	id := c.identity()
	fsys, dir := c.opts.FS, filepath.Join(c.opts.Dir, damagedDir)
	aside := fsys.PathJoin(dir, fmt.Sprintf("meta-m%d", id.member))
	if err := fsys.Rename(filepath.Join(c.opts.Dir, metaDir, "meta"), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep the old state in %s: %w", aside, err)
	}
	// Durable before the mark goes: the new member must never find the old one's state.
	if err := errors.Join(syncDir(fsys, dir), syncDir(fsys, filepath.Join(c.opts.Dir, metaDir))); err != nil {
		return err
	}
	id.member, id.founder = answer.Member, false
	if err := id.save(fsys, c.opts.Dir); err != nil {
		return err
	}
	written := make(chan error, 1)
	c.log.Submit([]wal.Update{replica.Joining(meta.MetaGroup)}, func(err error) { written <- err })
	if err := <-written; err != nil {
		return err
	}
	if err := errors.Join(fsys.Remove(filepath.Join(dir, metaMark+lostMarking)), syncDir(fsys, dir)); err != nil {
		return err
	}
	delete(c.wasLost, metaMark)
	if err := c.openMeta(id, nil); err != nil {
		return err
	}
	c.idMu.Lock()
	c.id.member, c.id.founder = id.member, id.founder
	c.idMu.Unlock()
	c.opts.Logger.Info(fmt.Sprintf("this server is member %d of the meta group now; what it held of it before is kept in %s", id.member, aside))
	c.run()
	return nil
}
