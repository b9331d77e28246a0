// Package chaos kills real servers at random moments under load, stops them, cuts them off from each other, damages
// their files and stalls their disks. It checks that they keep what they acknowledged, show it to whoever reads, and go on.
// docs/testing.md lists its suites.
//
//	go test ./test/chaos -v -cycles 100 -seed 42
//
// With the build tag "faults" it cuts the power of the server's file system too, and lets syncs fail.
// That needs Linux, root, loop devices and strace.
//
//	go test -tags faults ./test/chaos -v -run TestPowerCut -cuts 20
//
// One seed gives one sequence of kills; the clients run freely, so a seed does not replay a run to
// the letter. The simulator does that; this is the last check, with real files, sockets and clients.
package chaos
