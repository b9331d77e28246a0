package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Where replicas differ and no majority of them agrees, nobody here can tell which is right. The group stops on
// all servers, and stays so when they are started again: each has a mark that says why. Somebody has to choose a
// replica.
//
// Of a stream the mark of the chosen one is removed, and those of the others are made marks of blind replicas (see
// blind.go): it is what they hold that is at fault, and not what they have acknowledged and voted for. A stream in
// memory has no mark, for nothing of it is there after a restart.
//
//	differ, no majority -> .tie everywhere -> nothing at one, .blind at the others -> they get its state
//
// Members of the meta group can not be blind. There the mark of the chosen one is renamed, and those of the others
// are removed. The chosen one takes the lead, has all compared, and one after another that differs from it takes a
// new seat, so that there is a majority to give it one at all times. When all are equal the choice has served.
//
//	differ, no majority -> .tie everywhere -> .trusted at one, nothing at the others -> one by one replaced -> equal
const (
	tieMarking     = ".tie"
	trustedMarking = ".trusted"
	trustedEvery   = time.Second // between two steps towards what was chosen
)

// markTied notes durably that the local replica differs from others.
func (c *Cluster) markTied(g *group, member uint64, why error) {
	name := metaMark
	if g.stream != nil {
		if storeOf(g.stream.Config()) == storeMemory {
			return
		}
		name = engineName(g.id, member)
	}
	if err := c.mark(name+tieMarking, why); err != nil {
		c.opts.Logger.Error(fmt.Sprintf("%s: note that its replicas differ: %v", g.name(), err))
	}
}

// loadTie reads one file among those of quarantined replicas, if it is of a tie.
func (c *Cluster) loadTie(dir, name string) error {
	if name == metaMark+trustedMarking {
		c.comparer.trusted.Store(true)
	}
	of, ok := strings.CutSuffix(name, tieMarking)
	if !ok {
		return nil
	}
	why, err := readFile(c.opts.FS, filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("read which replicas differ: %w", err)
	}
	c.tied[of] = fmt.Errorf("stopped since an earlier start, until %s is removed or renamed: %s", filepath.Join(dir, name), strings.TrimSpace(string(why)))
	return nil
}

// forgetTie is for a replica that is to be no more.
func (c *Cluster) forgetTie(s *Stream, member uint64) error {
	return removeFile(c.opts.FS, filepath.Join(c.opts.Dir, damagedDir, engineName(s.id, member)+tieMarking))
}

// removeTies removes all marks of ties and choices.
func removeTies(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if strings.HasSuffix(name, tieMarking) || strings.HasSuffix(name, trustedMarking) {
			err = errors.Join(err, removeFile(fsys, filepath.Join(dir, name)))
		}
	}
	return err
}

// trusts tells whether somebody has chosen the replica of this server to be right.
func (p *comparer) trusts(g *group) bool { return g.stream == nil && p.trusted.Load() }

// served is for when all hold the same: nothing has to be chosen any more.
func (p *comparer) served(g *group) {
	if !p.trusts(g) {
		return
	}
	p.trusted.Store(false)
	dir := filepath.Join(p.c.opts.Dir, damagedDir)
	err := errors.Join(removeFile(p.c.opts.FS, filepath.Join(dir, metaMark+trustedMarking)), syncDir(p.c.opts.FS, dir))
	if err != nil {
		p.c.opts.Logger.Error(fmt.Sprintf("%s: remove the mark that its replica here was chosen: %v", g.name(), err))
	}
	p.c.opts.Logger.Info(fmt.Sprintf("all replicas of %s hold what the one chosen holds", g.name()))
}

// claim makes the chosen replica lead, and tells how often all are compared then.
func (g *group) claim(r *replica.Replica) (every time.Duration) {
	if !r.Status().Leading && time.Since(g.comparing.claimed) >= trustedEvery {
		g.comparing.claimed = time.Now()
		g.shard.Call(r.Claim)
	}
	return trustedEvery
}

// unlike is the first member that holds something else than the chosen one, when all have been heard: one at a
// time, since those that are being replaced do not vote.
func unlike(sums map[uint64]string, chosen uint64, members int) []uint64 {
	right, ok := sums[chosen]
	if !ok || len(sums) < members {
		return nil
	}
	if all := others(sums, right); len(all) > 0 {
		return all[:1]
	}
	return nil
}

// stopAll stops a group of which nobody can tell what it holds.
func (p *comparer) stopAll(g *group, index uint64, sums map[uint64]string) {
	var who []string
	var members []uint64
	for id := range sums { // order: sorted below
		members = append(members, id)
	}
	slices.Sort(members)
	for _, id := range members {
		who = append(who, fmt.Sprintf("%q has %.12s", p.c.PeerName(g.server(id)), sums[id]))
	}
	why := fmt.Sprintf("the replicas of %s differ at log entry %d, and no majority of them agrees: %s. It is stopped on all servers, since nobody can tell which is right: see \"Replicas that differ\" in docs/recovery.md",
		g.name(), index, strings.Join(who, ", "))
	p.c.opts.Logger.Error(why)
	self := uint64(0)
	for _, id := range members {
		if g.server(id) == p.c.id.server {
			self = id // Last: who leads tells the others first.
			continue
		}
		p.tell(g.server(id), &compareReport{Group: uint64(g.id), Member: id, Index: index, Sum: sums[id], Why: why})
	}
	if self != 0 {
		p.tell(p.c.id.server, &compareReport{Group: uint64(g.id), Member: self, Index: index, Sum: sums[self], Why: why})
	}
}
