//go:build !unix

package server

import "errors"

var errNoRawIO = errors.New("server: no direct socket access on this system")

func readNow(uintptr, []byte) (int, error)  { return 0, errNoRawIO }
func writeNow(uintptr, []byte) (int, error) { return 0, errNoRawIO }

const rawIO = false
