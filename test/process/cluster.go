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
	dir := t.TempDir()
	servers, routes := make([]*Server, n), make([]string, n)
	for i := range servers {
		s := &Server{Dir: filepath.Join(dir, fmt.Sprint("n", i))}
		var err error
		for _, addr := range []*string{&s.Addr, &s.HTTP, &routes[i]} {
			if *addr, err = freeAddr(); err != nil {
				t.Fatal(err)
			}
		}
		servers[i] = s
	}
	for i, s := range servers {
		if err := os.MkdirAll(s.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(s.Addr)
		text := fmt.Sprintf("server_name: n%d\nserver_tags: [n%[1]d]\nhost: %s\nport: %s\nhttp: %q\njetstream {\n  store_dir: %q\n}\ncluster {\n  name: C\n  listen: %q\n  routes: [\"nats://%s\"]\n}\n%s\n",
			i, host, port, s.HTTP, filepath.Join(s.Dir, "data"), routes[i], strings.Join(routes, "\", \"nats://"), extra)
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
	for i, s := range servers {
		if err := s.ready(); err != nil {
			t.Fatalf("n%d: %v", i, err)
		}
	}
	return servers
}
