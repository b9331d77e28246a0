// Command tables measures a bucket with many keys, on each storage engine and beside nats-server, and
// prints a table in Markdown. It is the source of the tables in docs/benchmarks.md.
//
//	go run ./test/tables -keys 1000000                      # load, list, watch, memory, disk, restart
//	go run ./test/tables -keys 200000 -what writes          # bytes written and syncs, for each put
//	go run ./test/tables -keys 1200000 -what pauses         # latencies while the storage works in the background
//
// A system is measured from its first key to its restart before the next one starts. All run on this machine,
// with the client beside them: times compare within one run, and with nothing else.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cleatkv/cleat/test/process"
)

var (
	keys    = flag.Int("keys", 1_000_000, "how many keys, of 30 bytes, with values of 100")
	systems = flag.String("systems", "memory,file,rocksdb,nats", "what to measure, of memory, file, rocksdb, nats and nats-always")
	what    = flag.String("what", "keys", "keys: a bucket with many keys; writes: what a put costs the disk; pauses: how long puts and gets take while the storage works in the background")
	dir     = flag.String("dir", "", "where the servers keep their files; empty: below the directory for temporary files")
	first   = flag.Bool("realtime", false, "as root, where latencies are measured: server and client go before all else that runs on this machine")
	nats    = flag.String("nats", "nats-server", "the reference server")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tables:", err)
		os.Exit(1)
	}
}

func run() error {
	measure, ok := map[string]func(*system) ([]row, error){"keys": measureKeys, "writes": measureWrites, "pauses": measurePauses}[*what]
	if !ok {
		return fmt.Errorf("-what %s: must be keys, writes or pauses", *what)
	}
	fmt.Printf("%s, %s, %d CPUs: `go run ./test/tables %s`\n\n", time.Now().Format("2006-01-02"), runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU(), strings.Join(os.Args[1:], " "))
	for i, name := range strings.Split(*systems, ",") {
		s, err := newSystem(name)
		if err != nil {
			return err
		}
		rows, err := measure(s)
		s.close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i == 0 {
			printHead(rows[0].cells)
		}
		for _, r := range rows {
			r.print()
		}
	}
	return nil
}

// cell is one figure.
type cell struct{ name, value string }

// row is what was measured of one system, or of it in one situation.
type row struct {
	title string
	cells []cell
}

func (r *row) print() {
	fmt.Printf("| %s |", r.title)
	for _, c := range r.cells {
		fmt.Printf(" %s |", c.value)
	}
	fmt.Println()
}

func printHead(cells []cell) {
	fmt.Print("| |")
	for _, c := range cells {
		fmt.Printf(" %s |", c.name)
	}
	fmt.Print("\n|---|" + strings.Repeat("---|", len(cells)) + "\n")
}

// system is one server with one bucket.
type system struct {
	title    string
	storage  string // of the bucket, as clients know it
	metadata map[string]string
	command  []string
	always   bool // the reference syncs before it acknowledges
	dir      string
	server   *process.Server
}

func newSystem(name string) (*system, error) {
	s := &system{title: "cleat " + name, storage: "file"}
	switch name {
	case "memory":
		s.storage = "memory"
	case "file":
	case "rocksdb":
		s.metadata = map[string]string{"cleat.storage": name}
	case "nats":
		s.title, s.command = "nats-server", []string{*nats}
	case "nats-always":
		s.title, s.command, s.always = "nats-server, sync always", []string{*nats}, true
	default:
		return nil, fmt.Errorf("-systems: %s is unknown", name)
	}
	if s.command == nil {
		var err error
		if s.command, err = process.Command(); err != nil {
			return nil, err
		}
	} else if _, err := exec.LookPath(*nats); err != nil {
		return nil, fmt.Errorf("the reference: %w", err)
	}
	var err error
	s.dir, err = os.MkdirTemp(*dir, "tables")
	return s, err
}

// start starts the server for the first time, behind a command that runs it.
func (s *system) start(behind ...string) (err error) {
	config := ""
	if s.always { // The second block of a name replaces the first.
		config = fmt.Sprintf("jetstream { store_dir: %q, sync_interval: always }", filepath.Join(s.dir, "data"))
	}
	s.server, err = process.OpenCommand(s.dir, config, append(behind, s.command...))
	return err
}

func (s *system) close() {
	if s.server != nil {
		_ = s.server.Close()
	}
	_ = os.RemoveAll(s.dir) // Somebody deletes temporary files some day.
}

// disk is how many bytes the server's files take.
func (s *system) disk() (total int64) {
	// What vanishes meanwhile counts for nothing.
	_ = filepath.Walk(filepath.Join(s.dir, "data"), func(_ string, info os.FileInfo, err error) error {
		if err == nil {
			total += allocated(info)
		}
		return nil
	})
	return total
}
