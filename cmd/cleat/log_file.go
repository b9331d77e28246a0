package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// rotatedForm is the ending of a log file that reached its limit: the time it did, in parts an
// ls shows in order. It is nats-server's.
const rotatedForm = ".2006.01.02.15.04.05.000000000"

// logFile is a log file that moves itself away when it has grown too large.
type logFile struct {
	path  string
	limit int64 // bytes; 0: none
	keep  int   // files moved away that stay; 0: all

	mu   sync.Mutex
	f    *os.File
	size int64
}

func openLogFile(path string, limit int64, keep int) (*logFile, error) {
	l := &logFile{path: path, limit: limit, keep: keep}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("error opening log file: %w", err)
	}
	return l, nil
}

// open opens the path, at its end. The caller holds mu, or is the only user.
func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write writes one line; lines are never split over two files.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit > 0 && l.size > 0 && l.size+int64(len(line)) > l.limit {
		if err := l.rotate(); err != nil {
			// Better a log over its limit than none.
			fmt.Fprintf(os.Stderr, "log file %s can not be rotated: %v\n", l.path, err)
			l.limit = 0
		}
	}
	n, err := l.f.Write(line)
	l.size += int64(n)
	return n, err
}

// rotate moves the file away and begins a new one.
func (l *logFile) rotate() error {
	if err := os.Rename(l.path, l.path+time.Now().Format(rotatedForm)); err != nil {
		return err
	}
	old := l.f
	if err := l.open(); err != nil {
		return err
	}
	return errors.Join(old.Close(), l.removeOld())
}

// removeOld removes all but the newest of the files moved away.
func (l *logFile) removeOld() error {
	if l.keep <= 0 {
		return nil
	}
	dir := filepath.Dir(l.path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var rotated []string
	for _, e := range entries {
		ending, ok := strings.CutPrefix(e.Name(), filepath.Base(l.path))
		if _, err := time.Parse(rotatedForm, ending); ok && err == nil {
			rotated = append(rotated, e.Name())
		}
	}
	slices.Sort(rotated)
	for len(rotated) > l.keep {
		if err := os.Remove(filepath.Join(dir, rotated[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		rotated = rotated[1:]
	}
	return nil
}

// Reopen opens the path again. What was moved away in the meantime is left as it is.
func (l *logFile) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.f
	if err := l.open(); err != nil {
		return err
	}
	return old.Close()
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}
