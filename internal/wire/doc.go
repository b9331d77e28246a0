// Package wire is the codec of the client protocol: bytes to operations and messages to bytes.
//
// It owns the grammar, the sizes it limits and the JSON of INFO and CONNECT. It promises that
// parsing depends on the bytes alone and not on how they were split, that no operation reaches
// beyond its buffer, and that parsing a PUB allocates nothing. Sockets, permissions and answers to
// what it rejects are left to its callers.
package wire
