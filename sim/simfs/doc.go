// Package simfs is a file system in memory that loses, tears and spoils data the way disks and kernels
// do, reproducibly from a seed. It implements vfs.FS of Pebble, so that all code that touches files can
// run on it unchanged.
//
// # What is on the disk
//
// Reads see every write at once. What a power cut leaves is something else: file contents are durable
// once the file was synced, names once their directory was synced (in journal mode any sync makes all
// names durable that were changed before it, as ext4 does). What was not synced may have reached the
// disk or not, sector by sector; Crash draws which.
//
// A sector, 512 bytes, is written whole or not at all unless an outcome says otherwise. What becomes of
// a sector is always what it held after some write, as a page cache would write it, never a mix of a
// later write without an earlier one.
//
// # Faults
//
// A hook sees every call before it happens and may fail it. A failed sync drops the dirty data: a later
// sync succeeds and does not write it, reads go on showing it until the next crash, as Linux does. A
// capacity limits the disk. The methods of damage.go change what is on the disk: flipped bits, zeroed,
// stale and misdirected sectors, sectors that cannot be read, truncated and missing files.
//
// Nothing here depends on the clock or on the order of maps. An FS may be used from many goroutines, but
// then the order of their calls is no longer given by the seed.
package simfs
