// Package peer carries what servers say to each other.
//
// It owns the connections between servers: framing with checksums, the encoding of Raft messages,
// bounded queues with a policy when full, and the knowledge of who can be reached. It promises
// that a frame arrives whole and undamaged or not at all, in order within one lane of one
// connection. It leaves the meaning of what it carries to its handler (package cluster).
package peer
