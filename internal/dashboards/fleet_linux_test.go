package dashboards

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/twwatch/twwatch/internal/lab"
)

// The flags are for scripts/scale, which measures a large fleet as it would run.
var (
	manyHosts = flag.Int("hosts", 60, "simulated hosts of TestFleet")
	scaleFile = flag.String("scale", "", "scrape every 15 s, for minutes, and write the measurements to this file")
)

const fleetAddress = "127.0.0.1:9100"

// Many hosts, simulated, in a real Prometheus: every panel of the fleet's
// dashboard has data, all rules can be evaluated, and no host has more series
// than is promised.
func TestFleet(t *testing.T) {
	t.Parallel()
	path := lab.Tool(t, "prometheus")
	ns := lab.NewT(t)
	interval, pace := time.Second, 60.0
	if *scaleFile != "" {
		interval, pace = 15*time.Second, 1
	}
	hosts := simulate(*manyHosts, time.Now().Add(-4*interval), interval)
	serveFleet(t, ns, hosts)
	p := startPrometheus(t, ns, path, pace, fmt.Sprintf("  evaluation_interval: %v\n", interval), fleetTargets(hosts, interval))

	lab.Eventually(t, 2*time.Minute+80*interval, func() error {
		want := float64(count(hosts, (*simulated).looks))
		if n, err := p.ask("sum(cluster:twwatch_hosts:count)", 0, 0); err != nil || len(n) != 1 || n[0].value != want {
			return fmt.Errorf("hosts that are recorded: %v, want %v; %v", n, want, err)
		}
		if err := p.checkPanels(Fleet(), fleetVariables(), nil); err != nil {
			return err
		}
		host := map[string]string{"job": "monitoring/twwatch", "instance": hosts[0].instance(), "netns": ".*"}
		return p.checkPanels(Host(), host, func(panel, _ string) bool { return panel == "Connection tracking" })
	})
	p.alerts(t) // no rule fails

	for _, s := range must[[]sample](t)(p.ask("scrape_samples_scraped", 0, 0)) {
		const pods = 30 // and what a process tells of itself
		if limit := 500.0 + 4*pods; s.value > limit {
			t.Errorf("%s has %v series, more than %v", s.labels["instance"], s.value, limit)
		}
	}
	if *scaleFile != "" {
		text := measureFleet(t, p, hosts, interval)
		if err := os.WriteFile(filepath.Join(root, *scaleFile), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// serveFleet answers the scrapes of all hosts, in the namespace.
func serveFleet(t *testing.T, ns *lab.Namespace, hosts []*simulated) {
	t.Helper()
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// What twwatch serve shows of its own process, the same for all.
	process := must[[]*dto.MetricFamily](t)(own.Gather())
	mux := http.NewServeMux()
	for _, h := range hosts {
		scrape := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			families, err := h.scrape(time.Now())
			return slices.Concat(families, process), err
		})
		if h.up() {
			mux.Handle(h.path(), promhttp.HandlerFor(scrape, promhttp.HandlerOpts{DisableCompression: true}))
		}
	}
	var listener net.Listener
	err := ns.Do(func() (err error) {
		listener, err = net.Listen("tcp4", fleetAddress)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }() // ends with Close
	t.Cleanup(func() { _ = srv.Close() })
}

func (h *simulated) path() string { return fmt.Sprintf("/host/%d/metrics", h.index) }

// fleetTargets is the part of a configuration that scrapes the hosts, with the
// labels that the Prometheus Operator attaches.
func fleetTargets(hosts []*simulated, interval time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "- job_name: monitoring/twwatch\n  scrape_interval: %v\n  scrape_timeout: %v\n  sample_limit: 1000\n  static_configs:\n", interval, interval)
	for _, h := range hosts {
		fmt.Fprintf(&b, "  - targets: [%q]\n    labels: {instance: %q, __metrics_path__: %s, service: twwatch, namespace: monitoring, pod: %s, container: twwatch, endpoint: metrics}\n",
			fleetAddress, h.instance(), h.path(), h.pod())
	}
	return b.String()
}

// fleetVariables is what Grafana puts in for All.
func fleetVariables() map[string]string {
	return map[string]string{"cluster": ".*", "job": ".*", "service": ".*", "__range": "6h"}
}

// checkPanels asks the questions of a dashboard, all or those of the panels that
// are meant, and wants an answer to each.
func (p *database) checkPanels(board []byte, variables map[string]string, meant func(panel, query string) bool) error {
	g, err := decode(board)
	if err != nil {
		return err
	}
	for _, panel := range g.Panels {
		for _, q := range panel.Targets {
			if meant != nil && !meant(panel.Title, q.RefID) {
				continue
			}
			span, steps := time.Duration(0), 0
			if !q.Instant {
				span, steps = 30*time.Second, 30
			}
			answer, err := p.ask(fill(q.Expr, variables), span, steps)
			if err != nil {
				return fmt.Errorf("%q, %s: %w", panel.Title, q.RefID, err)
			}
			if len(answer) == 0 {
				return fmt.Errorf("%q, %s: no data: %s", panel.Title, q.RefID, fill(q.Expr, variables))
			}
		}
	}
	return nil
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
