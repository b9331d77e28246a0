// Package system serves the system account: it answers what operators ask of a server, of all servers at
// once ($SYS.REQ.SERVER.PING.>), of one ($SYS.REQ.SERVER.<id>.>) and about an account
// ($SYS.REQ.ACCOUNT.<account>.>), and it tells who listens how this server does and which clients come and
// go.
//
// It owns subjects, envelopes and the filters that choose among servers; what is in the envelopes is the
// monitor's. It promises that no request holds up the client that sent it: requests wait in a queue for one
// goroutine, and when the queue is full they are refused. Events are made only if somebody listens, on
// whichever server.
package system
