package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// procField reads a number from a file of /proc/PID, in whose lines the name comes first.
func procField(pid int, file, name string) int64 {
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

// rss is the memory of a process that is in RAM now, and the most that ever was, in bytes.
func rss(pid int) (now, most int64) {
	return procField(pid, "status", "VmRSS") << 10, procField(pid, "status", "VmHWM") << 10
}

// written is how many bytes a process has caused to be written to a disk.
func written(pid int) int64 { return procField(pid, "io", "write_bytes") }

// cpu is the time that a process has used, in seconds.
func cpu(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
