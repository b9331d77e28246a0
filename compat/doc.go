// Package compat holds what the official NATS clients expect, seen from outside: a server process
// with real files, and nats.go (both of its APIs), the two generations of JavaScript packages and
// the C library talking to it.
//
// It promises that a user of those clients notices no difference between cleat and nats-server in
// anything that the Key/Value and object stores do. It knows nothing of the server's packages, and
// every test passes against the reference too, but for those named TestPromise, which hold what
// cleat promises beyond it:
//
//	CLEAT_COMPAT_SERVER=nats-server go test -skip TestPromise ./compat
//
// The directories js and c hold the tests in those languages; js_test.go and c_test.go run them.
package compat
