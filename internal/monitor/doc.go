// Package monitor shows what a server does: over HTTP as JSON, in the shapes nats-server's tools
// read, and as Prometheus metrics.
//
// It owns the paths (/varz, /connz, /jsz, /healthz, /subsz, /accountz, /routez, /stacksz, /metrics
// and a few more), their query options, and the names and types of all fields, which are those of
// nats-server: its Go structs can be filled from our answers.
//
// It promises that a figure is a fact or absent, never a guess: a field of nats-server for something
// this server does not have is zero, and /healthz says ok only when the probe it was given does. It
// never slows the server down: it reads counters and copies.
//
// It leaves to others to have the figures: what it needs stands as small interfaces in sources.go and
// is filled in where the server is put together. It decides nothing.
package monitor
