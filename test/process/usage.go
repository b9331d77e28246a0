package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// CPU is the time that a process has used since it began.
func CPU(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100
}

// RSS is the memory of a process that is in RAM now, and the most that ever was, in bytes.
func RSS(pid int) (now, most int64) {
	return ProcField(pid, "status", "VmRSS") << 10, ProcField(pid, "status", "VmHWM") << 10
}

// ProcField reads a number from a file of /proc/PID, in whose lines the name comes first.
func ProcField(pid int, file, name string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}
