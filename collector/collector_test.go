package collector

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestStretched(t *testing.T) {
	for _, tt := range []struct {
		interval time.Duration
		budget   float64
		cpu      time.Duration
		want     time.Duration
	}{
		{15 * time.Second, 0.02, 0, 15 * time.Second},
		{15 * time.Second, 0.02, 300 * time.Millisecond, 15 * time.Second}, // just within
		{15 * time.Second, 0.02, 400 * time.Millisecond, 20 * time.Second},
		{15 * time.Second, 0.02, time.Second, 50 * time.Second},
		{15 * time.Second, 0.02, time.Hour, MaxInterval},
		{15 * time.Second, 1e-300, time.Second, MaxInterval}, // no overflow
		{15 * time.Second, 1, time.Hour, 15 * time.Second},   // no limit
		{time.Second, 0.5, time.Second, 2 * time.Second},
		{MaxInterval, 0.02, time.Millisecond, MaxInterval},
	} {
		c := &Collector{cfg: Config{Interval: tt.interval, CPUBudget: tt.budget}, cpu: tt.cpu}
		if got := c.stretched(); got != tt.want {
			t.Errorf("%v, budget %v, after %v of CPU: %v, want %v", tt.interval, tt.budget, tt.cpu, got, tt.want)
		}
	}
}

func TestListsBound(t *testing.T) {
	for release, want := range map[string]bool{
		"6.8.0-31-generic": true, "6.8": true, "6.10.2": true, "6.18.44-custom": true, "7.0.0": true, "10.1": true, "6.8-rc1": true,
		"6.7.12": false, "6.1.0-18-amd64": false, "5.15.0": false, "4.18.0-553.el8_10.x86_64": false,
		"": false, "6": false, "6.": false, "six.eight": false, "-6.8": false, "6.x": false,
	} {
		if got := listsBound(release); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}

// Every gap has a stage that Stages tells, and there is no other.
func TestStages(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	values, used := make(map[string]string), make(map[string]bool)
	gaps := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if strings.HasPrefix(name.Name, "stage") {
						values[name.Name], _ = strconv.Unquote(n.Values[i].(*ast.BasicLit).Value)
					}
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "gap" {
					gaps++
					stage, ok := n.Args[0].(*ast.Ident)
					if !ok {
						t.Errorf("a gap's stage is no constant")
						return true
					}
					used[stage.Name] = true
				}
			}
			return true
		})
	}
	var want []string
	for name := range used {
		if values[name] == "" {
			t.Errorf("%s isn't known", name)
		}
		want = append(want, values[name])
	}
	got := slices.Sorted(slices.Values(Stages()))
	if slices.Sort(want); !slices.Equal(got, want) || gaps < len(want) {
		t.Errorf("Stages are %q; %d gaps bear %q", got, gaps, want)
	}
}
