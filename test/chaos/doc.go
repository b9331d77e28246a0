// Package chaos kills a real server at random moments under load and checks that it keeps what it
// acknowledged.
//
//	go test ./test/chaos -v -cycles 100 -seed 42
//
// One seed gives one sequence of kills; the clients run freely, so a seed does not replay a run to
// the letter. The simulator does that; this is the last check, with real files, sockets and clients.
package chaos
