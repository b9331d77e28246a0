package cluster

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A server that took a flipped bit in its identity for the truth would speak for another member: every bit
// of the files that say who it is, flipped, and every length, cut, is found.
func TestIdentityFlipEveryBit(t *testing.T) {
	for _, file := range []string{identityFile, genesisFile} {
		t.Run(file, func(t *testing.T) {
			fsys := vfs.NewMem()
			id := identity{server: 0xfeed, cluster: 0xbeef, member: 2, founder: true}
			c := &Cluster{opts: Options{FS: fsys, Dir: "data"}}
			load := func() error {
				if file == identityFile {
					_, err := loadIdentity(fsys, "data")
					return err
				}
				return newFounding(c).load()
			}
			if err := fsys.MkdirAll("data", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := id.save(fsys, "data"); err != nil {
				t.Fatal(err)
			}
			if err := newFounding(c).accept(&genesis{Cluster: 0xbeef}); err != nil {
				t.Fatal(err)
			}
			if err := load(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("data", file)
			good, err := readFile(fsys, path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := func(content []byte, what string, at int) {
				if err := writeFileAtomically(fsys, "data", file, content); err != nil {
					t.Fatal(err)
				}
				if err := load(); err == nil || !strings.Contains(err.Error(), path+" is damaged") || !strings.Contains(err.Error(), "move the data directory away") {
					t.Fatalf("%s at %d: %v", what, at, err)
				}
			}
			for at := range good {
				damaged(good[:at], "cut", at)
				for bit := range 8 {
					bad := append([]byte(nil), good...)
					bad[at] ^= 1 << bit
					damaged(bad, "flipped", at)
				}
			}
		})
	}
}
