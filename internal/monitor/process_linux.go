package monitor

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// resources returns the processor time used so far and the resident memory in bytes.
func resources() (used time.Duration, mem int64) {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		used = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return used, 0
	}
	if f := strings.Fields(string(statm)); len(f) > 1 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		mem = pages * int64(os.Getpagesize())
	}
	return used, mem
}
