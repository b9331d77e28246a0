//go:build linux || darwin || freebsd

package rawio

import (
	"io"
	"syscall"
	"unsafe"
)

// Supported tells whether Read and Write work on this system.
const Supported = true

// Read tries once. Zero and no error mean that nothing is there now.
func Read(fd uintptr, p []byte) (int, error) {
	n, err := call(syscall.SYS_READ, fd, p)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return check(n, err)
}

// Write tries once. Less than len(p) and no error mean that the socket takes no more now.
func Write(fd uintptr, p []byte) (int, error) { return check(call(syscall.SYS_WRITE, fd, p)) }

func check(n int, err error) (int, error) {
	if err == syscall.EAGAIN {
		return 0, nil
	}
	return n, err
}

func call(trap, fd uintptr, p []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch e {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}
