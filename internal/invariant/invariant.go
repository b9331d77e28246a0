// Package invariant holds the assertions that the rest of the server states about itself.
//
// An assertion is about our own code, never about the world: bad input, a full disk or a lost
// peer is an error, and errors are returned. Cheap assertions are always on. Dear ones stand
// behind Enabled, which the build tag "invariants" sets; every test run uses that tag at least
// once.
package invariant

import "fmt"

// Assert panics with the formatted message unless the condition holds. Use it for cheap
// conditions, one condition a line, so that the failing line names what broke.
func Assert(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant violated: " + fmt.Sprintf(format, args...))
	}
}
