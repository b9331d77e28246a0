package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// machines are the packages that are values in, values out: nothing in them may depend on when or
// where they run. Packages below them (engines) are meant as well, but for suites of tests.
var machines = []string{
	"invariant", "subject", "wire", "api", "kv", "storage", "wal", "stream", "consumer", "meta", "replica",
}

// loops are the files of machine packages that hold a loop rather than a machine: what is
// forbidden, and why it is all right there. The simulator does not run these files.
var loops = map[string]map[string]string{
	"internal/wal/loop.go": {
		"go":    "the writer and the keeper of an open log; a stepped log, as in simulation, has neither",
		"clock": "the age of a sync under way, and the next look at a full disk: neither decides what is written",
	},
	"internal/storage/filelog/salvage.go": {"go": "an offline tool, never part of a server: what is read goes through a pipe to what is written"},
	"internal/storage/lsm/store.go":       {"select": "both ends of a flush are final, and whichever is seen first, reason tells the same"},
	"internal/replica/run.go":             {"clock": "the loop around a shard; it hands the time to Turn", "select": "the loop around a shard"},
}

// bannedImports are not to be imported by machines.
var bannedImports = map[string]string{
	"math/rand": "randomness", "math/rand/v2": "randomness", "crypto/rand": "randomness",
	"net": "sockets", "net/http": "sockets", "os": "files go through vfs.FS", "os/exec": "processes",
	"os/signal": "signals", "syscall": "the system", "golang.org/x/sys/unix": "the system",
}

// bannedCalls are functions of otherwise harmless packages, by package path and name.
var bannedCalls = map[string]bool{
	"time.Now": true, "time.Since": true, "time.Until": true, "time.After": true, "time.AfterFunc": true,
	"time.Tick": true, "time.NewTimer": true, "time.NewTicker": true, "time.Sleep": true,
	"runtime.NumGoroutine": true, "hash/maphash.MakeSeed": true,
}

// mapOrder are functions that hand out a map's order; they are fine inside a sort.
var mapOrder = map[string]bool{"maps.Keys": true, "maps.Values": true, "maps.All": true}

var sorts = map[string]bool{"slices.Sorted": true, "slices.SortedFunc": true, "slices.SortedStableFunc": true}

// orderComment on the line of a range over a map, or on the line above, says why the order does
// not matter there.
const orderComment = "order:"

// finding is one thing that a rule forbids.
type finding struct {
	rule string // go, select, clock, import, map
	pos  token.Position
	text string
}

func TestMachinesAreDeterministic(t *testing.T) {
	exports := listExports(t)
	used := map[string]bool{}
	checked := map[string]int{} // files, by machine
	for _, p := range exports.machines {
		for _, f := range check(t, p, exports) {
			file, err := filepath.Rel(exports.root, f.pos.Filename)
			if err != nil {
				t.Fatal(err)
			}
			if loops[file][f.rule] != "" {
				used[file+" "+f.rule] = true
				continue
			}
			t.Errorf("%s:%d: %s (rule %q)", file, f.pos.Line, f.text, f.rule)
		}
		checked[machine(p.ImportPath)] += len(p.GoFiles)
	}
	for _, m := range machines {
		if checked[m] == 0 {
			t.Errorf("no file of %s was checked", m)
		}
	}
	for file, rules := range loops {
		for rule := range rules {
			if !used[file+" "+rule] {
				t.Errorf("%s no longer needs its exception from rule %q", file, rule)
			}
		}
	}
}

// The rules themselves, on a file that breaks each of them once.
func TestRules(t *testing.T) {
	const source = `package p
import ("maps"; "math/rand"; "slices"; "time")
func f(m map[int]int, c chan int) {
	go f(m, c)
	_ = time.Now()
	later := time.Since
	_ = later
	_ = rand.Int()
	for k := range m { _ = k }
	// order: nothing is done.
	for k := range m { _ = k }
	for k := range m { _ = k } // order: nothing is done
	for k := range maps.Keys(m) { _ = k }
	for _, k := range slices.Sorted(maps.Keys(m)) { _ = k }
	for _, k := range []int{} { _ = k }
	select { case <-c: case c <- 1: }
	select { case <-c: default: }
	_ = time.Unix(1, 0).Add(time.Second)
	var keys, loose []int
	for k := range m { keys = append(keys, k) }
	slices.Sort(keys)
	for k := range m { loose = append(loose, k) }
	sum, text := 0, ""
	for k, v := range m { sum += v; delete(m, k) }
	for k := range m { text += string(rune(k)) }
}`
	exports := listExports(t)
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	found := checkFiles(t, "p", fset, []*ast.File{file}, exports)
	slices.SortFunc(found, func(a, b finding) int { return a.pos.Line - b.pos.Line })
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s:%d", f.rule, f.pos.Line))
	}
	want := "import:2 go:4 clock:5 clock:6 map:9 map:13 select:16 map:22 map:25"
	if strings.Join(got, " ") != want {
		t.Errorf("found %v, want %s", got, want)
	}
}

// check type-checks one package and returns what breaks a rule.
func check(t *testing.T, p *goPackage, exports *exportData) []finding {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return checkFiles(t, p.ImportPath, fset, files, exports)
}

func checkFiles(t *testing.T, path string, fset *token.FileSet, files []*ast.File, exports *exportData) []finding {
	t.Helper()
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", exports.open)}
	if _, err := config.Check(path, fset, files, info); err != nil {
		t.Fatal(err)
	}
	var found []finding
	for _, file := range files {
		c := &checker{fset: fset, info: info, reasons: reasons(fset, file)}
		c.imports(file)
		ast.Inspect(file, c.visit)
		found = append(found, c.found...)
	}
	return found
}

// reasons returns the lines on which a comment permits a range over a map: its own line, and the next
// if nothing but the comment stands on its own.
func reasons(fset *token.FileSet, file *ast.File) map[int]bool {
	code := map[int]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if stmt, ok := n.(ast.Stmt); ok {
			code[fset.Position(stmt.Pos()).Line] = true
		}
		return true
	})
	lines := map[int]bool{}
	for _, group := range file.Comments {
		if _, why, ok := strings.Cut(group.Text(), orderComment); !ok || strings.TrimSpace(why) == "" {
			continue
		}
		if line := fset.Position(group.Pos()).Line; code[line] {
			lines[line] = true
		} else {
			lines[fset.Position(group.End()).Line+1] = true
		}
	}
	return lines
}

type checker struct {
	fset     *token.FileSet
	info     *types.Info
	reasons  map[int]bool
	function *ast.FuncDecl     // the one that is being visited
	sorted   map[ast.Node]bool // calls whose order a sort around them puts right
	found    []finding
}

func (c *checker) add(rule string, n ast.Node, format string, args ...any) {
	c.found = append(c.found, finding{rule, c.fset.Position(n.Pos()), fmt.Sprintf(format, args...)})
}

func (c *checker) imports(file *ast.File) {
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		if what, banned := bannedImports[path]; banned {
			c.add("import", spec, "imports %s: %s", path, what)
		}
	}
}

func (c *checker) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		c.add("go", n, "starts a goroutine")
	case *ast.SelectStmt:
		if ready := len(n.Body.List); ready > 2 || (ready == 2 && !hasDefault(n)) {
			c.add("select", n, "select takes a random one of the ready cases")
		}
	case *ast.FuncDecl:
		c.function = n
	case *ast.RangeStmt:
		line := c.fset.Position(n.Pos()).Line
		if c.isMap(n.X) && !c.reasons[line] && !c.harmless(n.Body.List) {
			c.add("map", n, "ranges over a map; sort the keys, or say \"%s why\" there", orderComment)
		}
	case *ast.CallExpr:
		if sorts[c.name(n.Fun)] && len(n.Args) > 0 {
			if c.sorted == nil {
				c.sorted = map[ast.Node]bool{}
			}
			c.sorted[n.Args[0]] = true
		}
		if name := c.name(n.Fun); mapOrder[name] && !c.sorted[n] && !c.reasons[c.fset.Position(n.Pos()).Line] {
			c.add("map", n, "%s hands out the order of a map; sort it, or say \"%s why\" there", name, orderComment)
		}
	case *ast.SelectorExpr:
		if name := c.name(n); bannedCalls[name] {
			c.add("clock", n, "uses %s", name)
		}
	}
	return true
}

// harmless says whether the body of a range over a map does nothing whose order could matter: it counts,
// deletes, fills another map, or collects what the function sorts.
func (c *checker) harmless(body []ast.Stmt) bool {
	for _, stmt := range body {
		switch s := stmt.(type) {
		case *ast.IncDecStmt:
		case *ast.ExprStmt:
			call, ok := s.X.(*ast.CallExpr)
			if !ok || !isIdent(call.Fun, "delete") {
				return false
			}
		case *ast.AssignStmt:
			if !c.harmlessAssign(s) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (c *checker) harmlessAssign(s *ast.AssignStmt) bool {
	if len(s.Lhs) != 1 {
		return false
	}
	if s.Tok == token.ADD_ASSIGN || s.Tok == token.SUB_ASSIGN {
		basic, ok := c.info.TypeOf(s.Lhs[0]).Underlying().(*types.Basic)
		return ok && basic.Info()&types.IsInteger != 0
	}
	if index, ok := s.Lhs[0].(*ast.IndexExpr); ok {
		return c.isMap(index.X)
	}
	call, ok := s.Rhs[0].(*ast.CallExpr)
	return ok && isIdent(call.Fun, "append") && c.sortedAfter(s)
}

// sortedAfter says whether what the assignment collects is handed to a sort further down.
func (c *checker) sortedAfter(s *ast.AssignStmt) bool {
	collected, ok := s.Lhs[0].(*ast.Ident)
	if !ok || c.function == nil {
		return false
	}
	found := false
	ast.Inspect(c.function.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if ok && call.Pos() > s.End() && len(call.Args) > 0 && isIdent(call.Args[0], collected.Name) {
			found = found || strings.HasPrefix(strings.ToLower(types.ExprString(call.Fun)), "sort") || strings.HasPrefix(c.name(call.Fun), "slices.Sort")
		}
		return true
	})
	return found
}

func (c *checker) isMap(e ast.Expr) bool {
	_, ok := c.info.TypeOf(e).Underlying().(*types.Map)
	return ok
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// name returns the package path and name of the function that e denotes: "time.Now".
func (c *checker) name(e ast.Expr) string {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	f, ok := c.info.Uses[selector.Sel].(*types.Func)
	if !ok || f.Pkg() == nil || f.Signature().Recv() != nil {
		return ""
	}
	return f.Pkg().Path() + "." + f.Name()
}

func hasDefault(s *ast.SelectStmt) bool {
	return slices.ContainsFunc(s.Body.List, func(clause ast.Stmt) bool { return clause.(*ast.CommClause).Comm == nil })
}

type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

// exportData is what the compiler knows of the machine packages and all that they import.
type exportData struct {
	root     string
	files    map[string]string // by import path
	machines []*goPackage
}

func (e *exportData) open(path string) (io.ReadCloser, error) {
	file := e.files[path]
	if file == "" {
		return nil, fmt.Errorf("no export data for %s", path)
	}
	return os.Open(file)
}

func listExports(t *testing.T) *exportData {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	e := &exportData{root: root, files: map[string]string{}}
	args := []string{"list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles", "math/rand", "maps", "slices", "time", "./internal/..."}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &goPackage{}
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return e
		} else if err != nil {
			t.Fatal(err)
		}
		e.files[p.ImportPath] = p.Export
		if machine(p.ImportPath) != "" {
			e.machines = append(e.machines, p)
		}
	}
}

// machine returns which of the machines the package is, or lies below; "" if none.
func machine(path string) string {
	name, ours := strings.CutPrefix(path, "github.com/cleatkv/cleat/internal/")
	first, _, _ := strings.Cut(name, "/")
	if !ours || !slices.Contains(machines, first) || strings.HasSuffix(name, "test") {
		return ""
	}
	return first
}
