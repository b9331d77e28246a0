// Package backup reads and writes archives of streams in the formats of nats-server, so that a
// backup of one server can be restored by the other. It knows nothing of how archives travel.
//
// An archive is compressed by s2. That of nats-server 2.15 and of this server is a magic number and
// then entries, each with integers of variable length in front:
//
//	| name length uvarint | time varint | seq uvarint | header length uvarint | data length uvarint |
//	| name | header | data |
//
// The first entry is state.json, then come consumers/NAME, then the messages by sequence with their
// subjects for names; five zero bytes end the archive. Up to nats-server 2.14 it is a tar file with the blocks of
// the file store: see tar.go.
//
// What is read is checked as far as it can be: an archive that ends early, goes back in sequence or
// is damaged is an error, and what was read before it is of no use.
package backup
