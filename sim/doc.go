// Package sim keeps the machines of cleat fit to be simulated: what is deterministic must stay so.
//
// rules_test.go reads the source of every machine package and refuses what would make two runs
// from one seed differ: goroutines, clocks, randomness, sockets, files outside the vfs seam, the
// order of a map. docs/testing.md says what to do about a finding.
package sim
