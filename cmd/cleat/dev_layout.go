package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cleatkv/cleat/internal/cli"
	"github.com/cleatkv/cleat/internal/config"
)

// Where the ports of a development cluster begin: those a single server has by default.
const (
	devClientPort  = 4222
	devRoutePort   = 6222
	devMonitorPort = 8222

	devHost       = "127.0.0.1"
	devServersMax = 9
	devPortsTried = 1000

	// Who may do what an operator does. It is no secret: the servers listen on this machine alone.
	devOperator = "sys"
)

// devServer is one server of a development cluster. Its configuration file is the only record of it:
// written once, read from then on, and the user's to change.
type devServer struct {
	name   string
	dir    string
	client int
	route  int
	http   int
}

func (s *devServer) config() string  { return filepath.Join(s.dir, "server.conf") }
func (s *devServer) log() string     { return filepath.Join(s.dir, "server.log") }
func (s *devServer) url() string     { return fmt.Sprintf("nats://%s:%d", devHost, s.client) }
func (s *devServer) monitor() string { return fmt.Sprintf("http://%s:%d", devHost, s.http) }

// devLayout returns the servers that dir holds and makes those that are missing up to count; zero
// stands for those there are, or three. Ports of new servers are the first free ones from base on.
func devLayout(dir string, count, base int) ([]*devServer, error) {
	servers, err := devStored(dir)
	if err != nil {
		return nil, err
	}
	switch {
	case count == 0 && len(servers) > 0:
		count = len(servers)
	case count == 0:
		count = 3
	case count < len(servers):
		e := cli.Usagef("the cluster in %s has %d servers, and %d of them cannot stand for all", dir, len(servers), count)
		e.Hints = []string{fmt.Sprintf("start all of them: cleat dev --servers %d", len(servers)),
			"begin another cluster: --dir DIRECTORY"}
		return nil, e
	}
	for _, s := range servers {
		for _, port := range []int{s.client, s.route, s.http} {
			if !portFree(port) {
				return nil, &cli.Error{Code: cli.ExitUnavailable,
					Err: fmt.Errorf("port %d, which server %s had before, is in use", port, s.name),
					Hints: []string{"is this cluster running already? then stop it there first",
						"or change the port in " + s.config()}}
			}
		}
	}
	return devGrow(dir, servers, count, base)
}

// devStored reads the servers n1, n2 and so on that an earlier run has made.
func devStored(dir string) ([]*devServer, error) {
	var servers []*devServer
	for i := 1; ; i++ {
		s := &devServer{name: fmt.Sprintf("n%d", i), dir: filepath.Join(dir, fmt.Sprintf("n%d", i))}
		if _, err := os.Stat(s.config()); errors.Is(err, fs.ErrNotExist) {
			return servers, nil
		}
		c, err := config.Load(&config.Flags{ConfigFile: s.config()})
		if err != nil {
			return nil, err
		}
		s.client, s.route, s.http = c.Port, c.Cluster.Port, c.Monitor.Port
		servers = append(servers, s)
	}
}

// devGrow makes servers until there are count. Servers made together found a cluster; those that are
// made later join it by way of the first ones.
func devGrow(dir string, servers []*devServer, count, base int) ([]*devServer, error) {
	taken := make(map[int]bool)
	for _, s := range servers {
		taken[s.client], taken[s.route], taken[s.http] = true, true, true
	}
	var made []*devServer
	for i := len(servers); i < count; i++ {
		name := fmt.Sprintf("n%d", i+1)
		s := &devServer{name: name, dir: filepath.Join(dir, name)}
		for _, p := range []struct {
			port *int
			from int
		}{{&s.client, base}, {&s.route, base - devClientPort + devRoutePort}, {&s.http, base - devClientPort + devMonitorPort}} {
			port, err := freePortFrom(p.from, taken)
			if err != nil {
				return nil, err
			}
			*p.port, taken[port] = port, true
		}
		made = append(made, s)
	}
	seeds := servers
	if len(seeds) == 0 {
		seeds = made
	}
	for _, s := range made {
		if err := s.write(seeds); err != nil {
			return nil, err
		}
	}
	return append(servers, made...), nil
}

// write makes a server's directory and its configuration file.
func (s *devServer) write(seeds []*devServer) error {
	var routes []string
	for _, o := range seeds {
		routes = append(routes, fmt.Sprintf("nats://%s:%d", devHost, o.route))
	}
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`# Server %[1]s of a cluster for trying things out, made by "cleat dev". It may be changed.
server_name: %[1]s
listen: "%[2]s:%[3]d"
http: "%[2]s:%[4]d"
jetstream {
  store_dir: %[5]q
}
cluster {
  name: dev
  listen: "%[2]s:%[6]d"
  routes: [%[7]s]
}
# Everybody may use buckets; whoever looks after the cluster is this user.
accounts {
  $SYS { users: [{user: %[8]s, password: %[8]s}] }
}
`, s.name, devHost, s.client, s.http, filepath.Join(dir, "data"), s.route, strings.Join(routes, ", "), devOperator)
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of server %s: %w", s.name, err)
	}
	if err := os.WriteFile(s.config(), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the configuration of server %s: %w", s.name, err)
	}
	return nil
}

// freePortFrom returns the first port from one on that nobody has.
func freePortFrom(from int, taken map[int]bool) (int, error) {
	for port := from; port < from+devPortsTried && port < 1<<16; port++ {
		if !taken[port] && portFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port from %d on: choose others with --port", from)
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(devHost, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
