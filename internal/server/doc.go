// Package server is the front end for clients: the listener and the connections.
//
// It owns the life of a connection from accept to close: INFO and CONNECT, TLS, authentication by
// way of auth, limits, timers, keeping PONG before a later INFO, slow and stale clients, lame duck
// mode, and the figures of each connection. It promises that a message costs no goroutine switch
// and no allocation of its own on the way from a socket to the broker, and that an idle connection
// holds no buffers. What a message means is left to the broker and those who subscribe there.
//
// A connection has one goroutine that reads, parses and hands operations to the broker. It writes
// in whatever goroutine flushes it, as long as the socket takes everything at once; only when it
// does not, a writer goroutine is started, which ends once nothing is left.
package server
