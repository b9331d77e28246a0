package server

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatkv/cleat/internal/broker"
)

// BenchmarkRequest measures requests to an internal subscription and their answers, over real
// sockets and from as many clients as the name says, each with one request under way. The clients
// run in a process of their own, so cpu-us/op is what the server alone spends, system calls
// included.
func BenchmarkRequest(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(strconv.Itoa(clients), func(b *testing.B) { benchmarkRequest(b, clients) })
	}
}

func benchmarkRequest(b *testing.B, clients int) {
	s := start(b, Options{})
	s.Broker().Account(broker.GlobalAccount).Subscribe("$KV.bucket.>", "", func(m *broker.Msg) {
		m.Respond(nil, []byte(`{"stream":"KV_bucket","seq":123456}`))
	})
	load := exec.Command(os.Args[0], "-test.run=^TestLoad$")
	load.Env = append(os.Environ(), "CLEAT_LOAD="+s.Addr().String(), "CLEAT_LOAD_CLIENTS="+strconv.Itoa(clients),
		"CLEAT_LOAD_REQUESTS="+strconv.Itoa(b.N))
	in, _ := load.StdinPipe()
	out, _ := load.StdoutPipe()
	if err := load.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil { // All clients are connected.
		b.Fatal(err)
	}
	b.ResetTimer()
	before := cpuTime()
	in.Close()
	if _, err := lines.ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op")
	if err := load.Wait(); err != nil {
		b.Fatal(err)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestLoad is the client process of BenchmarkRequest. By itself it only checks one request.
func TestLoad(t *testing.T) {
	addr, clients, requests := os.Getenv("CLEAT_LOAD"), 1, 1
	if addr == "" {
		s := start(t, Options{})
		s.Broker().Account(broker.GlobalAccount).Subscribe("$KV.bucket.>", "", func(m *broker.Msg) { m.Respond(nil, m.Data) })
		addr = s.Addr().String()
	} else {
		clients, _ = strconv.Atoi(os.Getenv("CLEAT_LOAD_CLIENTS"))
		requests, _ = strconv.Atoi(os.Getenv("CLEAT_LOAD_REQUESTS"))
	}
	type client struct {
		nc net.Conn
		r  *bufio.Reader
	}
	conns := make([]client, clients)
	for i := range conns {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		conns[i] = client{nc, bufio.NewReader(nc)}
		io.WriteString(nc, quiet+"SUB _INBOX."+strconv.Itoa(i)+".* 1\r\nPING\r\n")
		for line := ""; line != "PONG\r\n"; {
			if line, err = conns[i].r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	if os.Getenv("CLEAT_LOAD") != "" {
		os.Stdout.WriteString("connected\n")
		io.Copy(io.Discard, os.Stdin)
	}
	errs := make(chan error, clients)
	for i, c := range conns {
		n := requests / clients
		if i < requests%clients {
			n++
		}
		go func() {
			msg := []byte("PUB $KV.bucket.key-0001 _INBOX." + strconv.Itoa(i) + ".abc 128\r\n" + strings.Repeat("x", 128) + "\r\n")
			for range n {
				c.nc.Write(msg)
				for range 2 {
					if _, err := c.r.ReadSlice('\n'); err != nil {
						errs <- err
						return
					}
				}
			}
			errs <- nil
		}()
	}
	for range conns {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("CLEAT_LOAD") != "" {
		os.Stdout.WriteString("done\n")
	}
}
