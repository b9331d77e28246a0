package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/cleatkv/cleat/internal/config"
)

// Levels beside slog's own, named as in nats-server's log.
const (
	levelTrace = slog.LevelDebug - 4
	levelFatal = slog.LevelError + 4
)

// levelTag is how a level is written in a line, and in which colour on a terminal.
func levelTag(l slog.Level) (tag, color string) {
	switch {
	case l >= levelFatal:
		return "FTL", "31"
	case l >= slog.LevelError:
		return "ERR", "31"
	case l >= slog.LevelWarn:
		return "WRN", "0;93"
	case l >= slog.LevelInfo:
		return "INF", "32"
	case l >= slog.LevelDebug:
		return "DBG", "36"
	}
	return "TRC", "33"
}

// logger is where the server's log goes. What goes there and how it looks can change while it is
// in use, when the configuration is read again.
type logger struct {
	*slog.Logger
	level slog.LevelVar
	out   io.WriteCloser // what Reopen and Close act upon; nil for standard error
}

// newLogger opens the log the configuration asks for.
func newLogger(c config.Log) (*logger, error) {
	l := new(logger)
	l.setLevel(c)
	var h slog.Handler
	switch {
	case c.Syslog || c.RemoteSyslog != "":
		s, err := newSyslog(c.RemoteSyslog)
		if err != nil {
			return nil, err
		}
		l.out, h = s, &syslogHandler{out: s, level: &l.level}
	case c.File != "":
		f, err := openLogFile(c.File, c.FileSizeLimit, c.FileMaxNum)
		if err != nil {
			return nil, err
		}
		l.out, h = f, newHandler(f, c, &l.level, false)
	default:
		h = newHandler(os.Stderr, c, &l.level, term.IsTerminal(int(os.Stderr.Fd())))
	}
	l.Logger = slog.New(h)
	return l, nil
}

// setLevel follows the configuration's debug and trace.
func (l *logger) setLevel(c config.Log) {
	switch {
	case c.Trace:
		l.level.Set(levelTrace)
	case c.Debug:
		l.level.Set(slog.LevelDebug)
	default:
		l.level.Set(slog.LevelInfo)
	}
}

// Reopen opens the log file anew, for those who have just moved it away.
func (l *logger) Reopen() error {
	if f, ok := l.out.(*logFile); ok {
		return f.Reopen()
	}
	return nil
}

// Close ends the log.
func (l *logger) Close() error {
	if l.out == nil {
		return nil
	}
	return l.out.Close()
}

// newHandler writes lines or JSON objects to w.
func newHandler(w io.Writer, c config.Log, level slog.Leveler, color bool) slog.Handler {
	if c.Format == config.LogFormatJSON {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: levelNames})
	}
	return &lineHandler{
		w: w, mu: new(sync.Mutex), level: level, color: color, time: c.Time, utc: c.TimeUTC,
		pid: "[" + strconv.Itoa(os.Getpid()) + "] ",
	}
}

// levelNames names our two levels in JSON, which slog would write as sums.
func levelNames(groups []string, a slog.Attr) slog.Attr {
	if l, ok := a.Value.Any().(slog.Level); ok && a.Key == slog.LevelKey && len(groups) == 0 {
		switch l {
		case levelTrace:
			a.Value = slog.StringValue("TRACE")
		case levelFatal:
			a.Value = slog.StringValue("FATAL")
		}
	}
	return a
}

// lineHandler writes nats-server's log lines, which many a script looks for:
//
//	[pid] 2026/11/21 23:34:25.383562 [INF] text key=value
type lineHandler struct {
	w     io.Writer
	mu    *sync.Mutex // guards w; shared by all handlers made from one
	level slog.Leveler
	color bool
	time  bool
	utc   bool
	pid   string

	attrs  []byte // of With, already written out
	prefix string // of WithGroup
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	line := make([]byte, 0, 200)
	line = append(line, h.pid...)
	if h.time && !r.Time.IsZero() {
		line = h.appendTime(line, r.Time)
	}
	line = append(line, '[')
	tag, color := levelTag(r.Level)
	if h.color {
		line = append(append(append(line, "\x1b["...), color...), 'm')
	}
	line = append(line, tag...)
	if h.color {
		line = append(line, "\x1b[0m"...)
	}
	line = append(line, "] "...)
	line = appendText(line, r.Message, h.attrs, h.prefix, r.Attrs)
	line = append(line, '\n')

	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(line)
	return err
}

func (h *lineHandler) appendTime(line []byte, t time.Time) []byte {
	if h.utc {
		t = t.UTC()
	} else {
		t = t.Local()
	}
	return t.AppendFormat(line, "2006/01/02 15:04:05.000000 ")
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *h
	own.attrs = bytes.Clone(h.attrs)
	for _, a := range attrs {
		own.attrs = appendAttr(own.attrs, h.prefix, a)
	}
	return &own
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	own := *h
	own.prefix += name + "."
	return &own
}

// appendText appends a message and its attributes.
func appendText(line []byte, text string, with []byte, prefix string, attrs func(func(slog.Attr) bool)) []byte {
	line = append(line, text...)
	line = append(line, with...)
	attrs(func(a slog.Attr) bool {
		line = appendAttr(line, prefix, a)
		return true
	})
	return line
}

// appendAttr appends " key=value", the value in quotes if it would not read as one word.
func appendAttr(line []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, m := range v.Group() {
			line = appendAttr(line, prefix, m)
		}
		return line
	}
	if a.Equal(slog.Attr{}) {
		return line
	}
	line = append(append(append(append(line, ' '), prefix...), a.Key...), '=')
	s := v.String()
	if s == "" || strings.ContainsAny(s, " \t\r\n\"=") {
		return strconv.AppendQuote(line, s)
	}
	return append(line, s...)
}
