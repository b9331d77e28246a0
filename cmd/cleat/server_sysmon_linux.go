package main

import (
	"fmt"
	"os"
	"strconv"
)

// monitorSlack is by how much the kernel may let the Go runtime's monitor thread oversleep. The runtime takes
// back a processor of a thread that sits in a system call, and as long as it finds some it looks again
// after 20 us: next to a log that syncs thousands of times a second it never rests, and cost an eighth of
// all CPU time. Other threads take over what can run without it; see docs/adr/0011-rounds-and-monitor-thread.md.
const monitorSlack = 1_000_000 // ns

// relaxMonitor sets the timer slack of the runtime's monitor thread. That needs CAP_SYS_NICE; without
// it all works, at a higher price, so that a failure is no error.
func (n *node) relaxMonitor() error {
	if file := monitorSlackFile(); file != "" {
		_ = os.WriteFile(file, []byte(strconv.Itoa(monitorSlack)), 0)
	}
	return nil
}

// monitorSlackFile names the file that holds the monitor thread's timer slack. It is the first thread that
// the runtime starts after the main one.
func monitorSlackFile() string {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return ""
	}
	first := 0
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil && id > os.Getpid() && (first == 0 || id < first) {
			first = id
		}
	}
	if first == 0 {
		return ""
	}
	return fmt.Sprintf("/proc/%d/timerslack_ns", first)
}
