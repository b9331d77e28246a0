// Command run runs "go test" with the arguments given and closes with one line that counts:
//
//	1234 passed, 0 failed, 2 skipped
//
// It prints a line for each package, the output of what failed and the reason of what was skipped,
// and nothing of what passed. It exits with 1 unless everything passed and something did.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		fatal(err)
	}
	if err := cmd.Start(); err != nil {
		fatal(err)
	}
	r := newReport(os.Stdout)
	if err := r.read(events); err != nil {
		fatal(err)
	}
	err = cmd.Wait()
	r.close()
	if err != nil || r.failed > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "run:", err)
	os.Exit(1)
}

// event is one line of "go test -json"; see "go doc test2json". Test is empty for a package.
type event struct {
	Action, Package, ImportPath, Test, Output string
	FailedBuild                               string
	Elapsed                                   float64
}

type test struct{ pkg, name string }

type report struct {
	w                       io.Writer
	passed, failed, skipped int
	output                  map[test][]string // of tests and packages that still run, and of builds
	blamed                  map[string]bool   // packages of which a test failed
}

func newReport(w io.Writer) *report {
	return &report{w: w, output: map[test][]string{}, blamed: map[string]bool{}}
}

func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil { // Not from a test: a message of the go command.
				fmt.Fprintf(r.w, "%s", line)
			} else {
				r.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) add(e event) {
	of := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		of = test{e.ImportPath, ""}
		fallthrough
	case "output":
		r.output[of] = append(r.output[of], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
		delete(r.output, of)
	}
}

func (r *report) endTest(e event) {
	switch e.Action {
	case "pass":
		r.passed++
		return
	case "skip":
		r.skipped++
	case "fail":
		r.failed++
		r.blamed[e.Package] = true
	}
	for _, line := range r.output[test{e.Package, e.Test}] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(r.w, line)
		}
	}
}

func (r *report) endPackage(e event) {
	switch {
	case e.Action == "skip":
		return // A package without tests.
	case e.Action == "fail" && !r.blamed[e.Package]:
		// It did not build, or ended before a test could fail: a panic, a time-out, TestMain.
		r.failed++
		for _, line := range r.output[test{e.FailedBuild, ""}] {
			fmt.Fprint(r.w, line)
		}
		for at, lines := range r.output {
			if at.pkg == e.Package {
				fmt.Fprint(r.w, strings.Join(lines, ""))
			}
		}
	}
	fmt.Fprintf(r.w, "%-4s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
}

func (r *report) close() {
	fmt.Fprintf(r.w, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
}
