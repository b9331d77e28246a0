//go:build !unix

package main

import (
	"errors"
	"io"
	"log/slog"
)

// syslogHandler does not exist where there is no system log.
type syslogHandler struct {
	slog.Handler
	out   io.WriteCloser
	level slog.Leveler
}

func newSyslog(string) (io.WriteCloser, error) {
	return nil, errors.New("there is no system log to write to on this system")
}
