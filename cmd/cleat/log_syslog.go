//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"log/syslog"
	"net/url"
)

// syslogTag names our messages in the system's log.
const syslogTag = "cleat"

// newSyslog connects to the local system log, or to a remote one: udp://host:port.
func newSyslog(remote string) (*syslog.Writer, error) {
	if remote == "" {
		return syslog.New(syslog.LOG_DAEMON|syslog.LOG_NOTICE, syslogTag)
	}
	u, err := url.Parse(remote)
	if err != nil {
		return nil, fmt.Errorf("error connecting to syslog: %w", err)
	}
	address := u.Host
	if u.Scheme == "unix" {
		address = u.Path
	}
	return syslog.Dial(u.Scheme, address, syslog.LOG_DAEMON|syslog.LOG_NOTICE, syslogTag)
}

// syslogHandler leaves time and process to the system log and maps levels to its severities.
type syslogHandler struct {
	out    *syslog.Writer
	level  slog.Leveler
	attrs  []byte
	prefix string
}

func (h *syslogHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *syslogHandler) Handle(_ context.Context, r slog.Record) error {
	text := string(appendText(nil, r.Message, h.attrs, h.prefix, r.Attrs))
	switch {
	case r.Level >= levelFatal:
		return h.out.Crit(text)
	case r.Level >= slog.LevelError:
		return h.out.Err(text)
	case r.Level >= slog.LevelWarn:
		return h.out.Warning(text)
	case r.Level >= slog.LevelInfo:
		return h.out.Notice(text)
	}
	return h.out.Debug(text)
}

func (h *syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *h
	own.attrs = bytes.Clone(h.attrs)
	for _, a := range attrs {
		own.attrs = appendAttr(own.attrs, h.prefix, a)
	}
	return &own
}

func (h *syslogHandler) WithGroup(name string) slog.Handler {
	own := *h
	own.prefix += name + "."
	return &own
}
