package cluster

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// unwritable is a file system on which nobody may make a file.
type unwritable struct{ vfs.FS }

func (unwritable) Lock(name string) (io.Closer, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

// Each reason for which a data directory is of no use has its own advice.
func TestLockDirSaysWhy(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := lockDir(vfs.Default, filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, tt := range []struct {
		fs        vfs.FS
		dir, want string
	}{
		{vfs.Default, file, "is a file"},
		{vfs.Default, filepath.Join(file, "below"), "cannot be created"},
		{vfs.Default, filepath.Join(dir, "held"), "another server uses it"},
		{unwritable{vfs.Default}, dir, "cannot be written"},
	} {
		_, err := lockDir(tt.fs, tt.dir)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.dir) {
			t.Errorf("%s: %v, want %q and the directory", tt.dir, err, tt.want)
		}
	}
	if _, err := lockDir(unwritable{vfs.Default}, dir); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v hides its cause", err)
	}
}
