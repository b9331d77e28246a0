package cluster

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cleatkv/cleat/internal/replica"
	"github.com/cleatkv/cleat/internal/storage"
)

// A stream whose engine met damage, or whose disk does not answer, is out of service on this server,
// while all others go on. Its files stay as they are.

// checkEngine stops the replica of an engine that could not answer a read, whoever asked, and tells
// whether the replica still works.
func (c *Cluster) checkEngine(s *Stream, l *local) (works bool) {
	r := s.rep.Load()
	if r == nil {
		return true
	}
	stopped := r.Status().Stopped
	if err := l.engine.Err(); err != nil && stopped == nil {
		s.shard.Call(func() { r.Fail(err) })
		return false
	}
	if stopped != nil && !errors.Is(stopped, replica.ErrStopped) && !l.told {
		l.told = true
		c.outOfService(s, l, stopped)
		c.loseIf(s, l.id, stopped)
	}
	return stopped == nil
}

// outOfService tells the operator of a stream that this server can not serve any more, and what to do.
func (c *Cluster) outOfService(s *Stream, l *local, err error) {
	c.opts.Logger.Error(fmt.Sprintf("stream %s > %s is out of service on this server, others go on: %v. %s",
		s.key.Account, s.key.Name, err, c.advice(l, len(s.Assignment().Members()))))
}

// advice says what can be done for a stream with that many replicas, of which the one here is out of
// service.
func (c *Cluster) advice(l *local, replicas int) string {
	check := fmt.Sprintf("To see what is wrong, stop the server and run \"cleat inspect engine %s\".", c.storagePath(l))
	if replicas > 1 {
		return check + " The other replicas have the data: while a majority of them is up, a damaged one is made anew by itself; what it held is kept in " + filepath.Join(c.opts.Dir, damagedDir) + "."
	}
	return check + " There is no other replica: restore the stream from a backup, or see with \"cleat inspect repair\" what is left of it."
}

// storagePath is where the files of a local replica are.
func (c *Cluster) storagePath(l *local) string {
	if l.kind == storeRocks {
		return filepath.Join(c.opts.Dir, rocksDir)
	}
	return filepath.Join(c.opts.Dir, streamsDir, l.name)
}

// refusedBy explains why an engine did not open.
func (c *Cluster) refusedBy(l *local, replicas int, err error) error {
	var corrupt *storage.CorruptError
	if !errors.As(err, &corrupt) {
		return fmt.Errorf("open its storage: %w", err)
	}
	return fmt.Errorf("out of service on this server, others go on: open its storage: %w. %s", err, c.advice(l, replicas))
}
