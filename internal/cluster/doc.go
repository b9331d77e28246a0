// Package cluster holds the replicas on this server and makes them match what the meta group has
// decided: it opens, configures, maintains and drops them, and finds the one to talk to.
//
// It promises that a command is proposed at most once, those of one caller in the order in which they
// came, that its outcome is reported as it is (refused, done, unavailable, unknown), and that nothing is deleted without a committed command of
// the meta group.
//
// It leaves to others: what commands mean (stream, meta), consensus (replica), files (wal, storage),
// and clients (jetstream).
package cluster
