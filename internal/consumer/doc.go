// Package consumer is the machine of one consumer of a stream: which message is next, how many are
// still to come, what was delivered and not acknowledged, who has asked for messages and what they
// are told.
//
// It owns the rules for consumer configurations too. It promises that the number of pending
// messages is exact at every delivery, that consumer sequences go up by one a delivery, and that
// the same calls with the same times give the same output. It reads the stream through
// storage.Reader, never changes it, and sends nothing: a Turn collects what the owner is to send.
//
//	Cursor   who is next, how many are pending      found in the stream, never stored
//	Acks     delivered, outstanding, due again      journaled; replicated for durable consumers
//	pulls    the queue of requests                  volatile, on the server that delivers
//	Consumer the three together
//	Registry the replicated consumers of a stream   part of the stream's machine
//
// Locks, time, goroutines and subscriptions are the business of package jetstream.
package consumer
