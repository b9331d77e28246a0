// Package transfer carries large states from one server to another, such as the snapshot of a group.
//
// It owns the way of the bytes. The sender writes a state to a file of its own first, so that whoever
// makes it is not held up by the network, and sends the file in chunks while it grows. Each chunk
// carries a checksum, and so does the whole; the receiver puts the chunks into a file, reads it back and
// has it checked before anybody else hears of it. A connection that breaks costs what was on its way
// and no more: the receiver keeps what it has, tells how much that is, and the sender goes on from
// there, for as long as it has the same state. Every sending ends with one outcome, known on both
// sides: done, or why not.
//
// All states together take a bounded part of the network and the disks: a chunk that has been sent, or
// received, is paid for by the time before the next.
//
// It leaves to others what a state is, whether it is wanted, and what becomes of it (package cluster).
package transfer
