package cluster

import (
	"bytes"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cleatkv/cleat/internal/api"
	"github.com/cleatkv/cleat/internal/stream"
)

// A disk that has no room left at all can not even take what makes room: a delete has to be logged, and
// the file that it lets go of is only removed once a checkpoint is written. So messages are refused while
// there is still room for that.

// The room that is kept free, so that checkpoints, compaction and the log's next segment still fit when
// messages are refused: a fifth of a small disk, at most 256 MiB, and as much again as waits in
// memory to be written.
const (
	keptFreeShare = 5
	keptFreeMax   = 256 << 20

	// With so much more room than what waited to be written a moment ago, that is not counted again.
	roomyBytes = 4 << 30
)

// disk keeps account of the room for messages.
type disk struct {
	room  atomic.Int64  // bytes that messages may still take, as of the last look; below 0: refused
	full  atomic.Bool   // what was said last
	tight atomic.Bool   // there is so little that what can be given back is
	size  atomic.Int64  // bytes of the whole disk, 0 if not known
	waits atomic.Int64  // bytes that wait in memory to be written, as last counted
	low   chan struct{} // wakes maintenance: a look may find room again

	still      atomic.Bool // a sync takes so long that replicas here fall behind
	stillSince time.Time   // when the sync began that was told of, zero if none was; the tick loop's

	reserve reserve
}

func (d *disk) init() {
	d.room.Store(math.MaxInt64) // Until the first look.
	d.low = make(chan struct{}, 1)
}

// What a message takes: its bytes in the log and in the engine, with what is put around them there.
func messageCost(command int) int64 { return 2*int64(command) + 2<<10 }

// takes tells whether a message may be proposed, and takes its room. Between two looks at the disk more
// could be written than there is.
func (d *disk) takes(command []byte) bool {
	if d.room.Add(-messageCost(len(command))) >= 0 {
		return true
	}
	if !d.full.Load() {
		select {
		case d.low <- struct{}{}:
		default:
		}
	}
	return false
}

// checkpointBytes is after how much written to an engine a checkpoint is due: less on a small disk,
// where what waits for one, and the log until then, would take much of it.
func (d *disk) checkpointBytes() int64 {
	if size := d.size.Load(); size > 0 {
		return min(checkpointBytes, max(size/32, 256<<10))
	}
	return checkpointBytes
}

// Room is how many bytes more the disk has for messages, as of a moment ago; ok is false where it
// does not tell.
func (c *Cluster) Room() (bytes int64, ok bool) {
	room := c.disk.room.Load()
	return max(0, room), room != math.MaxInt64
}

// lookAtDisk finds out how much room there is for more messages. If there is much it may go by an older count of
// what waits to be written.
func (c *Cluster) lookAtDisk(now time.Time, count bool) {
	if c.log.NoSpace() {
		c.log.LookForSpace()
	}
	du, err := c.opts.FS.GetDiskUsage(c.opts.Dir)
	if err != nil {
		c.disk.room.Store(math.MaxInt64) // A file system that does not tell; the log notices when it is full.
		return
	}
	c.disk.size.Store(int64(du.TotalBytes))
	if count || !c.isRoomy(du.AvailBytes) {
		waits := int64(0)
		for _, s := range c.local() {
			if l := s.local.Load(); l != nil {
				waits += max(0, l.engine.Dirty())
			}
		}
		c.disk.waits.Store(waits)
	}
	reserve := int64(min(du.TotalBytes/keptFreeShare, keptFreeMax)) + c.disk.waits.Load()
	room := int64(min(du.AvailBytes, math.MaxInt64)) - reserve
	full := room < 0
	if room > reserve {
		c.report("the disk", c.disk.reserve.grow(int64(du.TotalBytes), now))
	}
	c.disk.room.Store(room)
	c.disk.tight.Store(room < reserve)
	if c.disk.full.Swap(full) == full {
		return
	}
	if full {
		c.opts.Logger.Error(fmt.Sprintf("Disk of %s is nearly full (%d MiB free): messages are refused until there is room; reads, deletes and purges go on", c.opts.Dir, du.AvailBytes>>20))
	} else {
		c.opts.Logger.Info(fmt.Sprintf("Disk of %s has room again (%d MiB free)", c.opts.Dir, du.AvailBytes>>20))
	}
}

// isRoomy tells whether what is free is far more than what waits to be written can be.
func (c *Cluster) isRoomy(free uint64) bool { return free >= roomyBytes+uint64(c.disk.waits.Load()) }

// emergency gives up a part of the reserve if something waits to be written, and there is no room for it. It
// is not for the goroutine of maintenance, which may be waiting for just that.
func (c *Cluster) emergency(now time.Time) {
	if c.disk.reserve.bytes() == 0 {
		return
	}
	du, err := c.opts.FS.GetDiskUsage(c.opts.Dir)
	if err != nil || c.isRoomy(du.AvailBytes) || int64(min(du.AvailBytes, math.MaxInt64)) >= c.waitsForRoom() {
		return
	}
	freed, err := c.disk.reserve.giveUp(int64(du.TotalBytes), now)
	if err != nil {
		c.report("the disk", err)
	}
	if freed > 0 {
		c.warn(fmt.Sprintf("Disk of %s has only %d KiB free: %d MiB held in its directory %q are given up, so that what is deleted can be given back",
			c.opts.Dir, du.AvailBytes>>10, freed>>20, reserveDir))
	}
}

// waitsForRoom is how much room is needed for what is to be written next, 0 if nothing is.
func (c *Cluster) waitsForRoom() (bytes int64) {
	bytes = c.metaEngine.Dirty()
	for _, s := range c.local() {
		if l := s.local.Load(); l != nil {
			bytes += l.engine.Dirty() + min(l.engine.Reclaimable(), 1)
		}
	}
	if bytes > 0 || c.log.NoSpace() {
		bytes += reserveAt
	}
	return bytes
}

// tight tells whether the disk is full or nearly so: what is durable need not stay in the log then, and
// what was removed not on the disk.
func (c *Cluster) tight() bool {
	return c.disk.tight.Load() || c.disk.room.Load() < 0 || c.log.NoSpace()
}

// markerBytesMax bounds the commands that are let through as markers when the disk is full.
const markerBytesMax = 8 << 10

// hasRoom tells whether a command may be proposed. While the disk is full messages are refused, so that
// what makes room still fits into the log: deletes and purges, of keys too, and expiry. It is the same for streams that
// hold all they may hold together.
func (c *Cluster) hasRoom(storage api.StorageKind, command []byte) bool {
	if len(command) == 0 {
		return true
	}
	switch stream.Kind(command[0]) {
	case stream.KindPublish, stream.KindCopied, stream.KindMirrored:
	default:
		return true
	}
	if c.disk.takes(command) && !c.log.NoSpace() && c.allowance.takes(storage, command) {
		return true
	}
	// A delete or purge of a key is a message with a header that says so.
	return len(command) <= markerBytesMax && bytes.Contains(command, []byte("\r\nKV-Operation: "))
}
