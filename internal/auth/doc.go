// Package auth says who a connection is and what it may do.
//
// It owns the users and accounts of the configuration, the checks of tokens, passwords, nkeys,
// JWTs and client certificates, and the compiled permissions of each. It promises that a failed
// check tells the caller nothing but that it failed. Enforcing permissions is the broker's part,
// closing connections the server's; it imports neither.
package auth
