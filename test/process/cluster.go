package process

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// NewCluster starts n servers that form a cluster, n0 to n(n-1), and waits until each of them answers.
func NewCluster(t testing.TB, n int, extra string) []*Server {
	t.Helper()
	c := prepareCluster(t, n)
	c.start(t, c.routes, extra)
	return c.servers
}

// NewNetworkedCluster is NewCluster with a network between the servers that can be cut.
func NewNetworkedCluster(t testing.TB, n int, extra string) ([]*Server, *Network) {
	t.Helper()
	network := newNetwork(t, n) // First: it takes any free port.
	c := prepareCluster(t, n)
	network.lead(c.routes)
	c.start(t, network.fronts, extra)
	return c.servers, network
}

// cluster is servers about to be started.
type cluster struct {
	servers []*Server
	routes  []string // where each listens for the others
}

func prepareCluster(t testing.TB, n int) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{servers: make([]*Server, n), routes: make([]string, n)}
	for i := range c.servers {
		s := &Server{Dir: filepath.Join(dir, fmt.Sprint("n", i))}
		var err error
		for _, addr := range []*string{&s.Addr, &s.HTTP, &c.routes[i]} {
			if *addr, err = freeAddr(); err != nil {
				t.Fatal(err)
			}
		}
		c.servers[i] = s
	}
	return c
}

// start writes the configurations, in which the servers are to be reached at the given addresses, and
// runs the servers.
func (c *cluster) start(t testing.TB, seeds []string, extra string) {
	t.Helper()
	for i, s := range c.servers {
		if err := os.MkdirAll(s.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(s.Addr)
		text := fmt.Sprintf("server_name: n%d\nserver_tags: [n%[1]d]\nhost: %s\nport: %s\nhttp: %q\njetstream {\n  store_dir: %q\n}\ncluster {\n  name: C\n  listen: %q\n  advertise: %q\n  routes: [\"nats://%s\"]\n}\n%s\n",
			i, host, port, s.HTTP, filepath.Join(s.Dir, "data"), c.routes[i], seeds[i], strings.Join(seeds, "\", \"nats://"), extra)
		if err := os.WriteFile(s.config(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var err error
		if s.log, err = os.Create(filepath.Join(s.Dir, "server.log")); err != nil {
			t.Fatal(err)
		}
		if err := s.Launch(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			s.Kill()
			if t.Failed() {
				t.Logf("log of n%d, last lines:\n%s", i, s.LogTail(30))
			}
			s.log.Close()
		})
	}
	for i, s := range c.servers {
		if err := s.ready(); err != nil {
			t.Fatalf("n%d: %v", i, err)
		}
	}
}
