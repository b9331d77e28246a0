package cluster

import "github.com/cleatkv/cleat/internal/meta"

// ReadMeta calls done(nil) once Meta shows every decision that was acknowledged before the call.
func (c *Cluster) ReadMeta(done func(error)) {
	if c.Meta() == nil {
		done(ErrUnavailable)
		return
	}
	r := c.metaGroup.rep.Load()
	if r == nil {
		done(ErrUnavailable)
		return
	}
	r.ReadIndex(done)
}

// FindStream finds a stream as of now. Unlike Stream it does not take one that this server has not
// heard of yet, or has not opened yet after a start, for one that does not exist: done gets nil
// only if the meta group knows of none, and otherwise waits until the stream serves.
func (c *Cluster) FindStream(account, name string, done func(*Stream, error)) {
	c.ReadMeta(func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		k := meta.Key{Account: account, Name: name}
		s := c.Meta().Stream(k)
		if s == nil {
			done(nil, nil)
			return
		}
		c.await(k, &readyWait{revision: s.Revision, done: done})
	})
}
