package dashboards

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/twwatch/twwatch/internal/lab"
)

// The real exporter's metrics of 40 minutes on a host for each trouble and on
// the well ones: each raises the alerts of its trouble, and no other. promtool
// keeps the time, so nothing waits and nothing is in a hurry.
func TestIncidents(t *testing.T) {
	promtool := lab.Tool(t, "promtool")
	const step, end = 15 * time.Second, 40 * time.Minute
	begin := time.Unix(0, 0)
	hosts := simulate(len(troubles()), begin, step)
	samples := newHistory(int(end/step) + 1)
	for i := range samples.steps {
		for _, h := range hosts {
			target := []string{
				"instance", h.instance(), "job", "monitoring/twwatch", "service", "twwatch", "namespace", "monitoring",
				"pod", h.pod(), "container", "twwatch", "endpoint", "metrics",
			}
			families, err := h.scrape(begin.Add(time.Duration(i) * step))
			if err != nil {
				t.Fatal(err)
			}
			samples.add(i, "up", target, map[bool]float64{true: 1}[h.up()])
			if h.up() {
				samples.addAll(i, target, families)
			}
		}
	}

	for _, r := range rules(t) {
		if r.Alert != "" && r.Alert != "TwwatchAbsent" && count(hosts, func(h *simulated) bool {
			return slices.ContainsFunc(h.raises, func(a raised) bool { return a.alert == r.Alert })
		}) == 0 {
			t.Errorf("no trouble raises %s", r.Alert)
		}
	}
	alerts, err := filepath.Abs(deploy + "twwatch.alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%s]\nevaluation_interval: 15s\ntests:\n- interval: 15s\n  input_series:\n", alerts)
	samples.write(&b)
	b.WriteString("  promql_expr_test:\n")
	expected := ""
	for _, h := range hosts {
		for _, raised := range h.raises {
			labels := fmt.Sprintf("instance=%q,pod=%q,alertname=%q", h.instance(), h.pod(), raised.alert)
			if raised.netns != "" {
				labels += fmt.Sprintf(",netns=%q", raised.netns)
			}
			expected += fmt.Sprintf("    - {labels: '{%s}', value: 1}\n", labels)
		}
	}
	const firing = `group by (instance, pod, alertname, netns) (ALERTS{alertstate="firing",service="twwatch",namespace="monitoring"})`
	// And none without its target's labels.
	const lost = `ALERTS{alertstate="firing"} unless ALERTS{service="twwatch",namespace="monitoring"}`
	fmt.Fprintf(&b, "  - {expr: '%s', eval_time: 40m, exp_samples: []}\n", lost)
	fmt.Fprintf(&b, "  - expr: '%s'\n    eval_time: 40m\n    exp_samples:\n%s", firing, expected)
	file := filepath.Join(t.TempDir(), "incidents.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, promtool, "test", "rules", file)
}

func count(hosts []*simulated, is func(*simulated) bool) int {
	n := 0
	for _, h := range hosts {
		if is(h) {
			n++
		}
	}
	return n
}

// history is series over a number of steps, as promtool reads them.
type history struct {
	steps  int
	names  []string
	values map[string][]string
}

func newHistory(steps int) *history { return &history{steps: steps, values: map[string][]string{}} }

func (h *history) add(step int, name string, labels []string, value float64) {
	var b strings.Builder
	b.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		fmt.Fprintf(&b, "%s%s=%q", []string{"{", ","}[min(i, 1)], labels[i], labels[i+1])
	}
	series := b.String() + "}"
	values := h.values[series]
	if values == nil {
		h.names = append(h.names, series)
		values = slices.Repeat([]string{"_"}, h.steps)
		h.values[series] = values
	}
	values[step] = strconv.FormatFloat(value, 'g', -1, 64)
}

// addAll adds what a scrape of the target gave. A label that the target has too
// is called exported_, as without honor_labels.
func (h *history) addAll(step int, target []string, families []*dto.MetricFamily) {
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := slices.Clone(target)
			for _, l := range m.GetLabel() {
				if l.GetValue() == "" {
					continue
				}
				name := l.GetName()
				for i := 0; i < len(target); i += 2 {
					if target[i] == name {
						name = "exported_" + name
					}
				}
				labels = append(labels, name, l.GetValue())
			}
			h.add(step, family.GetName(), labels, m.GetGauge().GetValue()+m.GetCounter().GetValue())
		}
	}
}

func (h *history) write(b *strings.Builder) {
	for _, series := range h.names {
		fmt.Fprintf(b, "  - series: '%s'\n    values: '", series)
		values := h.values[series]
		for i := 0; i < len(values); {
			same := 1
			for i+same < len(values) && values[i+same] == values[i] {
				same++
			}
			fmt.Fprintf(b, "%sx%d ", values[i], same-1)
			i += same
		}
		b.WriteString("'\n")
	}
}
