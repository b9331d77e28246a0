package cluster

import (
	"errors"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/meta"
)

// readyFor bounds how long a decision of the meta group may take to become true before its outcome
// is reported as unknown.
const readyFor = 10 * time.Second

// readyWait waits until a stream serves a revision, or, if group is set, until that group is gone.
type readyWait struct {
	revision uint64
	group    uint64
	until    time.Time
	done     func(*Stream, error)
}

// ProposeMeta offers a command to the meta group. The waiter's result is a *meta.Result.
func (c *Cluster) ProposeMeta(command []byte, w Waiter) {
	if c.Meta() == nil {
		w.Done(nil, ErrUnavailable)
		return
	}
	c.metaGroup.held.propose(command, w)
}

// CreateStream creates a stream, or finds the one that has this configuration already. done is
// called once the stream serves; err may be an *api.Error (refused) or one of this package's.
func (c *Cluster) CreateStream(account string, cfg *api.StreamConfig, l meta.Limits, done func(s *Stream, created bool, err error)) {
	servers, err := c.place(cfg, nil)
	if err != nil {
		done(nil, false, err)
		return
	}
	command := meta.Encode(meta.KindCreateStream, &meta.CreateStream{Account: account, Config: *cfg, Limits: l, Servers: servers})
	c.change(command, func(s *Stream, r *meta.Result, err error) { done(s, r != nil && r.Created, err) })
}

// UpdateStream replaces a stream's configuration; otherwise as CreateStream.
func (c *Cluster) UpdateStream(account string, cfg *api.StreamConfig, l meta.Limits, done func(*Stream, error)) {
	if cfg.Replicas > 1 && !c.Clustered() {
		done(nil, api.ErrReplicasNotSupported)
		return
	}
	u := &meta.UpdateStream{Account: account, Config: *cfg, Limits: l, Servers: c.candidates(cfg, nil)}
	if s := c.Stream(account, cfg.Name); s != nil && c.Clustered() {
		a := s.Assignment()
		if c.elsewhere(cfg.Placement) && !c.elsewhere(a.Config.Placement) {
			done(nil, c.noPeers(cfg))
			return
		}
		u.Keep, u.Leave = s.leaderMember(), c.misplaced(a, cfg)
	}
	command := meta.Encode(meta.KindUpdateStream, u)
	c.change(command, func(s *Stream, _ *meta.Result, err error) { done(s, err) })
}

// change proposes a command that leaves a stream behind, and waits until that serves.
func (c *Cluster) change(command []byte, done func(*Stream, *meta.Result, error)) {
	c.ProposeMeta(command, WaiterFunc(func(result any, err error) {
		if err != nil {
			done(nil, nil, err)
			return
		}
		r := result.(*meta.Result)
		if r.Err != nil {
			done(nil, r, r.Err)
			return
		}
		key := meta.Key{Account: r.Stream.Account, Name: r.Stream.Config.Name}
		c.await(key, &readyWait{revision: r.Stream.Revision, done: func(s *Stream, err error) { done(s, r, err) }})
	}))
}

// DeleteStream deletes a stream with all it holds. done is called when it is gone from this server,
// with the stream as it was.
func (c *Cluster) DeleteStream(account, name string, done func(was *meta.Stream, err error)) {
	c.deleteStream(&meta.DeleteStream{Account: account, Name: name}, done)
}

// DeleteExactly deletes that stream, and not another one that has its name by then; otherwise as DeleteStream.
func (c *Cluster) DeleteExactly(s *Stream, done func(was *meta.Stream, err error)) {
	c.deleteStream(&meta.DeleteStream{Account: s.Account(), Name: s.Name(), Group: s.Assignment().Group}, done)
}

func (c *Cluster) deleteStream(what *meta.DeleteStream, done func(was *meta.Stream, err error)) {
	c.ProposeMeta(meta.Encode(meta.KindDeleteStream, what), WaiterFunc(func(result any, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		r := result.(*meta.Result)
		if r.Err != nil {
			done(nil, r.Err)
			return
		}
		c.AwaitGone(r.Stream, func(err error) {
			if err != nil {
				err = ErrUnknown // It is decided, but not seen.
			}
			done(r.Stream, err)
		})
	}))
}

// AwaitGone calls done(nil) once a stream that was deleted is gone from this server.
func (c *Cluster) AwaitGone(was *meta.Stream, done func(error)) {
	c.ReadMeta(func(err error) {
		if err != nil {
			done(err)
			return
		}
		k := meta.Key{Account: was.Account, Name: was.Config.Name}
		c.await(k, &readyWait{group: was.Group, done: func(_ *Stream, err error) { done(err) }})
	})
}

// await registers w and looks at once whether it is fulfilled already.
func (c *Cluster) await(k meta.Key, w *readyWait) {
	w.until = time.Now().Add(readyFor)
	c.mu.Lock()
	c.waiting[k] = append(c.waiting[k], w)
	c.mu.Unlock()
	c.checkKey(k)
	c.wakeReconciler()
}

// checkReady finishes the waits that a change of s has fulfilled. It is on the path of every turn
// that applied something, so it is cheap when nobody waits.
func (c *Cluster) checkReady(s *Stream) {
	c.mu.RLock()
	n := len(c.waiting)
	c.mu.RUnlock()
	if n > 0 {
		c.checkKey(s.key)
	}
}

func (c *Cluster) checkKey(k meta.Key) {
	c.mu.Lock()
	s := c.streams[k]
	var ready, rest []*readyWait
	for _, w := range c.waiting[k] {
		if w.fulfilled(s) {
			ready = append(ready, w)
		} else {
			rest = append(rest, w)
		}
	}
	c.setWaiting(k, rest)
	c.mu.Unlock()
	for _, w := range ready {
		w.done(s, nil)
	}
}

func (w *readyWait) fulfilled(s *Stream) bool {
	if w.group != 0 {
		return s == nil || s.Assignment().Group != w.group
	}
	return s != nil && !s.gone.Load() && s.serves(w.revision)
}

func (c *Cluster) setWaiting(k meta.Key, ws []*readyWait) {
	if len(ws) == 0 {
		delete(c.waiting, k)
	} else {
		c.waiting[k] = ws
	}
}

// expireWaits gives up on decisions that do not come true: their outcome is decided, but not seen.
func (c *Cluster) expireWaits(now time.Time) {
	var late []*readyWait
	c.mu.Lock()
	for k, ws := range c.waiting { // order: each wait is independent
		var rest []*readyWait
		for _, w := range ws {
			if w.until.Before(now) {
				late = append(late, w)
			} else {
				rest = append(rest, w)
			}
		}
		c.setWaiting(k, rest)
	}
	c.mu.Unlock()
	for _, w := range late {
		w.done(nil, ErrUnknown)
	}
}

// AsAPIError gives the refusal in err, if it is one.
func AsAPIError(err error) (*api.Error, bool) {
	var e *api.Error
	return e, errors.As(err, &e)
}
