package exporter

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// The flag is read by tests only, and is the one way to write golden files.
var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		beside := filepath.Join("testdata", filepath.Base(name)+".got")
		if err := os.WriteFile(beside, got, 0o644); err != nil {
			t.Error(err)
		}
		t.Errorf("%s (-want +got), the whole in %s:\n%s", name, beside, diff)
	}
}

// fixtureExporter has seen three passes of the fixture: flows have entered
// with the second, and counted with the third.
func fixtureExporter() *Exporter {
	e := New(Config{
		Now:    func() time.Time { return epoch().Add(34 * time.Second) },
		Errors: func() map[string]uint64 { return map[string]uint64{"dump": 0, "close_wait_age": 3, "e\xffvil\n": 1} },
	})
	for n := range 3 {
		e.Observe(fixture(n))
	}
	return e
}

func text(t *testing.T, e *Exporter) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, mf := range scrape(t, e) {
		if mf.GetName() == "twwatch_build_info" { // its labels are the build's
			continue
		}
		if _, err := expfmt.MetricFamilyToText(&b, mf); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	got := text(t, fixtureExporter())
	golden(t, "testdata/metrics.txt", got)
	if again := text(t, fixtureExporter()); !bytes.Equal(got, again) {
		t.Error("the same frames give other bytes")
	}
}

func TestLint(t *testing.T) {
	problems, err := promlint.New(bytes.NewReader(text(t, fixtureExporter()))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// promtool is what operators check with.
func TestPromtool(t *testing.T) {
	path, err := exec.LookPath("promtool")
	if err != nil {
		path = "../../.tools/bin/promtool" // where the set-up puts it
		if _, err := os.Stat(path); err != nil {
			if r := os.Getenv("TWWATCH_REQUIRE"); slices.ContainsFunc(strings.Split(r, ","), func(a string) bool { return a == "promtool" || a == "all" }) {
				t.Fatalf("promtool is required by TWWATCH_REQUIRE=%s, and is not there", r)
			}
			t.Skip("no promtool: `make setup` installs it")
		}
	}
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = bytes.NewReader(text(t, fixtureExporter()))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestBeforeTheFirstFrame(t *testing.T) {
	e := New(Config{Errors: func() map[string]uint64 { return map[string]uint64{"source": 2} }})
	e.Observe(nil)
	want := map[string]float64{`twwatch_collect_errors_total{stage="source"}`: 2}
	if diff := cmp.Diff(want, series(t, e)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A value that isn't known has no series: neither 0 nor NaN.
func TestUnknownIsAbsent(t *testing.T) {
	e := New(Config{})
	f := client("10.0.0.9", 6379, 0, tw(3))
	f.Ports, f.CloseRate = nil, nil
	ns := namespace("self", "self", 1, snapshot.Omitted{}, f)
	ns.Ports = nil
	for n := range 3 {
		e.Observe(at(n, ns))
	}
	all := series(t, e)
	for _, name := range []string{
		"twwatch_time_wait_buckets_limit", "twwatch_time_wait_opened_total", "twwatch_time_wait_overflows_total",
		"twwatch_ephemeral_ports", "twwatch_ephemeral_ports_used_ratio_max", "twwatch_close_wait_oldest_seconds",
		"twwatch_listen_overflows_total", "twwatch_listen_drops_total", "twwatch_syncookies_sent_total",
		"twwatch_conntrack_entries", "twwatch_conntrack_limit",
		"twwatch_flow_ports_free", "twwatch_flow_ports_used", "twwatch_flow_port_demand_ratio",
	} {
		if got := named(all, name); got != "" {
			t.Errorf("%s is there: %s", name, got)
		}
	}
	if got := named(all, "twwatch_flow_sockets"); !strings.Contains(got, `state="time_wait"} 3`) {
		t.Errorf("the flow is not exported: %q", got)
	}
}

// Nobody looked for bound sockets: none is no number.
func TestCloseIsAbsentUnlessLookedFor(t *testing.T) {
	for _, seen := range []bool{true, false} {
		e := New(Config{})
		ns := namespace("host", "host", 1, snapshot.Omitted{}, server("10.0.0.5", "192.0.2.1", 80, tw(9)))
		ns.Ports.BoundSeen = seen
		ns.States.Close = 4
		e.Observe(at(0, ns))
		got := named(series(t, e), "twwatch_sockets")
		if strings.Contains(got, `state="close"} 4`) != seen || strings.Contains(got, `state="close"}`) != seen || !strings.Contains(got, `state="listen"}`) {
			t.Errorf("looked for: %v; %s", seen, got)
		}
	}
}

func TestPortsUsedMax(t *testing.T) {
	for name, c := range map[string]struct {
		ns   *snapshot.Namespace
		want string
	}{
		"no client flow": {namespace("host", "host", 1, snapshot.Omitted{}, server("10.0.0.5", "192.0.2.1", 80, tw(9))), "0\n"},
		"the tightest": {namespace("host", "host", 1, snapshot.Omitted{},
			client("10.0.0.8", 80, 7058, tw(7058)), client("10.0.0.9", 80, 14116, tw(14116)), client("10.0.0.10", 80, 3, tw(3))), "0.5\n"},
		"exhausted by binds": {namespace("host", "host", 1, snapshot.Omitted{}, func() snapshot.Flow {
			f := client("10.0.0.8", 80, 8232, tw(8232))
			f.Ports.Blocked, f.Ports.Free = 20000, 0
			return f
		}()), "1\n"},
		"reusable ports are free": {namespace("host", "host", 1, snapshot.Omitted{}, func() snapshot.Flow {
			f := client("127.0.0.1", 80, 28232, tw(28232))
			f.Ports.Reusable, f.Ports.Free = 28232, 28232
			return f
		}()), "0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := New(Config{})
			e.Observe(at(0, c.ns)) // from the first pass on
			if diff := cmp.Diff(`{netns="host"} `+c.want, named(series(t, e), "twwatch_ephemeral_ports_used_ratio_max")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestServerRemotes(t *testing.T) {
	e := New(Config{ServerRemotes: true})
	for n := range 2 {
		e.Observe(at(n, hostNamespace()))
	}
	got := named(series(t, e), "twwatch_flow_sockets")
	for _, want := range []string{`remote="192.0.2.7",side="server",state="time_wait"} 40`, `remote="192.0.2.8",side="server",state="time_wait"} 2`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing:\n%s", want, got)
		}
	}
	for _, never := range []string{"203.0.113.66", "198.51.100", "10.0.0.77"} {
		if strings.Contains(got, never) {
			t.Errorf("%s (forged, a prefix, of no known side) became a label:\n%s", never, got)
		}
	}
}

func TestInfoFindings(t *testing.T) {
	e := New(Config{Info: true})
	e.Observe(fixture(0))
	if got := named(series(t, e), "twwatch_finding"); !strings.Contains(got, `id="idle",netns="host",port="",protocol="",side=""} 1`) {
		t.Errorf("the info finding is missing:\n%s", got)
	}
}

// The wall clock may be stepped; uptime tells the time between passes.
func TestClockSteps(t *testing.T) {
	e := New(Config{})
	f := func() *snapshot.Namespace {
		return namespace("host", "host", 1, snapshot.Omitted{}, client("10.0.0.9", 6379, 5, tw(5)))
	}
	none := func() *snapshot.Namespace { return namespace("host", "host", 1, snapshot.Omitted{}) }
	observe := func(wall time.Duration, uptime float64, ns *snapshot.Namespace) {
		r := at(0, ns)
		r.Time, r.Uptime, r.BootID = epoch().Add(wall), uptime, "b"
		e.Observe(r)
	}
	observe(0, 100, f())
	observe(15*time.Second, 115, f())
	observe(24*time.Hour, 130, none())
	observe(-24*time.Hour, 145, none())
	if named(series(t, e), "twwatch_flow_time_wait_opened_total") == "" {
		t.Error("a step of the wall clock ended a flow's stay")
	}
	observe(-24*time.Hour, 115+601, none())
	if got := named(series(t, e), "twwatch_flow_time_wait_opened_total"); got != "" {
		t.Errorf("the flow is still there after its stay:\n%s", got)
	}
}

// A host without uptime in its reports, and a clock set back for good.
func TestClockSetBack(t *testing.T) {
	e := New(Config{})
	observe := func(wall time.Duration, flows ...snapshot.Flow) {
		r := at(0, namespace("host", "host", 1, snapshot.Omitted{}, flows...))
		r.Time = epoch().Add(wall)
		e.Observe(r)
	}
	f := client("10.0.0.9", 6379, 5, tw(5))
	observe(0, f)
	observe(15*time.Second, f)
	observe(-24 * time.Hour)
	if named(series(t, e), "twwatch_flow_time_wait_opened_total") == "" {
		t.Error("a step of the wall clock ended a flow's stay")
	}
	observe(-24*time.Hour + 601*time.Second)
	if got := named(series(t, e), "twwatch_flow_time_wait_opened_total"); got != "" {
		t.Errorf("the flow is still there after its stay:\n%s", got)
	}
}

// Scrapes go on while a frame comes in, and each is of one frame.
func TestScrapeWhileObserving(t *testing.T) {
	e := New(Config{})
	reg := registry(t, e)
	for n := range 3 {
		e.Observe(at(n, namespace("host", "host", 1, snapshot.Omitted{}, client("10.0.0.9", 80, n, tw(uint32(n))))))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 200 {
			e.Observe(at(n, namespace("host", "host", 1, snapshot.Omitted{}, client("10.0.0.9", 80, n, tw(uint32(n))))))
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		mfs, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[float64]bool{}
		for _, mf := range mfs {
			for _, m := range mf.GetMetric() {
				for _, name := range []string{"twwatch_sockets", "twwatch_flow_sockets"} {
					if mf.GetName() == name && strings.Contains(seriesName(mf, m), "time_wait") {
						values[m.GetGauge().GetValue()] = true
					}
				}
			}
		}
		if len(values) != 1 {
			t.Fatalf("one scrape has values of several frames: %v", values)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	e := New(Config{})
	r := []*snapshot.Report{busy(0), busy(1)}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		e.Observe(r[i%2])
		i++
	}
}

// A further namespace shows when it was looked at once that is a minute ago, the
// ten that wait longest.
func TestDumpAges(t *testing.T) {
	r := at(0, namespace("host", "host", 1, snapshot.Omitted{}))
	for i := range 30 {
		ns := namespace("pod", fmt.Sprint("pod-", i), uint64(100+i), snapshot.Omitted{})
		ns.SampledAt = epoch().Add(-time.Duration(i) * 2 * time.Second) // 58 s at most
		r.Namespaces = append(r.Namespaces, ns)
	}
	var now time.Time
	e := New(Config{Now: func() time.Time { return now }})
	e.Observe(r)
	for after, want := range map[time.Duration]int{0: 1, 10 * time.Second: 1 + 5, time.Hour: 1 + 10} {
		now = epoch().Add(after)
		if got := strings.Count(named(series(t, e), "twwatch_netns_dump_age_seconds"), "\n"); got != want {
			t.Errorf("%v later: %d series, want %d", after, got, want)
		}
	}
}

// What only some look for is there where it was asked for.
func TestFeaturesAskedFor(t *testing.T) {
	host, pod := namespace("host", "host", 1, snapshot.Omitted{}), namespace("pod", "a/b", 2, snapshot.Omitted{})
	gap := func(stage string) []snapshot.Gap { return []snapshot.Gap{{Stage: stage}} }
	for name, c := range map[string]struct {
		r    *snapshot.Report
		want string
	}{
		"self":            {&snapshot.Report{Namespaces: []*snapshot.Namespace{host}}, ""},
		"all":             {&snapshot.Report{Namespaces: []*snapshot.Namespace{host, pod}}, "namespaces 1"},
		"none is reached": {&snapshot.Report{Namespaces: []*snapshot.Namespace{host}, Limited: gap("namespaces")}, "namespaces 0"},
		"no runtime":      {&snapshot.Report{Namespaces: []*snapshot.Namespace{host}, Limited: gap("cri")}, "cri 0"},
	} {
		got := ""
		for _, f := range features(c.r) {
			if f.name == "namespaces" || f.name == "cri" {
				got += fmt.Sprint(f.name, " ", f.value)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
