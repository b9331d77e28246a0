// Package internal_test holds what is true of all internal packages at once: which may import
// which.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// policy says who may import whom: "a < b" lets b import a and everything that a may import. The
// list reads from what knows nothing to what knows all. invariant is open to all.
//
// To add an arrow is a decision about the whole: what must call the other way is a returned effect
// or a small interface that the caller declares.
const policy = `
	# Names and bytes.
	subject < api < kv;
	subject < auth;
	fields < storage, wal, peer;

	# Storage. ENGINES stands for the three engines.
	subject < storage < storage/search < storage/index < ENGINES;
	ENGINES, sim/simfs < storage/storagetest;

	# Sockets.
	rawio < peer, server;
	transfer < cluster;

	# State and replication. replica declares what a machine is; stream and meta are machines.
	wal < replica;
	api, storage < consumer;
	consumer, replica < stream;
	api, storage, replica < meta;
	replica, peer, stream, meta, ENGINES < cluster;

	# The front end.
	wire, auth < broker;
	api, storage < backup;
	broker, cluster, backup < jetstream;
	broker, cluster < routes;
	config, jetstream < server < monitor;
	monitor < system;
	kv, monitor < console;

	# Tools.
	wal, stream, ENGINES < inspect;
	kv, config < cli;
	console, inspect, cli, routes, system < cmd/cleat;
`

var groups = map[string][]string{
	"ENGINES": {"storage/memory", "storage/filelog", "storage/lsm"},
}

const module = "github.com/cleatkv/cleat/"

func TestLayers(t *testing.T) {
	allowed, err := parsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	packages := listPackages(t)
	if len(packages) < 10 {
		t.Fatalf("only %d packages were found", len(packages))
	}
	for _, p := range packages {
		name := short(p.ImportPath)
		may, known := allowed[name]
		if !known && name != "invariant" {
			t.Errorf("%s is not in the policy: say what it may import, and who may import it", name)
			continue
		}
		for _, path := range p.Imports {
			imported := short(path)
			if strings.HasPrefix(path, module) && imported != "invariant" && !may[imported] {
				t.Errorf("%s imports %s, which the policy does not allow", name, imported)
			}
		}
	}
}

// The checker itself: an arrow is transitive, does not go back, and may not form a circle.
func TestPolicy(t *testing.T) {
	allowed, err := parsePolicy("a < b < ENGINES; c < b; # d\n")
	if err != nil {
		t.Fatal(err)
	}
	for arrow, want := range map[string]bool{
		"b a": true, "b c": true, "storage/lsm a": true, "storage/lsm c": true,
		"a b": false, "a c": false, "b storage/lsm": false,
	} {
		from, to, _ := strings.Cut(arrow, " ")
		if allowed[from][to] != want {
			t.Errorf("%s may import %s: %v", from, to, !want)
		}
	}
	for _, bad := range []string{"a < b; b < a", "a", "a < ", "a < b c"} {
		if _, err := parsePolicy(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// parsePolicy returns, for each package named, the set of packages it may import.
func parsePolicy(text string) (map[string]map[string]bool, error) {
	allowed := map[string]map[string]bool{}
	var lines []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		lines = append(lines, strings.TrimSpace(line))
	}
	for rule := range strings.SplitSeq(strings.Join(lines, " "), ";") {
		if rule = strings.TrimSpace(rule); rule == "" {
			continue
		}
		levels := strings.Split(rule, "<")
		if len(levels) < 2 {
			return nil, fmt.Errorf("no arrow in %q", rule)
		}
		var below []string
		for _, level := range levels {
			names, err := parseNames(level)
			if err != nil {
				return nil, fmt.Errorf("%w in %q", err, rule)
			}
			for _, name := range names {
				if allowed[name] == nil {
					allowed[name] = map[string]bool{}
				}
				for _, b := range below {
					allowed[name][b] = true
				}
			}
			below = names
		}
	}
	return allowed, close(allowed)
}

func parseNames(level string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(level, ",") {
		name = strings.TrimSpace(name)
		if name == "" || strings.Contains(name, " ") {
			return nil, fmt.Errorf("bad name %q", name)
		}
		if members := groups[name]; members != nil {
			names = append(names, members...)
		} else {
			names = append(names, name)
		}
	}
	return names, nil
}

// close adds the arrows that follow from others and refuses circles.
func close(allowed map[string]map[string]bool) error {
	for grown := true; grown; {
		grown = false
		for _, may := range allowed {
			for name := range may {
				for further := range allowed[name] {
					grown = grown || !may[further]
					may[further] = true
				}
			}
		}
	}
	for name, may := range allowed {
		if may[name] {
			return fmt.Errorf("%s may import itself", name)
		}
	}
	return nil
}

type listed struct {
	ImportPath string
	Imports    []string
}

// listPackages returns the packages of internal and cmd with what their non-test files import.
func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./internal/...", "./cmd/...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return slices.DeleteFunc(packages, func(p listed) bool { return p.ImportPath == module+"internal" })
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func short(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "internal/")
}
