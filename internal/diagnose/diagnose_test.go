package diagnose

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

// host is a report of one namespace, at so many seconds, that change fills.
func host(at float64, change func(*snapshot.Namespace)) *snapshot.Report {
	n := &snapshot.Namespace{
		Name: "host", Inode: 1, Kind: "host",
		Source:   "inet_diag",
		Limits:   sysctl.Limits{IPLocalPortRange: &sysctl.PortRange{Low: 32768, High: 60999}},
		Counters: counters.Set{"TCPTimeWaitOverflow": 5},
		TimeWait: snapshot.TimeWait{BucketsUsed: 100, BucketsLimit: new(131072)},
		Ports:    &snapshot.PortPool{Range: 28232},
	}
	if change != nil {
		change(n)
	}
	return &snapshot.Report{
		BootID: "b", Uptime: at, Time: time.Unix(1000, 0).Add(time.Duration(at) * time.Second),
		Namespaces: []*snapshot.Namespace{n},
	}
}

// client adds a client flow that has so many ports left.
func client(free int, seconds *int) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		n.Flows = append(n.Flows, snapshot.Flow{
			Side: snapshot.Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 6379, Service: "redis", ServiceBy: "port",
			States:    snapshot.States{TimeWait: uint32(28232 - free)},
			CloseRate: new(470.0),
			Ports:     &snapshot.Ports{Range: 28232, Used: 28232 - free, Free: free, SecondsToExhaustion: seconds},
		})
	}
}

func buckets(used int) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) { n.TimeWait.BucketsUsed = used }
}

func overflow(total uint64) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) { n.Counters["TCPTimeWaitOverflow"] = total }
}

func TestRules(t *testing.T) {
	for _, tt := range []struct {
		name    string
		window  []*snapshot.Report
		verdict snapshot.Severity
		want    []string // id: summary
	}{
		{"quiet", []*snapshot.Report{host(0, nil), host(3, nil)}, snapshot.Healthy, nil},
		{"half the ports", []*snapshot.Report{host(0, nil), host(3, client(14116, nil))}, snapshot.Healthy, nil},
		{
			"over half",
			[]*snapshot.Report{host(0, nil), host(3, client(14115, nil))},
			snapshot.Warning,
			[]string{"ephemeral-ports-slow: connect() from 10.0.0.5 to 10.0.0.9 (port 6379, usually redis) is in its slow half: 14,117 of 28,232 ports are taken, all by closed connections in TIME_WAIT."},
		},
		{
			"a fifth left",
			[]*snapshot.Report{host(0, nil), host(3, client(5646, new(90)))},
			snapshot.Critical,
			[]string{"ephemeral-ports-running-out: Ports from 10.0.0.5 to 10.0.0.9 (port 6379, usually redis) run out: 5,646 of 28,232 are left, the others are taken by closed connections in TIME_WAIT; at the present rate none is left in 1 min 30 s."},
		},
		{"little time left, and most of the ports", []*snapshot.Report{host(0, nil), host(3, client(20000, new(14)))}, snapshot.Healthy, nil},
		{
			"over half, and little time left",
			[]*snapshot.Report{host(0, nil), host(3, client(10000, new(14)))},
			snapshot.Warning,
			[]string{"ephemeral-ports-slow: connect() from 10.0.0.5 to 10.0.0.9 (port 6379, usually redis) is in its slow half: 18,232 of 28,232 ports are taken, all by closed connections in TIME_WAIT; at the present rate none is left in 14 s."},
		},
		{
			"none left",
			[]*snapshot.Report{host(0, nil), host(3, client(0, new(0)))},
			snapshot.Critical,
			[]string{"ephemeral-ports-exhausted: No port left from 10.0.0.5 to 10.0.0.9 (port 6379, usually redis): all 28,232 are taken, all by closed connections in TIME_WAIT, and connect() fails with EADDRNOTAVAIL."},
		},
		{"buckets below", []*snapshot.Report{host(0, nil), host(3, buckets(104857))}, snapshot.Healthy, nil},
		{
			"buckets near",
			[]*snapshot.Report{host(0, nil), host(3, buckets(104858))},
			snapshot.Warning,
			[]string{"time-wait-buckets-near-limit: 104,858 of 131,072 TIME_WAIT buckets (tcp_max_tw_buckets) are in use, 80 %; above the limit connections skip TIME_WAIT, and the kernel logs nothing."},
		},
		{
			"overflow",
			[]*snapshot.Report{host(0, nil), host(3, overflow(1205))},
			snapshot.Warning,
			[]string{"time-wait-buckets-overflow: TIME_WAIT buckets overflow: 1,200 connections in 3 s closed without TIME_WAIT, so that late segments can reach a new connection."},
		},
		{"a counter that restarted", []*snapshot.Report{host(0, overflow(2000)), host(3, overflow(1205))}, snapshot.Healthy, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := Judge(tt.window, nil, Settings{})
			var got []string
			for _, f := range res.Findings {
				got = append(got, f.ID+": "+f.Summary)
				if len(f.Evidence) == 0 {
					t.Errorf("%s: no evidence", f.ID)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if res.Verdict != tt.verdict {
				t.Errorf("verdict %s, want %s", res.Verdict, tt.verdict)
			}
		})
	}
}

// What a rule can't know it doesn't judge, and that is said.
func TestNotJudged(t *testing.T) {
	single := Judge([]*snapshot.Report{host(0, overflow(9))}, nil, Settings{})
	blind := Judge([]*snapshot.Report{host(0, nil), host(3, func(n *snapshot.Namespace) {
		n.Ports, n.TimeWait.BucketsLimit, n.Counters = nil, nil, nil
	})}, nil, Settings{})
	for _, tt := range []struct {
		name string
		res  Result
		want []string
	}{
		{"a single look", single, []string{BucketsOverflow, ShortReset, ShortRemoteCloses, ShortCured}},
		{"no limits, no counters", blind, []string{PortsExhausted, PortsRunningOut, PortsSlow, BindFirst, ListenersInRange, BucketsNear, BucketsOverflow, Harmless, ShortReset, ShortRemoteCloses}},
	} {
		for _, id := range tt.want {
			if !slices.Contains(tt.res.NotJudged, id) {
				t.Errorf("%s: %s was judged", tt.name, id)
			}
		}
		if !slices.IsSorted(tt.res.NotJudged) || len(slices.Compact(slices.Clone(tt.res.NotJudged))) != len(tt.res.NotJudged) {
			t.Errorf("%s: not sorted, or one named twice: %v", tt.name, tt.res.NotJudged)
		}
	}
	for _, id := range []string{ShortClient, ShortServer, PortsSlow, Harmless} {
		if slices.Contains(append(single.NotJudged, "x"), id) && id != Harmless {
			t.Errorf("a single look: %s needs no more than that", id)
		}
	}
	rebooted := host(3, overflow(1205))
	rebooted.BootID = "another"
	if res := Judge([]*snapshot.Report{host(0, nil), rebooted}, nil, Settings{}); len(res.Findings) != 0 {
		t.Errorf("counters of two boots were compared: %+v", res.Findings)
	}
}

// A load that hovers about a threshold neither flaps nor loses its start.
func TestFindingsHold(t *testing.T) {
	judge := func(at float64, free int, previous []snapshot.Finding) []snapshot.Finding {
		return Judge([]*snapshot.Report{host(0, nil), host(at, client(free, nil))}, previous, Settings{}).Findings
	}
	first := judge(15, 14000, nil)
	second := judge(30, 15000, first) // 47 % used: below the threshold, not clear of it
	if len(second) != 1 || second[0].ID != PortsSlow || !second[0].Since.Equal(first[0].Since) {
		t.Fatalf("at 47 %%: %+v", second)
	}
	if third := judge(45, 15600, second); len(third) != 0 { // 44.7 %
		t.Errorf("at 44.7 %%: %+v", third)
	}
	if fresh := judge(30, 15000, nil); len(fresh) != 0 {
		t.Errorf("at 47 %% with nothing before: %+v", fresh)
	}
	// The same of time that is left.
	soon := func(seconds int, previous []snapshot.Finding) []snapshot.Finding {
		return Judge([]*snapshot.Report{host(15, client(10000, new(seconds)))}, previous, Settings{}).Findings
	}
	left := soon(14, nil)
	if held := soon(16, left); len(held) != 1 || held[0].ID != PortsRunningOut {
		t.Errorf("16 s left after 14: %+v", held)
	}
	if gone := soon(17, left); len(gone) != 1 || gone[0].ID != PortsSlow {
		t.Errorf("17 s left after 14: %+v", gone)
	}
}

// A range that runs dry before the next look is in its slow half first, however
// fast, and so for one look at least.
func TestPortsRunOutAfterTheSlowHalf(t *testing.T) {
	var previous []snapshot.Finding
	for at, c := range []struct {
		free    int
		seconds *int
		want    string
	}{
		{20000, new(10), ""},
		{13000, new(7), PortsSlow},
		{12000, new(16), PortsSlow},
		{11000, new(14), PortsRunningOut},
		{10900, new(16), PortsRunningOut},
		{10800, new(17), PortsSlow},
		{10000, nil, PortsSlow},
		{13000, nil, PortsSlow},
	} {
		res := Judge([]*snapshot.Report{host(float64(at)-1, nil), host(float64(at), client(c.free, c.seconds))}, previous, Settings{})
		got := ""
		for _, f := range res.Findings {
			got += f.ID
		}
		if got != c.want {
			t.Errorf("look %d: %q, want %q", at, got, c.want)
		}
		previous = res.Findings
	}
}

// A first look can't wait for the next.
func TestPortsRunOutAtTheFirstLook(t *testing.T) {
	counted := host(0, nil) // as twwatch check begins
	counted.Namespaces[0].Source = ""
	res := Judge([]*snapshot.Report{counted, host(3, client(13000, new(14)))}, nil, Settings{})
	if len(res.Findings) != 1 || res.Findings[0].ID != PortsRunningOut {
		t.Errorf("%+v", res.Findings)
	}
}

func TestThresholds(t *testing.T) {
	var th Thresholds
	if err := th.Set("ports_slow_ratio", 0.9); err != nil {
		t.Fatal(err)
	}
	if res := Judge([]*snapshot.Report{host(3, client(10000, nil))}, nil, Settings{Thresholds: th}); len(res.Findings) != 0 {
		t.Errorf("65 %% used below a threshold of 90 %%: %+v", res.Findings)
	}
	for name, value := range map[string]float64{"ports_slow_ratio": 1.5, "no_such": 1, "ports_running_out_seconds": -1} {
		err := th.Set(name, value)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("Set(%q, %v): %v", name, value, err)
		}
	}
}
