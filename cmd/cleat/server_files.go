package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// writePid writes this process's id, alone in the file, as nats-server does.
func writePid(path string) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o660); err != nil {
		return fmt.Errorf("could not write pidfile: %w", err)
	}
	return nil
}

// removeFile removes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ports are the addresses a server listens on, as tests and scripts read them when they asked for
// any free port.
type ports struct {
	Nats       []string `json:"nats,omitempty"`
	Monitoring []string `json:"monitoring,omitempty"`
	Cluster    []string `json:"cluster,omitempty"`
	Profile    []string `json:"profile,omitempty"`
	WebSocket  []string `json:"websocket,omitempty"`
}

// portsPath is where the ports stand, "" if nobody wants them.
func portsPath(dir string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, fmt.Sprintf("%s_%d.ports", filepath.Base(os.Args[0]), os.Getpid()))
}

func (p *ports) write(path string) error {
	if path == "" {
		return nil
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("could not write ports file: %w", err)
	}
	return nil
}

// portURLs is an address as URLs; for all interfaces there is one for each.
func portURLs(scheme string, a net.Addr) []string {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return nil
	}
	hosts := []string{t.IP.String()}
	if t.IP.IsUnspecified() {
		hosts = nil
		addrs, _ := net.InterfaceAddrs()
		for _, i := range addrs {
			if n, ok := i.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	var urls []string
	for _, h := range hosts {
		urls = append(urls, scheme+"://"+net.JoinHostPort(h, strconv.Itoa(t.Port)))
	}
	return urls
}

func listenPort(a net.Addr) int {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.Port
	}
	return 0
}
