package dashboards

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/internal/advice"
)

const root = "../../"

// The flag is read by tests only, and is the one way to write the dashboards.
var update = flag.Bool("update", false, "write the dashboards anew")

func boards() map[string][]byte {
	return map[string][]byte{
		"dashboards/twwatch-host.json":  Host(),
		"dashboards/twwatch-fleet.json": Fleet(),
	}
}

func TestGenerated(t *testing.T) {
	for name, got := range boards() {
		if *update {
			if err := os.WriteFile(root+name, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff := cmp.Diff(read(t, name), string(got)); diff != "" {
			t.Errorf("%s isn't what the code says; run `make generate` (-want +got):\n%s", name, diff)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(root + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// grafana is what these tests read of a dashboard.
type grafana struct {
	UID, Title, Description string
	SchemaVersion           int
	Templating              struct {
		List []struct {
			Name, Type, Definition string
			Datasource             *grafanaSource
		}
	}
	Panels []grafanaPanel
}

type grafanaSource struct{ Type, UID string }

type grafanaPanel struct {
	ID                       int
	Type, Title, Description string
	Datasource               *grafanaSource
	GridPos                  struct{ X, Y, W, H int }
	Links                    []struct{ Title, URL string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct {
		Expr, RefID string
		Datasource  *grafanaSource
		Instant     bool
	}
	Transformations []struct {
		ID      string
		Options struct {
			IndexByName  map[string]int
			RenameByName map[string]string
		}
	}
}

func parse(t *testing.T, text []byte) grafana {
	t.Helper()
	g, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func decode(text []byte) (g grafana, err error) {
	err = json.Unmarshal(text, &g)
	return g, err
}

// Whoever looks at a panel for the first time is told what it shows, in which
// unit, and where to read on.
func TestPanels(t *testing.T) {
	titles := map[string]bool{}
	for name, text := range boards() {
		g := parse(t, text)
		if g.UID == "" || g.Title == "" || g.Description == "" || titles[g.UID] {
			t.Errorf("%s: no title, description or uid of its own", name)
		}
		titles[g.UID] = true
		if g.SchemaVersion < 36 || g.SchemaVersion > 41 { // Grafana 9.1 to 12
			t.Errorf("%s: schemaVersion %d is not of Grafana 10 to 12", name, g.SchemaVersion)
		}
		variables := []string{"__rate_interval", "__range"}
		for i, v := range g.Templating.List {
			variables = append(variables, v.Name)
			if i == 0 && v.Type != "datasource" || i > 0 && (v.Datasource == nil || v.Datasource.UID != "${datasource}") {
				t.Errorf("%s: the variable %s isn't of the chosen data source", name, v.Name)
			}
		}
		ids := map[int]bool{}
		taken := map[[2]int]string{}
		for _, p := range g.Panels {
			where := fmt.Sprintf("%s: panel %q", name, p.Title)
			if ids[p.ID] || p.ID == 0 || p.Title == "" {
				t.Errorf("%s: no title, or the id %d is another's", where, p.ID)
			}
			ids[p.ID] = true
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if taken[at] != "" || at[0] >= width {
						t.Fatalf("%s lies on %q or over the edge", where, taken[at])
					}
					taken[at] = p.Title
				}
			}
			if p.Type != "row" {
				checkPanel(t, where, p, variables)
			}
		}
	}
}

func checkPanel(t *testing.T, where string, p grafanaPanel, variables []string) {
	t.Helper()
	if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
		t.Errorf("%s has no description, no unit or no query", where)
	}
	if p.Datasource == nil || p.Datasource.UID != "${datasource}" {
		t.Errorf("%s isn't of the chosen data source", where)
	}
	if len(p.Links) == 0 {
		t.Errorf("%s leads to no explanation", where)
	}
	refs := map[string]bool{}
	for _, q := range p.Targets {
		if q.Datasource == nil || q.Datasource.UID != "${datasource}" || refs[q.RefID] || q.Expr == "" {
			t.Errorf("%s, %s: not of the chosen data source, no expression, or no id of its own", where, q.RefID)
		}
		refs[q.RefID] = true
		for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(q.Expr, -1) {
			if !slices.Contains(variables, m[1]) {
				t.Errorf("%s, %s: there is no variable %s", where, q.RefID, m[1])
			}
		}
	}
	if p.Type == "table" {
		for _, transformation := range p.Transformations {
			for field := range transformation.Options.RenameByName {
				if ref, ok := strings.CutPrefix(field, "Value #"); ok && !refs[ref] {
					t.Errorf("%s: the column of %s has no query", where, ref)
				}
			}
		}
	}
}

// What a link promises to explain is explained: on the host by that id, in the
// documents under that heading.
func TestLinks(t *testing.T) {
	library, err := advice.Load()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range boards() {
		for _, p := range parse(t, text).Panels {
			for _, l := range p.Links {
				switch id, onHost := strings.CutPrefix(l.URL, "http://${instance}/explain/"); {
				case onHost && name != "dashboards/twwatch-host.json":
					t.Errorf("%s: %q links to an instance, and there is none", name, p.Title)
				case onHost:
					if library.Explain(id) == nil {
						t.Errorf("%s: %q: nothing explains %q", name, p.Title, id)
					}
				default:
					checkDocument(t, fmt.Sprintf("%s: %q", name, p.Title), l.URL)
				}
			}
		}
	}
}

// checkDocument holds a link into this project to what is there.
func checkDocument(t *testing.T, where, url string) {
	t.Helper()
	file, ok := strings.CutPrefix(url, project)
	if !ok {
		t.Errorf("%s: the link %s leads out of the project", where, url)
		return
	}
	file, anchor, _ := strings.Cut(file, "#")
	if text := read(t, file); anchor != "" && !regexp.MustCompile(`(?im)^#+ `+regexp.QuoteMeta(anchor)+`$`).MatchString(text) {
		t.Errorf("%s: %s has no heading %q", where, file, anchor)
	}
}

// metricNames are those that a scrape may have: of the exporter (its document
// is held to it by a test), of the client library, of Prometheus.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"up": true, "ALERTS": true, "process_cpu_seconds_total": true, "process_resident_memory_bytes": true}
	for _, m := range regexp.MustCompile("(?m)^\\| `(twwatch_\\w+)` \\|").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		names[m[1]] = true
	}
	if len(names) < 20 {
		t.Fatalf("only %d metrics in docs/metrics.md", len(names))
	}
	return names
}

// metricsOf returns the names of metrics in an expression: what stands before
// a brace, a bracket or an operator, and is no function, word or label; and the
// alternatives of a matcher of __name__.
func metricsOf(expr string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`__name__=~"([^"]*)"`).FindAllStringSubmatch(expr, -1) {
		names = append(names, strings.Split(m[1], "|")...)
	}
	quoted := regexp.MustCompile(`"[^"]*"`)
	labels := regexp.MustCompile(`\{[^}]*\}|\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	expr = labels.ReplaceAllString(quoted.ReplaceAllString(expr, ""), " ")
	for _, m := range regexp.MustCompile(`[a-zA-Z_][\w:]*|\d+[smhd]\b|\$?\w+`).FindAllString(expr, -1) {
		if strings.Contains(m, "twwatch") || strings.HasPrefix(m, "process_") || m == "up" || m == "ALERTS" {
			names = append(names, m)
		}
	}
	return names
}

// Every metric in a panel exists; the fleet's are recorded, since its panels
// can't read thousands of hosts' own.
func TestNames(t *testing.T) {
	exported, recorded := metricNames(t), map[string]bool{}
	for _, r := range rules(t) {
		recorded[r.Record] = true
	}
	for name, text := range boards() {
		known := exported
		if name == "dashboards/twwatch-fleet.json" {
			known = recorded
		}
		g := parse(t, text)
		checked := 0
		check := func(where, expr string) {
			for _, metric := range metricsOf(expr) {
				checked++
				if !known[metric] {
					t.Errorf("%s: %s: there is no %s to read here", name, where, metric)
				}
			}
		}
		for _, v := range g.Templating.List {
			check("variable "+v.Name, v.Definition)
		}
		for _, p := range g.Panels {
			for _, q := range p.Targets {
				if len(metricsOf(q.Expr)) == 0 {
					t.Errorf("%s: %q: no metric in %s", name, p.Title, q.Expr)
				}
				check(p.Title, q.Expr)
			}
		}
		if checked < 20 {
			t.Errorf("%s: only %d names were checked", name, checked)
		}
	}
}

// What documents and the cases of alerts name exists: metrics, exported or
// recorded, and alerts; and the document of the alerts has all of them.
func TestNamedInDocuments(t *testing.T) {
	metrics, alerts := metricNames(t), map[string]bool{}
	for _, r := range rules(t) {
		metrics[r.Record], alerts[r.Alert] = true, true
	}
	files := []string{"deploy/prometheus/tests/alerts_test.yml", "deploy/prometheus/alertmanager.yml"}
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || path == "bin" || path == "dist") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text := read(t, file)
		for _, name := range regexp.MustCompile(`\b[a-z_]*:?twwatch_[a-z0-9_]+(:\w+)?`).FindAllString(text, -1) {
			if !metrics[name] {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
		for _, name := range regexp.MustCompile(`\bTwwatch[A-Z]\w+`).FindAllString(text, -1) {
			if !alerts[name] {
				t.Errorf("%s: there is no alert %s", file, name)
			}
		}
	}
	document := read(t, "deploy/prometheus/README.md")
	for name := range alerts {
		if !strings.Contains(document, name) {
			t.Errorf("deploy/prometheus/README.md doesn't tell of %s", name)
		}
	}
}

// fill puts values in for a panel's variables.
func fill(expr string, values map[string]string) string {
	return regexp.MustCompile(`\$\w+`).ReplaceAllStringFunc(expr, func(v string) string {
		if value, ok := values[v[1:]]; ok {
			return value
		}
		return v
	})
}
