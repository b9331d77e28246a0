// Package wal keeps the Raft logs and hard states of all groups of one server on disk, in one
// sequence of segment files with one writer and one fsync for everybody (group commit).
//
// It owns the files of its directory. It promises that an update is on disk before its callback
// runs; that after a crash every such update is back, nothing else is, and updates keep their
// order; and that damage on the disk is told apart from a torn tail and reported per group, with
// file and offset, never as a shorter log. It leaves to others what entries mean, when a log may be
// compacted, and how a damaged group is repaired.
//
// # Files
//
// A segment NNN.wal is a sequence of 512-byte sectors, preallocated with zeros:
//
//	| header | batch | batch | ... | footer | 0 0 0 ... | header copy |
//
// Every sector ends in a stamp, which proves that these bytes were written for this place of this
// file of this server (sector.go). A batch is what one sync made durable. It starts on a fresh
// sector, so that a later write never touches a sector that was acknowledged, and says which groups
// it holds in a directory, of which the next batch repeats a copy: a batch that is lost can still
// be named by its successor (batch.go). docs/data-files.md has every byte.
//
// # Order
//
// There is never more than one batch on its way to the disk: batch n+1 is written after the sync
// of batch n returned. Therefore whatever is incomplete at the end and has nothing behind it was
// never acknowledged and is cut; anything else that is missing is a loss (recover.go has the
// verdicts).
//
// A failed write or sync is not retried, since the kernel may have dropped the pages: the log
// refuses everything from then on.
package wal
