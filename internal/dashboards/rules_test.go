package dashboards

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/lab"
)

const deploy = root + "deploy/prometheus/"

// A rule of either file.
type rule struct {
	Record, Alert, Expr string
	For                 string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var all []rule
	for _, name := range []string{"twwatch.rules.yml", "twwatch.alerts.yml"} {
		var file struct{ Groups []struct{ Rules []rule } }
		if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/"+name)), &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, g := range file.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all
}

func runTool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtool(t *testing.T) {
	promtool := lab.Tool(t, "promtool")
	t.Run("rules", func(t *testing.T) {
		runTool(t, promtool, "check", "rules", "--lint=all", "--lint-fatal", deploy+"twwatch.rules.yml", deploy+"twwatch.alerts.yml")
	})
	t.Run("cases", func(t *testing.T) {
		runTool(t, promtool, "test", "rules", deploy+"tests/alerts_test.yml")
	})
	t.Run("config", func(t *testing.T) {
		runTool(t, promtool, "check", "config", deploy+"prometheus.yml")
	})
	// Debian's build doesn't know Kubernetes: all but the discovery is checked.
	t.Run("kubernetes", func(t *testing.T) {
		text := strings.Replace(read(t, "deploy/prometheus/prometheus-kubernetes.yml"),
			"    kubernetes_sd_configs:\n      - role: pod\n", "    static_configs:\n      - targets: [localhost:10060]\n", 1)
		file := filepath.Join(t.TempDir(), "prometheus.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, "kubernetes_sd") {
			t.Fatal("the discovery isn't where this test looks for it")
		}
		runTool(t, promtool, "check", "config", file)
	})
}

func TestAmtool(t *testing.T) {
	runTool(t, lab.Tool(t, "amtool"), "check-config", deploy+"alertmanager.yml")
}

// Every expression of a panel and of a variable is one that Prometheus can read.
func TestExpressionsParse(t *testing.T) {
	promtool := lab.Tool(t, "promtool")
	var b strings.Builder
	b.WriteString("groups:\n- name: panels\n  rules:\n")
	n := 0
	for _, text := range boards() {
		for _, p := range parse(t, text).Panels {
			for _, q := range p.Targets {
				n++
				expr := fill(q.Expr, map[string]string{"__rate_interval": "1m", "__range": "6h"})
				fmt.Fprintf(&b, "  - record: panel:%d\n    expr: %q\n", n, expr)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, promtool, "check", "rules", file)
}

// A person woken by an alert finds what it means: a sentence, what to do, and
// a page that exists.
func TestAlerts(t *testing.T) {
	library, err := advice.Load()
	if err != nil {
		t.Fatal(err)
	}
	cases := read(t, "deploy/prometheus/tests/alerts_test.yml")
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if s := r.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if n := len(r.Annotations["summary"]); n < 20 || n > 160 {
			t.Errorf("%s: a summary of %d characters", r.Alert, n)
		}
		if n := len(r.Annotations["description"]); n < 80 || n > 480 {
			t.Errorf("%s: a description of %d characters", r.Alert, n)
		}
		runbook, page := r.Annotations["runbook_url"], r.Annotations["explain_url"]
		id, finding := strings.CutPrefix(runbook, project+"docs/advice.md#")
		if want := "http://{{ $labels.instance }}/explain/" + id; finding && page != want {
			t.Errorf("%s: explain_url is %q, want %q", r.Alert, page, want)
		}
		switch {
		case !finding && page != "":
			t.Errorf("%s: explain_url is %q, and the runbook is no finding: %s", r.Alert, page, runbook)
		case id == "{{ $labels.id }}":
		case finding && library.Explain(id) == nil:
			t.Errorf("%s: nothing explains %q", r.Alert, id)
		default:
			checkDocument(t, r.Alert, runbook)
		}
		for _, want := range []string{`firing",severity="` + r.Labels["severity"], ""} {
			expr := `alertname="` + r.Alert + `",alertstate="` + want
			if want == "" {
				expr = "- expr: ALERTS{alertname=\"" + r.Alert + "\"}\n        eval_time: [0-9hms]+\n        exp_samples: \\[\\]"
			}
			if !regexp.MustCompile(expr).MatchString(cases) {
				t.Errorf("%s: no case where it fires, or none where it doesn't (%s)", r.Alert, expr)
			}
		}
	}
}

// Rules read metrics that exist, and findings by ids that exist.
func TestRules(t *testing.T) {
	known := metricNames(t)
	all := rules(t)
	for _, r := range all {
		known[r.Record] = true
	}
	for _, r := range all {
		for _, metric := range metricsOf(r.Expr) {
			if !known[metric] {
				t.Errorf("%s%s: there is no %s", r.Record, r.Alert, metric)
			}
			if r.Alert != "" && strings.HasPrefix(metric, "twwatch_flow_") {
				t.Errorf("%s: a flow may leave: read a series of its namespace, not %s", r.Alert, metric)
			}
		}
		for _, m := range regexp.MustCompile(`\bid[!=]~?"([^"]*)"`).FindAllStringSubmatch(r.Expr, -1) {
			for pattern := range strings.SplitSeq(m[1], "|") {
				if !slices.ContainsFunc(advice.Findings(), regexp.MustCompile("^(?:"+pattern+")$").MatchString) {
					t.Errorf("%s%s: no finding is called %q", r.Record, r.Alert, pattern)
				}
			}
		}
	}
}
