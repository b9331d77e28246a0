package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cleatkv/cleat/internal/config"
)

// TestLogLines have nats-server's form.
func TestLogLines(t *testing.T) {
	var buf bytes.Buffer
	var level slog.LevelVar
	level.Set(levelTrace)
	h := newHandler(&buf, config.Log{Time: true, Format: config.LogFormatNATS}, &level, false)
	log := slog.New(h)
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { log.Info("text") }, `[INF] text`},
		{func() { log.Warn("text", "a", 1, "b", "two words", "c", "") }, `[WRN] text a=1 b="two words" c=""`},
		{func() { log.Error("text", slog.Group("g", "a", 1)) }, `[ERR] text g.a=1`},
		{func() { log.Debug("text") }, `[DBG] text`},
		{func() { log.Log(t.Context(), levelTrace, "text") }, `[TRC] text`},
		{func() { log.Log(t.Context(), levelFatal, "text") }, `[FTL] text`},
		{func() { log.With("w", 2).WithGroup("g").Info("text", "a", 1) }, `[INF] text w=2 g.a=1`},
	} {
		buf.Reset()
		c.write()
		form := regexp.MustCompile(`^\[\d+\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} (.*)\n$`)
		if m := form.FindStringSubmatch(buf.String()); m == nil || m[1] != c.want {
			t.Errorf("%q, want %q", buf.String(), c.want)
		}
	}
	buf.Reset()
	level.Set(slog.LevelInfo)
	log.Debug("text")
	if buf.Len() != 0 {
		t.Errorf("below the level: %q", buf.String())
	}
}

// TestLogForms are the others: without time, in colour, and as JSON.
func TestLogForms(t *testing.T) {
	var buf bytes.Buffer
	slog.New(newHandler(&buf, config.Log{}, slog.LevelInfo, true)).Warn("text")
	if !regexp.MustCompile(`^\[\d+\] \[\x1b\[0;93mWRN\x1b\[0m\] text\n$`).MatchString(buf.String()) {
		t.Errorf("in colour: %q", buf.String())
	}
	buf.Reset()
	slog.New(newHandler(&buf, config.Log{Format: config.LogFormatJSON}, levelTrace, true)).Log(t.Context(), levelTrace, "text", "a", 1)
	var line map[string]any
	if err := json.Unmarshal(buf.Bytes(), &line); err != nil || line["msg"] != "text" || line["level"] != "TRACE" || line["a"] != 1.0 {
		t.Errorf("JSON: %s %v", buf.String(), err)
	}
}

// TestLogFile rotates at its limit, keeps as many files as it is told to, and opens its path again
// when asked.
func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cleat.log")
	l, err := newLogger(config.Log{File: path, FileSizeLimit: 100, FileMaxNum: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 10 {
		l.Info(strings.Repeat("x", 60))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("%d files, want the log and two others: %v", len(entries), entries)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > 100 {
			t.Errorf("%s is larger than its limit: %d %v", e.Name(), info.Size(), err)
		}
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	l.Info("goes with the file that was moved")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Info("after")
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "] [INF] after\n") || strings.Contains(string(b), "moved") {
		t.Errorf("reopened: %q %v", b, err)
	}
}
