//go:build linux && faults

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/test/process"
	"golang.org/x/sys/unix"
)

// volume is an ext4 file system of its own, in a file, whose power can be cut.
type volume struct {
	image, dir string
}

// What becomes of the journal of a volume when its power is cut; see EXT4_IOC_SHUTDOWN in the kernel.
const (
	journalFlushed = 1 // the names and sizes of what was written are on the disk, its contents need not be
	journalLost    = 2 // nothing that was not synced is on the disk
)

const ext4Shutdown = 0x8004587d // _IOR('X', 125, __u32)

// newVolume makes a volume with room for everything and mounts it at dir until the test ends.
func newVolume(t *testing.T, dir string) *volume { return newVolumeOf(t, dir, 2<<30) }

func newVolumeOf(t *testing.T, dir string, bytes int64) *volume {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("cutting the power of a volume needs root, for mount and for the ioctl that shuts ext4 down")
	}
	v := &volume{image: filepath.Join(t.TempDir(), "disk"), dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image, err := os.Create(v.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Truncate(bytes); err != nil { // A hole: the disk below holds what is written.
		t.Fatal(err)
	}
	image.Close()
	run(t, "mkfs.ext4", "-q", "-F", v.image)
	v.mount(t)
	t.Cleanup(func() { v.unmount(t) })
	return v
}

func (v *volume) mount(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop", v.image, v.dir).CombinedOutput(); err != nil {
		t.Fatalf("mount a loop device: %v: %s (this needs root and a free /dev/loop*)", err, out)
	}
}

func (v *volume) unmount(t *testing.T) {
	t.Helper()
	run(t, "umount", v.dir)
}

// cutPower stops a server where it stands, cuts the power of its volume, ends the server and gives the
// volume power again. The server stands still first, for a sync that meets the cut may succeed
// without effect, which no real disk does.
func (v *volume) cutPower(t *testing.T, server *process.Server, journal int) {
	t.Helper()
	freeze(t, server)
	v.shutdown(t, journal)
	server.Kill()
	v.unmount(t)
	v.mount(t)
}

// shutdown lets nothing that is in memory reach the disk any more.
func (v *volume) shutdown(t *testing.T, journal int) {
	t.Helper()
	dir, err := os.Open(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), ext4Shutdown, journal); err != nil {
		t.Fatalf("shut down the file system: %v", err)
	}
}

// freeze stops the server and returns when none of its threads runs, not even in the kernel.
func freeze(t *testing.T, server *process.Server) {
	t.Helper()
	if err := unix.Kill(server.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		running, err := runningThreads(server.Pid())
		if err != nil {
			t.Fatal(err)
		}
		if running == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d threads of the server do not stop", running)
		}
	}
}

func runningThreads(pid int) (n int, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("no threads of process %d (%v)", pid, err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(task)
		if err != nil {
			continue // It has ended.
		}
		// The state follows the name, which is in brackets; "t" is a stop that a tracer sees.
		_, rest, _ := strings.Cut(string(stat), ") ")
		if !strings.HasPrefix(strings.ToUpper(rest), "T") {
			n++
		}
	}
	return n, nil
}

func run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}
