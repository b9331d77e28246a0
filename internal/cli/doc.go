// Package cli is what cleat's client commands have in common: where to connect and as whom, how
// results are written, how questions are asked, and what the exit code says.
//
// It owns the connection flags, their environment variables and the context files, which are those
// of the nats tool, read as they are and never written; the output formats (table, json, jsonl, yaml,
// csv); the tables, sections and human units of the text format; confirmations; the errors with the
// advice printed below them; and the exit codes.
//
// It promises that a structured format always has the same fields for the same command, that nothing
// but results goes to standard output, and that each class of failure has one exit code.
//
// It leaves to others what a command means: it knows connections, not buckets, and imports no part of
// the server, so the same commands work against any NATS server.
package cli
