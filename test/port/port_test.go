package port

import (
	"net"
	"testing"
)

func TestPortsAreGivenOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		p, err := Take()
		if err != nil {
			t.Fatal(err)
		}
		if seen[p] || p < first || p > last {
			t.Fatalf("port %d after %v", p, seen)
		}
		seen[p] = true
		if reserve(p) {
			t.Fatalf("port %d is given twice", p)
		}
		for range 2 { // As by a server that is started again.
			l, err := net.Listen("tcp", address(p))
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
}

func TestPortInUseIsNotGiven(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if reserve(l.Addr().(*net.TCPAddr).Port) {
		t.Error("a port is given on which somebody listens")
	}
}
