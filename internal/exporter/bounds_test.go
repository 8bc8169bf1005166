package exporter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/twwatch/twwatch/collector/snapshot"
)

func registry(t testing.TB, e *Exporter) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(e); err != nil {
		t.Fatal(err)
	}
	return reg
}

// busy is a host with all tables full, and pods with flows of their own.
func busy(n int) *snapshot.Report {
	flows := make([]snapshot.Flow, 0, 900)
	for i := range 400 {
		f := client(fmt.Sprintf("10.1.%d.%d", i/200, i%200), 6379, 1000-i, tw(uint32(1000-i)))
		f.Service, f.Births, f.CloseRate = "redis", 200, new(16.0)
		flows = append(flows, f)
		flows = append(flows, server(fmt.Sprintf("10.0.0.%d", i%100), fmt.Sprintf("192.0.2.%d", i%250), uint16(80+i%7), tw(900)))
	}
	host := hostNamespace()
	flows = append(flows, host.Flows...)
	ns := namespace("host", "host", 1, snapshot.Omitted{Flows: 100000, States: tw(90000), Births: 9}, flows...)
	ns.Counters, ns.Conntrack, ns.Limits = host.Counters, host.Conntrack, host.Limits
	for i := range 2 * maxProcesses {
		name := fmt.Sprint("app-", i)
		ns.Owners = append(ns.Owners, snapshot.Owner{Comm: name, CloseWait: 40})
		ns.CloseWaits = append(ns.CloseWaits, snapshot.CloseWait{Comm: name, AgeSeconds: new(9.0)})
	}
	r := at(n, ns)
	r.HostLimits = fixture(0).HostLimits
	for i := range 100 {
		r.Findings = append(r.Findings, snapshot.Finding{ID: fmt.Sprint("rule-", i), Severity: snapshot.Warning, Namespace: "host"})
	}
	return r
}

func withPods(r *snapshot.Report, pods int) *snapshot.Report {
	for i := range pods {
		f := client("10.9.9.9", 3306, 20000+i, tw(uint32(20000+i)))
		f.Births = 7
		s := server("10.8.0.1", "10.7.0.1", 8080, snapshot.States{Established: 30, CloseWait: uint32(i)})
		r.Namespaces = append(r.Namespaces, namespace("pod", fmt.Sprint("pod-", i), uint64(1000+i), snapshot.Omitted{}, f, s))
	}
	return r
}

func TestBudget(t *testing.T) {
	for _, pods := range []int{0, 1, 10, 110} {
		e := New(Config{Errors: func() map[string]uint64 {
			m := map[string]uint64{}
			for i := range 100 {
				m[fmt.Sprint("stage-", i)] = 1
			}
			return m
		}})
		for n := range 12 {
			e.Observe(withPods(busy(n), pods))
		}
		all := series(t, e)
		total, most := len(all)+1, DefaultMaxSeries+perNamespace*pods // and build_info
		if total > most {
			t.Errorf("%d pods: %d series, want at most %d", pods, total, most)
		}
		t.Logf("%d pods: %d series of %d, %d flows", pods, total, most, strings.Count(named(all, "twwatch_flow_time_wait_opened_total"), "\n"))
		if got := named(all, "twwatch_series_dropped"); got != " 60\n" { // 60 findings beyond the 40
			t.Errorf("%d pods: series dropped:%s", pods, got)
		}
		checkSums(t, all)
	}
}

// With less room fewer flows are let in; none loses a part of its series.
func TestSmallBudget(t *testing.T) {
	const most, pods = 300, 20
	e := New(Config{MaxSeries: most})
	for n := range 12 {
		e.Observe(withPods(busy(n), pods))
	}
	all := series(t, e)
	if len(all) > most+perNamespace*pods {
		t.Errorf("%d series", len(all))
	}
	if got := named(all, "twwatch_series_dropped"); got != " 60\n" { // findings, as above
		t.Errorf("series dropped:%s", got)
	}
	flows := strings.Count(named(all, "twwatch_flow_time_wait_opened_total"), "\n")
	if flows == 0 || flows > (most-reserved)/serverSeries {
		t.Errorf("%d flows", flows)
	}
	checkSums(t, all)
}

// checkSums holds, for each namespace that says what it omitted: exported
// flows and omitted sockets are all sockets, in each of the four states.
func checkSums(t *testing.T, all map[string]float64) {
	t.Helper()
	sums := map[string]float64{}
	omitted := map[string]bool{}
	pick := func(k, label string) string {
		_, after, _ := strings.Cut(k, label+`="`)
		value, _, _ := strings.Cut(after, `"`)
		return value
	}
	for k, v := range all {
		id := pick(k, "netns") + " " + pick(k, "state")
		switch name, _, _ := strings.Cut(k, "{"); name {
		case "twwatch_flow_sockets":
			sums[id] += v
		case "twwatch_flow_sockets_omitted":
			sums[id] += v
			omitted[id] = true
		case "twwatch_sockets":
			sums[id] -= v
		}
	}
	if len(omitted) == 0 {
		t.Error("no namespace says what it omitted")
	}
	for id := range omitted {
		if sums[id] != 0 {
			t.Errorf("%s: flows + omitted − sockets = %v, want 0", id, sums[id])
		}
	}
}

// Remotes rotate for hours; whatever their rhythm, series and new label sets
// are bounded.
func TestRotatingRemotes(t *testing.T) {
	for name, c := range map[string]struct{ lasts, hours, remotes int }{
		"a pass": {1, 1, 1000}, "three passes": {3, 3, 100}, "eleven minutes": {44, 3, 100},
	} {
		t.Run(name, func(t *testing.T) {
			lasts, hours, half := c.lasts, c.hours, c.remotes/2
			e := New(Config{})
			ever, inHour := map[flowKey]bool{}, map[flowKey]bool{}
			for n := range hours * 240 {
				if n%240 == 0 {
					clear(inHour)
				}
				var flows []snapshot.Flow
				for i := range half {
					id := n/lasts*half + i
					remote := fmt.Sprintf("2001:db8::%x:%x", id>>16, id&0xffff)
					flows = append(flows,
						client(remote, 443, half-i, tw(uint32(half-i))),
						server(remote, remote, uint16(1+id%60000), tw(4))) // as hostile as can be: new local addresses
				}
				e.Observe(at(n, namespace("host", "host", 1, snapshot.Omitted{}, flows...)))
				shown := len(e.clients.shown) + len(e.servers.shown)
				if shown > 2*DefaultFlows {
					t.Fatalf("pass %d: %d flows are exported", n, shown)
				}
				for _, tab := range []*table{e.clients, e.servers} {
					if len(tab.gone) > 2*DefaultMaxNew || len(tab.streak) > DefaultFlows {
						t.Fatalf("pass %d: %d gone and %d waiting flows are remembered", n, len(tab.gone), len(tab.streak))
					}
					for k := range tab.shown {
						if !ever[k] {
							ever[k], inHour[k] = true, true
						}
					}
				}
				if len(inHour) > DefaultMaxNew {
					t.Fatalf("pass %d: %d label sets are new within the hour, want at most %d", n, len(inHour), DefaultMaxNew)
				}
				if n%240 == 239 {
					all := series(t, e)
					if len(all) >= DefaultMaxSeries {
						t.Errorf("pass %d: %d series", n, len(all))
					}
					checkSums(t, all)
				}
			}
			t.Logf("%d label sets in %d hours", len(ever), hours)
			if lasts == 1 && len(ever) > 0 {
				t.Errorf("%d flows of a single pass were exported", len(ever))
			}
			if lasts > 1 && len(ever) < DefaultFlows {
				t.Errorf("only %d flows were ever exported: does the test do anything?", len(ever))
			}
		})
	}
}

// A crowd of flows with a socket each comes and goes; the one that matters is
// exported at its second pass all the same.
func TestHeavyFlowGetsIn(t *testing.T) {
	for _, after := range []int{4, 100, 235, 241, 470} {
		e := New(Config{})
		for n := range after + 2 {
			var flows []snapshot.Flow
			for i := range 60 {
				id := n/4*60 + i
				flows = append(flows, client("127.0.0.1", uint16(id), 1, tw(1)), server("127.0.0.1", "127.0.0.1", uint16(id), tw(1)))
			}
			if n >= after {
				flows = append(flows, client("10.0.0.9", 6379, 2000, tw(2000)))
			}
			e.Observe(at(n, namespace("host", "host", 1, snapshot.Omitted{}, flows...)))
		}
		all := series(t, e)
		if got := named(all, "twwatch_flow_ports_used"); !strings.Contains(got, `port="6379",protocol="",remote="10.0.0.9",side="client"} 2000`) {
			t.Errorf("after %d passes of a crowd the heavy flow is not exported; exported are\n%s", after, got)
		}
	}
}

func TestNamespaceLabels(t *testing.T) {
	ns := func(kind, name string, inode uint64) *snapshot.Namespace {
		return &snapshot.Namespace{Kind: kind, Name: name, Inode: inode}
	}
	long := strings.Repeat("é", 100) // 200 bytes
	all := []*snapshot.Namespace{
		ns("named", "shop", 5),
		ns("named", "shop", 6),
		ns("named", "shop@5", 7), // as if to be mistaken
		ns("host", "host", 1),
		ns("named", "host", 8), // a host of somebody's own
		ns("named", "a\xffb", 9),
		ns("named", "a\xfeb", 10), // another name, the same label
		ns("pod", long, 11),
		ns("pod", long+"x", 12),
		ns("pod", "", 13),
		{Kind: "pod", Name: "twin", Inode: 14, Cookie: 1},
		{Kind: "pod", Name: "twin", Inode: 14, Cookie: 2},
		ns("pod", "line\nquote\"esc\x1b[0m", 15),
	}
	labels := netnsLabels(all)
	got := map[uint64][]string{}
	seen := map[string]bool{}
	for _, n := range all {
		l := labels[identify(n)]
		if seen[l] || len(l) > maxLabel || l == "" {
			t.Errorf("label %q: not unique, too long or empty", l)
		}
		seen[l] = true
		got[n.Inode] = append(got[n.Inode], l)
	}
	want := map[uint64][]string{
		5: {"shop@5.2"}, 6: {"shop@6"}, 7: {"shop@5"}, 1: {"host"}, 8: {"host@8"},
		9: {"a\uFFFDb@9"}, 10: {"a\uFFFDb@10"},
		11: {strings.Repeat("é", 62) + "@11"}, 12: {strings.Repeat("é", 62) + "@12"},
		13: {"@13"}, 14: {"twin@14", "twin@14.2"}, 15: {`line\u000aquote"esc\u001b[0m`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                  "plain",
		"caf\xe9":                "caf\uFFFD",
		"a\x1b]0;b\a":            `a\u001b]0;b\u0007`,
		"\u202egnp":              `\u202egnp`,
		"\U000e0001":             `\U000e0001`,
		strings.Repeat("€", 99):  strings.Repeat("€", 42), // 126 bytes
		strings.Repeat("x", 999): strings.Repeat("x", 128),
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// One bad value costs itself, never the scrape.
func TestBadValues(t *testing.T) {
	f := client("10.0.0.9", 6379, 5, tw(5))
	f.Device, f.Service = "eth\x00\xff\n0", "re\"dis\\"
	f.CloseRate = new(math.NaN())
	twin := f // the same labels again
	odd := client("not an address", 1, 2, tw(1))
	negative := client("10.0.0.8", 1, 2, tw(1))
	negative.Ports = &snapshot.Ports{Range: -5, Used: -7, Free: -1}
	ns := namespace("host", "host", 1, snapshot.Omitted{}, f, twin, odd, negative)
	ns.TimeWait.BucketsLimit = new(-1)
	same := *ns
	for n := range 3 {
		r := at(n, ns, &same)
		r.TookSeconds = math.Inf(1)
		r.Namespaces = append(r.Namespaces, nil)
		e := New(Config{})
		for range 3 {
			e.Observe(r)
		}
		all := series(t, e)
		checkSums(t, all)
		if got, want := named(all, "twwatch_flow_sockets"), `{local="10.0.0.5%eth\\u0000�\\u000a0",netns="host",port="6379",protocol="re\"dis\\",remote="10.0.0.9",side="client",state="time_wait"} 10`; !strings.Contains(got, want) {
			t.Errorf("%s is missing:\n%s", want, got)
		}
		if got := named(all, "twwatch_collect_duration_seconds"); got != "" {
			t.Errorf("an infinite duration: %s", got)
		}
		if got := named(all, "twwatch_series_dropped"); got != " 1\n" {
			t.Errorf("series dropped: %s, want the duration", got)
		}
	}
}

// Whatever consistent reports come, sums close, births are counted once and
// the scrape holds.
func TestRandomReports(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 7))
		e := New(Config{ServerRemotes: seed%2 == 1, Flows: 1 + rng.IntN(6), MaxNew: 5 + rng.IntN(100)})
		var births, counted float64
		last := map[string]float64{}
		for n := range 120 {
			r := at(n)
			for i := range 1 + rng.IntN(4) {
				r.Namespaces = append(r.Namespaces, randomNamespace(rng, i))
				births += float64(r.Namespaces[i].TimeWait.Births)
			}
			e.Observe(r)
			all := series(t, e)
			checkSums(t, all)
			for k, v := range all {
				if strings.HasPrefix(k, "twwatch_flow_time_wait_opened") && v < last[k] && !strings.Contains(k, `netns="c`) {
					t.Errorf("seed %d, pass %d: the counter %s went back from %v to %v", seed, n, k, last[k], v)
				}
			}
			last = all
			if len(all) > DefaultMaxSeries+perNamespace*3 {
				t.Errorf("seed %d: %d series", seed, len(all))
			}
		}
		// What was forgotten is missing, and nothing may be there twice.
		for _, tab := range []*table{e.clients, e.servers} {
			for _, m := range []map[flowKey]*track{tab.shown, tab.gone} {
				for _, tr := range m {
					counted += float64(tr.opened)
				}
			}
		}
		for _, o := range e.omitted {
			counted += float64(o.total)
		}
		if counted > births {
			t.Errorf("seed %d: %v births were counted, of %v", seed, counted, births)
		}
	}
}

func randomNamespace(rng *rand.Rand, i int) *snapshot.Namespace {
	var flows []snapshot.Flow
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	for range rng.IntN(30) {
		s := snapshot.States{
			TimeWait: rng.Uint32N(50), CloseWait: rng.Uint32N(3), Established: rng.Uint32N(9),
			SynSent: rng.Uint32N(2), SynRecv: rng.Uint32N(5), FinWait2: rng.Uint32N(3),
		}
		if rng.IntN(5) == 0 {
			s = snapshot.States{SynRecv: 4}
		}
		f := client(fmt.Sprintf("10.0.0.%d", rng.IntN(40)), 80+uint16(rng.IntN(2)), rng.IntN(28232), s)
		if rng.IntN(2) == 0 {
			f = server(fmt.Sprintf("10.1.0.%d", rng.IntN(3)), f.Remote, f.Port, s)
		}
		f.Side = snapshot.Side(pick(string(f.Side), string(f.Side), string(f.Side), "unknown", "other"))
		f.Device = pick("", "", "", "eth0", "\xff")
		f.Remote = pick(f.Remote, f.Remote, f.Remote, "10.9.0.0/24", "fe80::1%eth9", "::ffff:10.0.0.1", "?")
		f.Births = uint64(rng.Uint32N(20))
		f.CloseRate = []*float64{nil, new(rng.Float64() * 1000)}[rng.IntN(2)]
		f.SurvivorsOnly = rng.IntN(4) == 0
		flows = append(flows, f)
	}
	omitted := snapshot.Omitted{
		Flows: rng.IntN(3), Births: uint64(rng.IntN(9)),
		States: snapshot.States{TimeWait: rng.Uint32N(100), Established: rng.Uint32N(10)},
	}
	kind := pick("pod", "named")
	if i == 0 {
		kind = "host"
	}
	// The last two have one label while both are there.
	name := []string{"a", "b", "c\xff", "c\xfe"}[i]
	return namespace(kind, name, uint64(i), omitted, flows...)
}
