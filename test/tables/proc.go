package main

import (
	"os"
	"syscall"

	"github.com/cleatkv/cleat/test/process"
)

// written is how many bytes a process has caused to be written to a disk.
func written(pid int) int64 { return process.ProcField(pid, "io", "write_bytes") }

func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
