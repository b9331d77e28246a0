package replica

import (
	"context"
	"fmt"
	"log/slog"
)

// raftLogger sends Raft's own lines to the server's log, most of them as debug lines.
type raftLogger struct {
	l    *slog.Logger
	name string
}

func (r raftLogger) say(level slog.Level, text string) {
	r.l.Log(context.Background(), level, "raft: "+r.name+": "+text)
}

func (r raftLogger) Debug(v ...any)              { r.say(slog.LevelDebug, fmt.Sprint(v...)) }
func (r raftLogger) Debugf(f string, v ...any)   { r.say(slog.LevelDebug, fmt.Sprintf(f, v...)) }
func (r raftLogger) Info(v ...any)               { r.say(slog.LevelDebug, fmt.Sprint(v...)) }
func (r raftLogger) Infof(f string, v ...any)    { r.say(slog.LevelDebug, fmt.Sprintf(f, v...)) }
func (r raftLogger) Warning(v ...any)            { r.say(slog.LevelWarn, fmt.Sprint(v...)) }
func (r raftLogger) Warningf(f string, v ...any) { r.say(slog.LevelWarn, fmt.Sprintf(f, v...)) }
func (r raftLogger) Error(v ...any)              { r.say(slog.LevelError, fmt.Sprint(v...)) }
func (r raftLogger) Errorf(f string, v ...any)   { r.say(slog.LevelError, fmt.Sprintf(f, v...)) }
func (r raftLogger) Fatal(v ...any)              { panic("raft: " + r.name + ": " + fmt.Sprint(v...)) }
func (r raftLogger) Fatalf(f string, v ...any) {
	panic("raft: " + r.name + ": " + fmt.Sprintf(f, v...))
}
func (r raftLogger) Panic(v ...any) { panic("raft: " + r.name + ": " + fmt.Sprint(v...)) }
func (r raftLogger) Panicf(f string, v ...any) {
	panic("raft: " + r.name + ": " + fmt.Sprintf(f, v...))
}
