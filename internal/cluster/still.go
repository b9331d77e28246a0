package cluster

import (
	"fmt"
	"time"
)

// A sync that hangs fails nothing, and may come to an end yet. What this server leads goes to others by
// itself, see replica.yield; here is what else is done until then.
const (
	// stallMax is how long a sync may take before the server says that it is not healthy.
	stallMax = 3 * time.Second
	// lagsAfter is how long one may take before reads are answered by servers with a better disk: what was
	// written since is not executed here.
	lagsAfter = time.Second
)

// lookAtSyncs notes how the disk does, and tells when it stands still and when it goes on.
func (c *Cluster) lookAtSyncs(now time.Time) {
	age := c.log.SyncAge()
	c.disk.still.Store(age > lagsAfter)
	switch {
	case age > stallMax && c.disk.stillSince.IsZero() && !c.log.NoSpace(): // Of a full disk is told elsewhere.
		c.disk.stillSince = now.Add(-age)
		c.warn(fmt.Sprintf("Disk of %s has not finished a sync for %s: what this server leads goes to others that are a majority without it, and its replicas fall behind until the disk goes on",
			c.opts.Dir, age.Round(time.Second)))
	case age <= stallMax && !c.disk.stillSince.IsZero():
		c.opts.Logger.Info(fmt.Sprintf("Disk of %s goes on after %s", c.opts.Dir, now.Sub(c.disk.stillSince).Round(100*time.Millisecond)))
		c.disk.stillSince = time.Time{}
	}
}

func (c *Cluster) stillText(age time.Duration) string {
	return fmt.Sprintf("the disk of %s has not finished a sync for %s", c.opts.Dir, age.Round(time.Second))
}

// Lags tells whether the local replica may be missing what was acknowledged a while ago, and cannot catch up now.
func (s *Stream) Lags() bool { return s.c.disk.still.Load() }
