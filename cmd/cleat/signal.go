//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// notify sends the signals a server answers to ch, until the function returned is called. SIGQUIT is
// not among them: the Go runtime prints all stacks and exits.
func notify(ch chan os.Signal) (stop func()) {
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	return func() { signal.Stop(ch) }
}

// meaning is what a signal asks for.
func meaning(s os.Signal) action {
	switch s {
	case syscall.SIGTERM:
		return actTerminate
	case syscall.SIGHUP:
		return actReload
	case syscall.SIGUSR1:
		return actReopen
	case syscall.SIGUSR2:
		return actLameDuck
	}
	return actInterrupt
}

// signalNames are the words of the --signal flag.
var signalNames = map[string]syscall.Signal{
	"stop":   syscall.SIGKILL, // At once. Nothing acknowledged is lost by it.
	"quit":   syscall.SIGINT,
	"term":   syscall.SIGTERM,
	"reopen": syscall.SIGUSR1,
	"reload": syscall.SIGHUP,
	"ldm":    syscall.SIGUSR2,
}

// sendSignal does what --signal says: a word, or word=who. Who is a pid, the name of a pid file, or
// the beginning of a pid with a star. Without it there has to be exactly one server.
func sendSignal(exe, arg string) error {
	word, who, _ := strings.Cut(arg, "=")
	if strings.Contains(who, "=") {
		return fmt.Errorf("invalid signal parameters: %v", strings.Split(arg, "=")[2:])
	}
	sig, ok := signalNames[word]
	if !ok {
		return fmt.Errorf("unknown signal %q", word)
	}
	if b, err := os.ReadFile(who); err == nil && who != "" {
		who = strings.TrimSpace(string(b))
	}
	pids, err := choosePIDs(exe, who)
	if err != nil {
		return err
	}
	var failed strings.Builder
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil {
			fmt.Fprintf(&failed, "\nsignal %q %d: %s", word, pid, err)
		}
	}
	if failed.Len() > 0 {
		return errors.New(failed.String())
	}
	return nil
}

// choosePIDs returns the processes who stands for.
func choosePIDs(exe, who string) ([]int, error) {
	prefix, glob := strings.CutSuffix(who, "*")
	if prefix != "" {
		pid, err := strconv.Atoi(prefix)
		if err != nil {
			return nil, fmt.Errorf("invalid pid: %s: it is no process id, nor a file that holds one", prefix)
		}
		if !glob {
			return []int{pid}, nil
		}
	}
	running, err := findPIDs(exe)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, pid := range running {
		if strings.HasPrefix(strconv.Itoa(pid), prefix) {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("no %s processes running", exe)
	}
	if len(pids) > 1 && !glob {
		text := fmt.Sprintf("multiple %s processes running:", exe)
		for _, pid := range pids {
			text += fmt.Sprintf("\n%d", pid)
		}
		return nil, errors.New(text)
	}
	return pids, nil
}

// findPIDs asks pgrep for the other processes of this name.
func findPIDs(exe string) ([]int, error) {
	var none *exec.ExitError
	out, err := exec.Command("pgrep", "-x", exe).Output()
	if err != nil && !errors.As(err, &none) {
		return nil, errors.New("unable to resolve pid, try providing one")
	}
	var pids []int
	for s := range strings.FieldsSeq(string(out)) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			return nil, errors.New("unable to resolve pid, try providing one")
		}
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
