package process

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatkv/cleat/test/port"
)

// NewCluster starts n servers that form a cluster, n0 to n(n-1), and waits until each of them answers.
// Each carries its name as a tag, so that streams can be placed.
func NewCluster(t testing.TB, n int, extra string) []*Server {
	t.Helper()
	c, err := prepareCluster(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	return c.run(t, c.routes, extra)
}

// NewNetworkedCluster is NewCluster with a network between the servers that can be cut.
func NewNetworkedCluster(t testing.TB, n int, extra string) ([]*Server, *Network) {
	t.Helper()
	network := newNetwork(t, n) // First: it takes any free port.
	c, err := prepareCluster(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	network.lead(c.routes)
	return c.run(t, network.fronts, extra), network
}

// OpenCluster is NewCluster without a test: the caller calls Close of each server, also of those that
// it gets beside an error.
func OpenCluster(dir string, n int, extra string) ([]*Server, error) {
	c, err := prepareCluster(dir, n)
	if err != nil {
		return nil, err
	}
	return c.start(c.routes, extra)
}

// cluster is servers about to be started.
type cluster struct {
	servers []*Server
	routes  []string // where each listens for the others
}

func prepareCluster(dir string, n int) (*cluster, error) {
	c := &cluster{servers: make([]*Server, n), routes: make([]string, n)}
	for i := range c.servers {
		s := &Server{Dir: filepath.Join(dir, fmt.Sprint("n", i))}
		var err error
		for _, addr := range []*string{&s.Addr, &s.HTTP, &c.routes[i]} {
			if *addr, err = port.Address(); err != nil {
				return nil, err
			}
		}
		c.servers[i] = s
	}
	return c, nil
}

// run starts the servers, and ends them with the test.
func (c *cluster) run(t testing.TB, seeds []string, extra string) []*Server {
	t.Helper()
	started, err := c.start(seeds, extra)
	for i, s := range started {
		t.Cleanup(func() {
			state := ""
			if t.Failed() {
				state = s.state()
			}
			s.Kill()
			if t.Failed() {
				t.Logf("n%d: %s\nits log, last lines:\n%s", i, state, s.LogTail(30))
			}
			s.log.Close()
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return started
}

// state is what the server says of its health and of its groups.
func (s *Server) state() string {
	var all strings.Builder
	for _, path := range []string{"/healthz", "/raftz?acc=$SYS", "/raftz?acc=$G", "/jsz?streams=true&consumers=true"} {
		client := http.Client{Timeout: 2 * time.Second}
		answer, err := client.Get("http://" + s.HTTP + path)
		if err != nil {
			fmt.Fprintf(&all, "%s: %v\n", path, err)
			continue
		}
		text, err := io.ReadAll(io.LimitReader(answer.Body, 16<<10))
		answer.Body.Close()
		fmt.Fprintf(&all, "%s: %s", path, text)
		if err != nil {
			fmt.Fprint(&all, err)
		}
		all.WriteByte('\n')
	}
	return all.String()
}

// start runs the servers, which are to reach each other at the seeds, and returns those it has started.
func (c *cluster) start(seeds []string, extra string) ([]*Server, error) {
	for i := range c.servers {
		if err := c.launch(i, seeds, extra); err != nil {
			return c.servers[:i], err
		}
	}
	for i, s := range c.servers {
		if err := s.ready(); err != nil {
			return c.servers, fmt.Errorf("n%d: %w", i, err)
		}
	}
	return c.servers, nil
}

func (c *cluster) launch(i int, seeds []string, extra string) error {
	s := c.servers[i]
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	half := "low"
	if i >= len(c.servers)/2 {
		half = "high"
	}
	text := fmt.Sprintf("server_name: n%d\nserver_tags: [n%[1]d, %s]\nhost: %s\nport: %s\nhttp: %q\njetstream {\n  store_dir: %q\n}\n"+
		"cluster {\n  name: C\n  listen: %q\n  advertise: %q\n  routes: [\"nats://%s\"]\n}\n%s\n",
		i, half, host, port, s.HTTP, filepath.Join(s.Dir, "data"), c.routes[i], seeds[i], strings.Join(seeds, "\", \"nats://"), extra)
	if err := os.WriteFile(s.config(), []byte(text), 0o644); err != nil {
		return err
	}
	var err error
	if s.log, err = os.Create(filepath.Join(s.Dir, "server.log")); err != nil {
		return err
	}
	if err := s.Launch(); err != nil {
		s.log.Close()
		return err
	}
	return nil
}
