package server

import (
	"net"
	"testing"
)

func TestShownAddress(t *testing.T) {
	all := &net.TCPAddr{IP: net.IPv6unspecified, Port: 4222}
	for _, tt := range []struct {
		host string
		addr net.Addr
		want string
	}{
		{"", all, "0.0.0.0:4222"},
		{"0.0.0.0", all, "0.0.0.0:4222"},
		{"::", all, "[::]:4222"},
		{"localhost", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, "localhost:1"},
	} {
		if got := Shown(tt.host, tt.addr); got != tt.want {
			t.Errorf("%q listening on %v is shown as %s, want %s", tt.host, tt.addr, got, tt.want)
		}
	}
}
