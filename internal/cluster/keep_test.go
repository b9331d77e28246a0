package cluster

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What is kept is found after a restart, or not at all; what is damaged is never found.
func TestKeep(t *testing.T) {
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	c := &Cluster{opts: Options{FS: fsys, Dir: "data"}}
	kept := func(want string) {
		t.Helper()
		if b, err := c.Kept("thing"); err != nil || string(b) != want {
			t.Fatalf("kept %q, %v, not %q", b, err, want)
		}
	}
	kept("")
	for _, content := range []string{"one", "", "something else"} {
		if err := c.Keep("thing", []byte(content)); err != nil {
			t.Fatal(err)
		}
		kept(content)
	}
	whole, err := readFile(fsys, "data/thing")
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		f, err := fsys.Create("data/thing", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(append([]byte(nil), b...)); err != nil { // It may scribble over what it is given.
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range whole {
		flipped := append([]byte(nil), whole...)
		flipped[i] ^= 4
		write(flipped)
		kept("")
		write(whole[:i])
		kept("")
	}
	write(whole)
	kept("something else")
}
