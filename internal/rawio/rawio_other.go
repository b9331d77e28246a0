//go:build !(linux || darwin || freebsd)

package rawio

import "errors"

// Supported tells whether Read and Write work on this system.
const Supported = false

var errUnsupported = errors.New("rawio: no direct socket access on this system")

// Read always fails.
func Read(uintptr, []byte) (int, error) { return 0, errUnsupported }

// Write always fails.
func Write(uintptr, []byte) (int, error) { return 0, errUnsupported }
