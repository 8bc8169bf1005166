package house

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// levels gives every package its level. A package imports only packages of a
// lower level, never a sibling; its tests too. docs/architecture.md shows the
// same table and says what each package owns.
func levels() map[string]int {
	return map[string]int{
		"inetdiag":            0,
		"sysctl":              0,
		"internal/counters":   0,
		"internal/netns":      0,
		"internal/workload":   0,
		"internal/sandbox":    0,
		"collector/snapshot":  1,
		"internal/owner":      1,
		"internal/lab":        1,
		"internal/draw":       1,
		"collector/flow":      2,
		"collector/ledger":    2,
		"internal/advice":     2,
		"collector/record":    2,
		"collector/remote":    2,
		"internal/diagnose":   3,
		"collector":           3,
		"internal/hub":        4,
		"internal/report":     4,
		"internal/exporter":   5,
		"internal/web":        5,
		"internal/top":        5,
		"cmd/twwatch":         6,
		"internal/bench":      6,
		"internal/dashboards": 6,
		"internal/truth":      6,
		"internal/house":      6,
		"deploy/test":         6,
	}
}

// guarded names the imports that only a few packages may have outside their
// tests. .golangci.yml repeats it, so that editors complain at once.
func guarded() map[string][]string {
	return map[string][]string{
		// A program is started only where the job is to start one.
		"os/exec": {"internal/lab", "internal/bench", "cmd/twwatch"},
		"unsafe":  {"inetdiag", "internal/sandbox"},
	}
}

func TestSources(t *testing.T) {
	for _, complaint := range checkSources(t, tree(t)) {
		t.Error(complaint)
	}
}

// A source is one parsed Go file.
type source struct {
	name string // path in the tree
	dir  string // its package, relative to the module
	test bool   // *_test.go
	fset *token.FileSet
	file *ast.File
}

func (s source) complain(node ast.Node, format string, args ...any) string {
	line := s.fset.Position(node.Pos()).Line
	return fmt.Sprintf("%s:%d: %s", s.name, line, fmt.Sprintf(format, args...))
}

// checkSources returns what is wrong with the Go files of a tree, sorted by file.
func checkSources(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	var complaints []string
	var sources []source
	for _, name := range goFiles(t, fsys) {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, read(t, fsys, name), parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			complaints = append(complaints, err.Error())
			continue
		}
		s := source{name, path.Dir(name), strings.HasSuffix(name, "_test.go"), fset, file}
		sources = append(sources, s)
		complaints = append(complaints, checkImports(s)...)
		complaints = append(complaints, checkCalls(s)...)
	}
	return append(complaints, checkPackages(sources)...)
}

// checkImports holds one file to the table of levels and the guarded imports.
func checkImports(s source) []string {
	var complaints []string
	level, known := levels()[s.dir]
	for _, spec := range s.file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if allowed, ok := guarded()[imported]; ok && !s.test && !slices.Contains(allowed, s.dir) {
			complaints = append(complaints, s.complain(spec, "%s may be imported only by %s", imported, strings.Join(allowed, ", ")))
		}
		if imported != module && !strings.HasPrefix(imported, module+"/") {
			continue
		}
		dep := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
		depLevel, depKnown := levels()[dep]
		switch {
		case dep == s.dir && s.test: // an external test of its own package
		case !depKnown:
			complaints = append(complaints, s.complain(spec, "imports %q, which has no level", dep))
		case known && depLevel >= level:
			complaints = append(complaints, s.complain(spec, "%s (level %d) imports %s (level %d): only lower levels may be imported", s.dir, level, dep, depLevel))
		}
	}
	return complaints
}

// checkCalls complains of init functions, and of tests that wait by sleeping.
// Inside synctest.Test a sleep costs no time and is exact, so it is allowed.
func checkCalls(s source) []string {
	var complaints []string
	var bubbles []ast.Node
	clock, synctest := localName(s.file, "time"), localName(s.file, "testing/synctest")
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				complaints = append(complaints, s.complain(n, "func init: let the caller decide when it happens"))
			}
		case *ast.CallExpr:
			if isCall(n, synctest, "Test") {
				bubbles = append(bubbles, n)
			}
			inBubble := slices.ContainsFunc(bubbles, func(b ast.Node) bool { return b.Pos() <= n.Pos() && n.End() <= b.End() })
			if s.test && isCall(n, clock, "Sleep") && !inBubble {
				complaints = append(complaints, s.complain(n, "time.Sleep in a test: poll with a deadline, or use testing/synctest"))
			}
		}
		return true
	})
	return complaints
}

// localName is the name that an import has in a file, "" if it isn't imported.
func localName(file *ast.File, importPath string) string {
	for _, spec := range file.Imports {
		if spec.Path.Value != strconv.Quote(importPath) {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

func isCall(call *ast.CallExpr, pkg, name string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || pkg == "" || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}

// checkPackages complains of packages without a level, and of those that don't
// have exactly one package comment (in a test file only if all are tests).
func checkPackages(sources []source) []string {
	dirs := map[string][]source{}
	for _, s := range sources {
		dirs[s.dir] = append(dirs[s.dir], s)
	}
	var complaints []string
	for dir, all := range dirs {
		if _, known := levels()[dir]; !known {
			complaints = append(complaints, dir+": has no level: add it to the table in internal/house and to docs/architecture.md")
		}
		documented := all
		if slices.ContainsFunc(all, func(s source) bool { return !s.test }) {
			documented = slices.DeleteFunc(slices.Clone(all), func(s source) bool { return s.test })
		}
		var docs []string
		for _, s := range documented {
			if s.file.Doc != nil {
				docs = append(docs, path.Base(s.name))
			}
		}
		switch {
		case len(docs) == 0:
			complaints = append(complaints, dir+": no package comment: say what the package owns, how long its values live and what it won't do")
		case len(docs) > 1:
			complaints = append(complaints, fmt.Sprintf("%s: %d package comments, want one: %s", dir, len(docs), strings.Join(docs, ", ")))
		}
	}
	slices.Sort(complaints)
	return complaints
}

// The table of levels and the one in docs/architecture.md are the same.
func TestLevelsAreDocumented(t *testing.T) {
	for _, complaint := range checkLevelsTable(read(t, tree(t), "docs/architecture.md")) {
		t.Error("docs/architecture.md: " + complaint)
	}
}

func checkLevelsTable(text string) []string {
	row := regexp.MustCompile("(?m)^\\| ([0-9]) \\| ((?:`[^`]+`[ ,]*)+)\\|")
	quoted := regexp.MustCompile("`([^`]+)`")
	documented := map[string]int{}
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		level, _ := strconv.Atoi(m[1])
		for _, name := range quoted.FindAllStringSubmatch(m[2], -1) {
			documented[strings.TrimSuffix(name[1], "/")] = level
		}
	}
	var complaints []string
	for name, level := range levels() {
		got, ok := documented[name]
		switch {
		case !ok:
			complaints = append(complaints, name+" is not in the table of levels")
		case got != level:
			complaints = append(complaints, fmt.Sprintf("%s has level %d there, and %d in internal/house", name, got, level))
		}
		delete(documented, name)
	}
	for name := range documented {
		complaints = append(complaints, name+" has no level in internal/house")
	}
	slices.SortFunc(complaints, cmp.Compare[string])
	return complaints
}
