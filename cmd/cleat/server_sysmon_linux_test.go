package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The thread that is slowed down must be the runtime's monitor, which naps while others work: one that
// runs goroutines would be seen in their calls, or waiting for some.
func TestRelaxMonitorFindsTheMonitor(t *testing.T) {
	file := monitorSlackFile()
	if file == "" {
		t.Fatal("no thread found")
	}
	calls := filepath.Join(filepath.Dir(file), "syscall")
	stop := make(chan struct{})
	defer close(stop)
	for range 8 { // Keeps every thread that runs goroutines busy.
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					syscall.Getppid()
				}
			}
		}()
	}
	sleeps := 0
	for range 100 {
		time.Sleep(time.Millisecond)
		b, err := os.ReadFile(calls)
		if err != nil {
			t.Logf("what threads do cannot be seen here: %v", err)
			return
		}
		if call, _, _ := strings.Cut(string(b), " "); call == fmt.Sprint(syscall.SYS_NANOSLEEP) {
			sleeps++
		}
	}
	if sleeps < 50 {
		t.Fatalf("seen asleep %d times of 100", sleeps)
	}

	before, err := os.ReadFile(file)
	if err != nil {
		t.Logf("not permitted to see timer slack: %v", err)
		return
	}
	if err := new(node).relaxMonitor(); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(file)
	if err := os.WriteFile(file, before, 0); err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(after)) != fmt.Sprint(monitorSlack) {
		t.Fatalf("slack is %q", after)
	}
}
